package supervise

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cairn/init/supervise/catalogue"
	"cairn/init/supervise/engine"
	"cairn/journal"
)

func TestRequest(t *testing.T) {
	for sig, want := range map[syscall.Signal]engine.Kind{
		unix.SIGTERM: engine.Reboot, unix.SIGINT: engine.Reboot, unix.SIGUSR1: engine.Halt, unix.SIGUSR2: engine.PowerOff,
	} {
		if got := request(sig); got.Kind != want {
			t.Errorf("%v asks for %s, want %s", sig, got.Kind, want)
		}
	}
}

// Whoever is not process 1 must not be able to signal the whole machine.
func TestSignalAllIsForProcessOne(t *testing.T) {
	if err := (linux{}).SignalAll(0); err == nil {
		t.Error("another process may signal everybody")
	}
	if err := Main(t.Context()); err == nil {
		t.Error("another process may be PID 1")
	}
}

func TestOneSocketForBothFamilies(t *testing.T) {
	fd, err := openTCP(netip.MustParseAddrPort("[::]:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if v6only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err != nil || v6only != 0 {
		t.Errorf("v6only %d, %v", v6only, err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("other services would inherit the socket: flags %d, %v", flags, err)
	}
}

func TestSocketThatCannotBeOpened(t *testing.T) {
	for _, l := range []catalogue.Listen{
		{Name: "a", Network: "tcp", Address: "not an address"},
		{Name: "a", Network: "unix", Address: filepath.Join(t.TempDir(), "missing", "sock")},
		{Name: "a", Network: "unix", Address: filepath.Join(t.TempDir(), "sock"), Owner: catalogue.Owner{User: "nobody-here"}},
	} {
		if _, err := open(l, here()); err == nil {
			t.Errorf("%+v was opened", l)
		}
	}
}

func TestMakeDirs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	want := []catalogue.Dir{{Path: dir, Mode: 0o750}}
	for range 2 { // a restart finds it there
		if err := makeDirs(want, here()); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("got %v, %v", info, err)
	}
	want[0].Owner.User = "nobody-here"
	if err := makeDirs(want, here()); err == nil || !strings.Contains(err.Error(), "nobody-here") {
		t.Errorf("an unknown owner: %v", err)
	}
}

func TestCopyTree(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "libvirt"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "libvirt/qemu.conf"), []byte("x = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("libvirt/qemu.conf", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(from, to); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(to, "link"))
	if err != nil || string(got) != "x = 1\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(to, "libvirt/qemu.conf")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	if err := copyTree(filepath.Join(from, "missing"), to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing skeleton: %v", err)
	}
}

func TestInheritedWatchdog(t *testing.T) {
	for _, value := range []string{"", "x", "-1", "2", "1000000"} {
		t.Setenv(WatchdogEnv, value)
		if fd := inheritedWatchdog(); fd != -1 {
			t.Errorf("%q gives %d", value, fd)
		}
	}
}

// A panic costs what was being done, and nothing else.
func TestGuard(t *testing.T) {
	var log strings.Builder
	s := &Supervisor{Config: Config{Log: journal.New(&log, "supervise")}}
	s.guard("a test", func() { panic("oops") })
	if !strings.Contains(log.String(), `ERROR supervise panic in="a test" value=oops`) {
		t.Errorf("logged %q", log.String())
	}
}
