//go:build lab

package nbd_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cairn/image/debian/debiantest"
	"cairn/toolstack/transfer/disk/disktest"
	"cairn/toolstack/transfer/nbd"
)

// TestRealQEMU reads and writes images through qemu-nbd, and asks it which layer their
// bytes are in and what a bitmap says.
func TestRealQEMU(t *testing.T) {
	tree := debiantest.Open(t)
	dir := t.TempDir()
	base, top := filepath.Join(dir, "base"), filepath.Join(dir, "top")
	img := debiantest.Program(t, "qemu-img")
	serve := func(args ...string) (*nbd.Client, *exec.Cmd) {
		t.Helper()
		path := filepath.Join(dir, "socket")
		os.Remove(path)
		l, err := net.Listen("unix", path)
		must(t, err)
		defer l.Close()
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		f, err := l.(*net.UnixListener).File()
		must(t, err)
		defer f.Close()
		// The shell tells its own number, which is that of what it becomes.
		program := tree.Command(t.Context(), "qemu-nbd", args...)
		cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"`, "sh", program.Path}, program.Args[1:]...)...)
		cmd.Env, cmd.Stderr, cmd.ExtraFiles = program.Env, os.Stderr, []*os.File{f}
		must(t, cmd.Start())
		conn, err := net.Dial("unix", path)
		must(t, err)
		c, err := nbd.New(t.Context(), conn, "", nbd.Depth, nbd.DirtyBitmap+"b")
		must(t, err)
		return c, cmd
	}
	img("create", "-q", "-f", "qcow2", base, "17M")
	c, cmd := serve("-f", "qcow2", "-A", "--discard=unmap", base)
	disktest.Keeps(t, c)
	must(t, c.Close())
	must(t, cmd.Wait())
	img("check", "-q", base)

	img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
	img("bitmap", "--add", "-g", "65536", top, "b")
	c, cmd = serve("-f", "qcow2", "-A", "--discard=unmap", top)
	_, err := c.WriteAt([]byte("x"), 1<<20)
	must(t, err)
	must(t, c.Zero(2<<20, 1<<20))
	must(t, c.Close())
	must(t, cmd.Wait())
	c, cmd = serve("-f", "qcow2", "-A", "-B", "b", "-r", top)
	if !c.ReadOnly() || !c.Knows(nbd.Allocation) {
		t.Error("read-only")
	}
	changed := func(name string) (sum int64) {
		all, err := c.Status(t.Context(), name, 0, c.Size())
		must(t, err)
		for _, s := range all {
			if s.Flags == 1 {
				sum += s.Len
			}
		}
		return sum
	}
	for _, name := range []string{nbd.Depth, nbd.DirtyBitmap + "b"} {
		if n := changed(name); n != 1<<20+64<<10 {
			t.Errorf("%s: %d bytes", name, n)
		}
	}
	must(t, c.Close())
	must(t, cmd.Wait())
}
