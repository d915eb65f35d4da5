//go:build lab

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cairn/ci/lab/demo"
	"cairn/ci/lab/inside"
	"cairn/ci/lab/life"
	"cairn/image/guest/agent"
	"cairn/toolstack/client"
)

const mib = 1 << 20

// TestDevStorage: a host that nobody has set up installs a machine with a disk,
// by the command line. The repository is the same after a restart, and one that was
// forgotten stays away.
func TestDevStorage(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	path, dir := program(t), scratch(t)
	d := launch(t, path, dir)
	a := life.API{T: t, Client: d.login()}
	sr := a.DefaultSR(ctx)
	command := filepath.Join(t.TempDir(), "xe")
	if out, err := exec.Command("go", "build", "-o", command, "../../toolstack/cmd/xe").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	host, port, _ := strings.Cut(d.addr, ":")
	xe := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(ctx, command, append([]string{"-s", host, "-p", port, "-u", user, "-pw", password}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("xe %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	vm := xe("vm-install", "template=Debian Trixie 13", "new-name-label=web")
	uuid := xe("sr-list", "name-label=Local storage", "type=file", "--minimal")
	if disks := xe("vdi-list", "sr-uuid="+uuid, "--minimal"); len(disks) != 36 || uuid != a.Text(ctx, "SR.get_uuid", sr) {
		t.Errorf("%s has the disks %q", vm, disks)
	}
	d.end()

	d = launch(t, path, dir)
	a = life.API{T: t, Client: d.login()}
	if now := a.DefaultSR(ctx); now != sr {
		t.Errorf("default repository %s became %s", sr, now)
	}
	pbd := a.First(ctx, "SR.get_PBDs", sr)
	a.Until(ctx, "the repository", []string{"pbd"}, func() (attached bool) {
		a.Call(ctx, &attached, "PBD.get_currently_attached", pbd)
		return attached
	})
	a.Call(ctx, nil, "PBD.unplug", pbd)
	a.Call(ctx, nil, "SR.forget", sr)
	d.end()

	d = launch(t, path, dir)
	var found []string
	life.API{T: t, Client: d.login()}.Call(ctx, &found, "SR.get_by_name_label", "Local storage")
	if len(found) != 0 {
		t.Error("a forgotten repository came back")
	}
}

// scratch is a directory whose name leaves room for those of sockets.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dev")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// end ends the program as Ctrl-C does.
func (d *instance) end() {
	d.Helper()
	d.must(d.cmd.Process.Signal(os.Interrupt))
	d.must(d.cmd.Wait())
}

// small is a file system of a given size below a directory, in a mount namespace of
// the calling goroutine's thread, which ends with it.
func small(t *testing.T, path string, size int) (grow func(size int)) {
	t.Helper()
	runtime.LockOSThread()
	option := func(size int) string { return fmt.Sprintf("size=%d", size) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS))
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(os.MkdirAll(path, 0o755))
	must(unix.Mount("small", path, "tmpfs", 0, option(size)))
	return func(size int) {
		t.Helper()
		must(unix.Mount("", path, "", unix.MS_REMOUNT, option(size)))
	}
}

// TestDevOutOfSpace: a guest whose repository is full is paused, which is told; it
// goes on when others give space back, and when the repository has grown. Nothing of
// what it wrote is lost.
func TestDevOutOfSpace(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := scratch(t)
	outside := filepath.Join(dir, "state/sr/small")
	grow := small(t, outside, 40*mib)
	t.Cleanup(func() { _ = unix.Unmount(outside, unix.MNT_DETACH) })
	d := launch(t, program(t), dir)
	s := starved{API: life.API{T: t, Client: d.login()}, ballast: filepath.Join(outside, "ballast")}
	s.prepare(ctx)
	tty := life.Up(ctx, t, s.guest)

	answer := tty.Type(t, "fill %s 9 24", s.serial)
	s.waits(ctx)
	d.must(os.Remove(s.ballast))
	answer(ctx)
	s.goesOn(ctx, tty, 9, 24)

	answer = tty.Type(t, "fill %s 10 60", s.serial)
	s.waits(ctx)
	if _, err := s.NewDisk(ctx, s.sr, "one more", mib); !client.IsCode(err, "SR_FULL") {
		t.Errorf("a disk for which there is no space: %v", err)
	}
	grow(128 * mib)
	answer(ctx)
	s.goesOn(ctx, tty, 10, 60)
	s.sound(ctx, d.inside())
	d.end()
}

// starved is a guest on a small repository.
type starved struct {
	life.API
	ballast     string // a file of others in the repository
	sr          string
	guest       *demo.Guest
	vdi, serial string
	rounds      int // how often it was paused
}

func (s *starved) prepare(ctx context.Context) {
	s.T.Helper()
	config := map[string]string{"location": "/state/sr/small"}
	s.sr = s.Ref(ctx, "SR.create", s.First(ctx, "host.get_all"), config, "0", "small", "", "file", "user", false, map[string]string{})
	var err error
	if s.guest, err = demo.Create(ctx, s.Client, "starved"); err != nil {
		s.T.Fatal(err)
	}
	s.vdi, s.serial = s.Disk(ctx, s.sr, "data", 64*mib)
	s.Drive(ctx, s.guest.Ref, s.vdi, "0", "Disk")
	if err := os.WriteFile(s.ballast, make([]byte, 24*mib), 0o600); err != nil {
		s.T.Fatal(err)
	}
}

// waits until the guest is paused for want of space, and an alert says so. There
// need not be another when it happens again at once.
func (s *starved) waits(ctx context.Context) {
	s.T.Helper()
	s.rounds++
	s.state(ctx, "Paused")
	s.Until(ctx, "an alert", []string{"message"}, func() bool { return s.Alerts(ctx, "ALARM", s.guest.UUID) > 0 })
}

func (s *starved) state(ctx context.Context, want string) {
	s.T.Helper()
	s.Until(ctx, "the guest to be "+want, []string{"vm"}, func() bool {
		got, err := s.guest.PowerState(ctx)
		return err == nil && got == want
	})
}

// goesOn: the guest runs, its disk holds what it wrote, and nobody was told twice of
// the same.
func (s *starved) goesOn(ctx context.Context, tty life.Keyboard, seed int64, filled int64) {
	s.T.Helper()
	s.state(ctx, "Running")
	h := sha256.New()
	_, _ = io.CopyN(h, agent.Pattern(seed), filled*mib)
	_, _ = h.Write(make([]byte, (64-filled)*mib))
	if got, want := tty.Sum(ctx, s.T, s.serial), fmt.Sprintf("%x", h.Sum(nil)); got != want {
		s.T.Errorf("the disk holds %s, want %s", got, want)
	}
	if n := s.Alerts(ctx, "ALARM", s.guest.UUID); n > s.rounds {
		s.T.Errorf("%d alerts for %d times", n, s.rounds)
	}
}

// sound ends the guest; its image has no errors and no lost clusters.
func (s *starved) sound(ctx context.Context, host inside.Host) {
	s.T.Helper()
	if err := s.guest.HardShutdown(ctx); err != nil {
		s.T.Fatal(err)
	}
	sr := s.Text(ctx, "SR.get_uuid", s.sr)
	if n := s.Alerts(ctx, "SM_GC_NO_SPACE", sr); n != 1 {
		s.T.Errorf("%d alerts of the repository, want one", n)
	}
	if n := life.Sound(ctx, s.API, host); n != 1 {
		s.T.Errorf("%d images were looked at", n)
	}
}
