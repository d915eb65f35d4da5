package host

import (
	"strings"
	"testing"
)

func TestReady(t *testing.T) {
	got, err := ready(strings.NewReader("building https://x y\nready  https://127.0.0.1:4 user root\nmore\n"))
	if err != nil || got != "127.0.0.1:4" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := ready(strings.NewReader("oops\n")); err == nil {
		t.Error("a host that ended is ready")
	}
}
