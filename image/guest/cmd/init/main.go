// Command init is the whole user space of Cairn's demo guest besides u-root's
// commands. It says that it is ready, then gives a sign of life each second on
// the serial console, and offers a shell there: Enter starts it and silences
// the heartbeat, `exit` brings the heartbeat back. The ACPI power button
// powers the guest off in order.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// drivers of the guest that the kernel does not have built in, in load order.
var drivers = []string{"button", "evdev", "virtio_console", "virtio_balloon", "virtio_rng", "virtio_net", "virtio_blk"}

func main() {
	err := run()
	fmt.Fprintln(os.Stderr, "cairn-demo-guest failed err=", err)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	if os.Getpid() != 1 {
		return errors.New("init of the demo guest runs as process 1 only")
	}
	if err := mounts(); err != nil {
		return err
	}
	console, err := openConsole()
	if err != nil {
		return err
	}
	for _, d := range drivers {
		if err := load(d); err != nil {
			fmt.Fprintf(console, "cairn-demo-guest driver-missing name=%s err=%q\n", d, err)
		}
	}
	off := make(chan string, 1)
	watchPower(off)
	fmt.Fprintf(console, "cairn-demo-guest ready kernel=%s cpu=%q\n", release(), cpu())
	keys := make(chan struct{})
	next := make(chan struct{})
	go readKeys(console, keys, next)
	return live(console, keys, next, off)
}

// live is the guest's life: heartbeats until a key, a shell until it ends.
func live(console *os.File, keys <-chan struct{}, next chan<- struct{}, off <-chan string) error {
	tick := time.NewTicker(time.Second)
	next <- struct{}{}
	for n := 1; ; {
		select {
		case <-tick.C:
			fmt.Fprintf(console, "cairn-demo-guest heartbeat n=%d\n", n)
			n++
		case <-keys:
			done := make(chan error, 1)
			go func() { done <- shell(console) }()
			select {
			case err := <-done:
				orphans()
				fmt.Fprintf(console, "cairn-demo-guest shell-ended status=%v\n", status(err))
			case why := <-off:
				return powerOff(console, why)
			}
			next <- struct{}{}
		case why := <-off:
			return powerOff(console, why)
		}
	}
}

func mounts() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	return nil
}

// load inserts a module and what it depends on, by the archive's modules.dep.
func load(name string) error {
	dir := "/lib/modules/" + release()
	dep, err := os.Open(dir + "/modules.dep")
	if err != nil {
		return err
	}
	defer dep.Close()
	for sc := bufio.NewScanner(dep); sc.Scan(); {
		file, needs, _ := strings.Cut(sc.Text(), ":")
		if strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_") != name {
			continue
		}
		all := strings.Fields(needs)
		for i := len(all) - 1; i >= 0; i-- {
			if err := insert(dir + "/" + all[i]); err != nil {
				return err
			}
		}
		return insert(dir + "/" + file)
	}
	return nil // built in, or not part of this archive
}

func insert(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return nil
}

// readKeys waits for one key per round; between rounds the shell reads.
func readKeys(console io.Reader, keys chan<- struct{}, next <-chan struct{}) {
	b := make([]byte, 64)
	for range next {
		if _, err := console.Read(b); err != nil {
			return
		}
		keys <- struct{}{}
	}
}

// shell runs u-root's gosh on the console as its controlling terminal.
func shell(console *os.File) error {
	fmt.Fprintln(console, "cairn-demo-guest shell: `exit` brings the heartbeat back")
	cmd := exec.Command("/bin/sh")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = console, console, console
	cmd.Env = []string{"PATH=/bbin:/bin", "HOME=/", "TERM=vt100", "USER=root"}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	return cmd.Run()
}

func status(err error) string {
	if err == nil {
		return "0"
	}
	return fmt.Sprintf("%q", err.Error())
}

// orphans collects what the shell left behind. It runs when there is no child
// left that exec.Cmd waits for, so it takes nobody's status away.
func orphans() {
	for {
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != nil || pid <= 0 {
			return
		}
	}
}

// openConsole opens the terminal behind /dev/console, which can be a controlling
// terminal.
func openConsole() (*os.File, error) {
	if data, err := os.ReadFile("/sys/class/tty/console/active"); err == nil {
		if names := strings.Fields(string(data)); len(names) > 0 {
			if f, err := os.OpenFile("/dev/"+names[len(names)-1], os.O_RDWR|unix.O_NOCTTY, 0); err == nil {
				return f, nil
			}
		}
	}
	return os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func cpu() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func powerOff(console io.Writer, why string) error {
	fmt.Fprintf(console, "cairn-demo-guest power-off reason=%s\n", why)
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
