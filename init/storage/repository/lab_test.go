//go:build lab

package repository

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cairn/image/debian"
	"cairn/init/storage"
	"cairn/init/storage/media"
	"cairn/init/storage/tool"
)

// programs are copied out of the tree, because a confined program may not be able
// to look into the directory of whoever built it.
type programs struct{ dir string }

func copyPrograms(t testing.TB) programs {
	t.Helper()
	if _, err := os.Stat(insidePrograms); err == nil {
		return programs{insidePrograms}
	}
	tree, err := debian.Open(t.Context(), debian.Config{})
	must(t, err)
	p := programs{t.TempDir()}
	open(t, p.dir)
	for _, name := range []string{"qemu-img", "qemu-io", "qemu-nbd", "mke2fs", "e2fsck", "wipefs", "lvm"} {
		list := tree.Command(t.Context(), name)
		must(t, list.Err)
		loader, file := list.Path, ""
		for i, a := range list.Args {
			if a == "--argv0" {
				file = list.Args[i+2]
			}
		}
		out, err := exec.CommandContext(t.Context(), loader, "--library-path", tree.Path("/usr/lib/x86_64-linux-gnu")+":"+tree.Path("/usr/lib"), "--list", file).Output()
		must(t, err)
		copyFile(t, file, filepath.Join(p.dir, name))
		copyFile(t, loader, filepath.Join(p.dir, "ld.so"))
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) > 2 && f[1] == "=>" && !strings.HasPrefix(f[0], "/") {
				copyFile(t, f[2], filepath.Join(p.dir, f[0]))
			}
		}
	}
	return p
}

func (p programs) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	all := append([]string{"--library-path", p.dir, filepath.Join(p.dir, name)}, args...)
	return exec.CommandContext(ctx, filepath.Join(p.dir, "ld.so"), all...)
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	if _, err := os.Stat(to); err == nil {
		return
	}
	in, err := os.Open(from)
	must(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, err)
	must(t, out.Close())
}

// open lets everybody pass through the directories a test makes.
func open(t testing.TB, dir string) {
	t.Helper()
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
}

// realUser is who confined programs run as in these tests.
const realUser = 64055

func realManager(t testing.TB) (*Manager, string) {
	t.Helper()
	dir := t.TempDir()
	open(t, dir)
	for _, d := range []string{"sr", "iso", "mnt", "run"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	tools := tool.Linux{Make: copyPrograms(t).command, User: realUser, Group: realUser}
	return New(Config{
		Tools: tools, Mounter: storage.Linux{LoadModule: func(string) error { return nil }},
		Media:    media.Source{Sys: "/sys", Dev: "/dev", Proc: "/proc", Tools: tools},
		MountDir: dir + "/mnt", Record: dir + "/run/repositories.json", LVMDir: dir + "/run/lvm", ExportDir: dir + "/run/exports",
		FilePrefixes: []string{dir + "/sr"}, ISOPrefixes: []string{dir + "/iso"},
		User: realUser, Group: realUser, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}), dir
}

// loop makes a block device of a file.
func loop(t *testing.T, size int64) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	must(t, err)
	defer file.Close()
	must(t, file.Truncate(size))
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	must(t, err)
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	must(t, err)
	path := "/dev/loop" + strconv.Itoa(n)
	dev, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer dev.Close()
	must(t, unix.IoctlLoopConfigure(int(dev.Fd()), &unix.LoopConfig{Fd: uint32(file.Fd())}))
	t.Cleanup(func() {
		dev, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0)
			dev.Close()
		}
		if err != nil {
			t.Errorf("detach %s: %v", path, err)
		}
	})
	return path
}
