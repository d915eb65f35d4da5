package vm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

// FuzzGuestFile: whatever path a client writes, what is opened lies in the guest
// directory.
func FuzzGuestFile(f *testing.F) {
	base := f.TempDir()
	guests := filepath.Join(base, "guest")
	for _, d := range []string{guests, guests + "-evil"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "vmlinuz"), nil, 0o644); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.Symlink(guests+"-evil", guests+"/out"); err != nil {
		f.Fatal(err)
	}
	m := New(Config{GuestDir: guests, Hypervisor: hypervisor.NewFake()})
	for _, seed := range []string{"/vmlinuz", "/../guest-evil/vmlinuz", "/out/vmlinuz", "-evil/vmlinuz", "/./vmlinuz", "//vmlinuz", "", "/", "\x00"} {
		f.Add(guests + seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got, err := m.guestFile("PV_kernel", path)
		var refused *api.Error
		switch {
		case err == nil && got != filepath.Join(guests, "vmlinuz"):
			t.Errorf("%q opens %q", path, got)
		case err != nil && (!errors.As(err, &refused) || refused.Code != api.CodeValueNotSupported):
			t.Errorf("%q: %v", path, err)
		}
	})
}
