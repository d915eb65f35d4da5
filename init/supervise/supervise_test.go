package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBootRestartShutdown(t *testing.T) {
	t.Parallel()
	c := startChild(t, "basic")
	first := c.pid(`main pid=(\d+) role=plain`)
	c.ready()
	for _, want := range []string{
		"waiting service=second for=first", "service-ready name=socket", "service-ready name=once", "service-ready name=probed",
	} {
		if !c.has(want) {
			t.Errorf("%q was not said", want)
		}
	}
	c.signal(first, unix.SIGKILL)
	c.wait(`service-exit name=first status="killed by SIGKILL"`)
	c.wait("service-restart name=first in=200ms")
	c.wait("service-ready name=first")
	c.end(unix.SIGUSR2, "poweroff")
	c.inOrder("service-stop name=second", "service-exit name=second", "service-stop name=first", "service-exit name=first", "test-unmount", "shutdown-done", "watchdog: close disarm=true")
	log, err := os.ReadFile(filepath.Join(c.dir, "first.log"))
	if err != nil || strings.Count(string(log), "main pid") != 2 || !strings.Contains(string(log), "terminated") {
		t.Errorf("first.log has %q, %v", log, err)
	}
}

// inOrder checks that lines with these texts were read in this order.
func (c *child) inOrder(texts ...string) {
	c.t.Helper()
	at := 0
	for _, text := range texts {
		for at < len(c.seen) && !strings.Contains(c.seen[at], text) {
			at++
		}
		if at == len(c.seen) {
			c.t.Errorf("%q is missing or too early", text)
			return
		}
	}
}

// A connection that arrives while the service is dead is served by the next
// one, and LISTEN_PID is right each time.
func TestSocketsOutliveTheService(t *testing.T) {
	t.Parallel()
	c := startChild(t, "sockets")
	before := c.pid(`main pid=(\d+) role=web`)
	c.wait("serving name=tcp")
	c.ready()
	path := filepath.Join(c.dir, "web.sock")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if got, err := get(path); err != nil || got != strconv.Itoa(before) {
		t.Errorf("got %q, %v; want %d", got, err, before)
	}
	c.signal(before, unix.SIGKILL)
	c.wait("service-exit name=web")
	got, err := get(path) // waits in the backlog
	after := c.pid(`main pid=(\d+) role=web`)
	if err != nil || got != strconv.Itoa(after) || after == before {
		t.Errorf("got %q, %v; want %d", got, err, after)
	}
	c.wait("service-ready name=web")
	c.end(unix.SIGTERM, "reboot")
	if c.has("disarm=true") {
		t.Error("a reboot disarmed the watchdog")
	}
}

func TestServiceWatchdog(t *testing.T) {
	t.Parallel()
	c := startChild(t, "watchdog")
	c.wait("service-watchdog name=hangs")
	c.wait(`service-exit name=hangs status="(killed by SIGABRT|exit 2)"`)
	c.wait("service-start name=hangs") // of the first run
	c.wait("service-start name=hangs")
	c.end(unix.SIGUSR1, "halt")
	if c.has("service-watchdog name=pings") {
		t.Error("a service that pings was taken for hung")
	}
	if !c.has("watchdog every=5s") {
		t.Error("WATCHDOG_USEC did not arrive")
	}
}

func TestBurstReboots(t *testing.T) {
	t.Parallel()
	c := startChild(t, "burst")
	c.wait("burst name=broken failures=5")
	c.wait("shutdown-start kind=reboot")
	c.wait("terminated role=plain")
	c.wait("shutdown-done kind=reboot")
}

// kill -9 of a manager leaves its guest alone; the end of the host does not.
// The guest, an orphan by then, is reaped.
func TestGuestOutlivesItsManager(t *testing.T) {
	t.Parallel()
	c := startChild(t, "family")
	manager := c.pid(`main pid=(\d+) role=manager`)
	guest := c.pid(`guest pid=(\d+)`)
	c.ready()
	c.signal(manager, unix.SIGKILL)
	c.wait("service-exit name=manager")
	c.wait("service-ready name=manager")
	if err := unix.Kill(guest, 0); err != nil {
		t.Fatalf("the guest: %v", err)
	}
	c.end(unix.SIGINT, "reboot")
	c.inOrder("terminated role=manager", "test-signal signal=SIGTERM", "terminated role=guest", "test-unmount")
	if err := unix.Kill(guest, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the guest was not reaped: %v", err)
	}
}

func TestNotifySenderIsChecked(t *testing.T) {
	t.Parallel()
	c := startChild(t, "impostor")
	c.wait("barrier-passed")
	notifyFromOutside(t, filepath.Join(c.dir, "notify"))
	c.wait("notify-refused pid=" + strconv.Itoa(os.Getpid()))
	c.end(unix.SIGTERM, "reboot")
	if c.has("service-ready name=victim") {
		t.Error("a stranger made a service ready")
	}
}

func notifyFromOutside(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, []byte("READY=1"), 0, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
}
