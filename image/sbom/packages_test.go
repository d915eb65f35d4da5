package sbom

import (
	"testing"

	"cairn/image/debian"
)

func TestPackages(t *testing.T) {
	tree := debian.NewTree("/cache/root", []debian.Package{
		{Name: "udev", Version: "257", Arch: "amd64", Source: "systemd"},
		{Name: "libc6", Version: "2.41", Arch: "amd64", Source: "glibc"},
		{Name: "unused", Version: "1"},
	}, map[string]string{"usr/lib/libc.so.6": "libc6", "usr/lib/udev/a": "udev", "usr/lib/udev/b": "udev", "usr/lost": "gone"})
	got, err := Packages(tree, []string{
		"/cache/root/usr/lib/udev/a", "/cache/root/lib/udev/b", "/cache/root/usr/lib/libc.so.6",
		"/elsewhere/usr/lib/x", "/cache/root/usr/lib/modules/6.12/modules.dep",
	})
	if err != nil || len(got) != 2 || got[0].Name != "libc6" || got[1].Source != "systemd" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, file := range []string{"/cache/root/etc/unknown", "/cache/root/usr/lost"} {
		if got, err := Packages(tree, []string{file}); err == nil {
			t.Errorf("%s: got %+v", file, got)
		}
	}
}
