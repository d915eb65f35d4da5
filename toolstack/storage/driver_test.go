package storage_test

import (
	"testing"

	"cairn/toolstack/storage"
)

// TestLocationsAreCleaned: one directory has one name, however it is written.
func TestLocationsAreCleaned(t *testing.T) {
	for given, want := range map[string]string{
		"/state/sr/x": "/state/sr/x", "/state/sr/x/": "/state/sr/x", "/state//sr/x//": "/state/sr/x", "x/": "x/", "": "",
	} {
		if got := storage.DriverConfig("file", map[string]string{"location": given}).Config["location"]; got != want {
			t.Errorf("%q is sent as %q, not %q", given, got, want)
		}
	}
}
