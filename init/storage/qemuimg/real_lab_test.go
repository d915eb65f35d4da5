//go:build lab

package qemuimg

import (
	"os"
	"path/filepath"
	"testing"

	"cairn/image/debian/debiantest"
)

// TestAllocatedByQEMU reads the tables of an overlay that QEMU has written to: data,
// zeros, what was discarded, and what another layer was merged into.
func TestAllocatedByQEMU(t *testing.T) {
	dir := t.TempDir()
	img, io := debiantest.Program(t, "qemu-img"), debiantest.Program(t, "qemu-io")
	base, mid, top := filepath.Join(dir, "base"), filepath.Join(dir, "mid"), filepath.Join(dir, "top")
	img(Create(base, "qcow2", 1<<30+512, Overlay{}).Args...)
	io("-f", "qcow2", "-d", "unmap", "-c", "write -P 1 0 4M", base)
	img(Create(mid, "qcow2", 1<<30+512, Overlay{Backing: "base", Format: "qcow2"}).Args...)
	io("-f", "qcow2", "-d", "unmap", "-c", "write -P 2 128k 1", "-c", "write -z 256k 64k", "-c", "discard 448k 64k", "-c", "write -P 3 1G 512", mid)
	img(Create(top, "qcow2", 1<<30+512, Overlay{Backing: "mid", Format: "qcow2"}).Args...)
	io("-f", "qcow2", "-d", "unmap", "-c", "write -P 4 512M 65k", "-c", "write -z -u 640k 64k", top)
	check := func(name, want string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := allocated(b); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	check("base", "0+64 ")
	check("mid", "2+1 4+1 7+1 16384+1 ")
	check("top", "10+1 8192+2 ")
	img(Commit(top, nil).Args...)
	check("mid", "2+1 4+1 7+1 10+1 8192+2 16384+1 ")
}
