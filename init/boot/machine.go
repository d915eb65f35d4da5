package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// sysMachine is the real machine.
type sysMachine struct {
	modules *sysModules
}

// CommandLine implements Machine.
func (sysMachine) CommandLine() (string, error) {
	text, err := os.ReadFile("/proc/cmdline")
	return string(text), err
}

// Uptime implements Machine.
func (sysMachine) Uptime() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return "unknown"
	}
	return seconds(time.Duration(now.Nano()))
}

// Where the boot loader interface keeps its variables.
const (
	efiDir      = "/sys/firmware/efi"
	efivarsDir  = efiDir + "/efivars"
	loaderGUID  = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	loaderEntry = "LoaderDevicePartUUID-" + loaderGUID
)

// LoaderPartition implements Machine. Whatever goes wrong here only means that
// the boot loader's disk is not known.
func (m sysMachine) LoaderPartition() (string, bool) {
	if _, err := os.Stat(efiDir); err != nil {
		return "", false
	}
	if err := m.modules.tree.LoadName("efivarfs"); err != nil {
		return "", false
	}
	if err := unix.Mount("efivarfs", efivarsDir, "efivarfs", quiet|unix.MS_RDONLY, ""); err != nil {
		return "", false
	}
	defer func() { _ = unix.Unmount(efivarsDir, unix.MNT_DETACH) }()
	value, err := os.ReadFile(filepath.Join(efivarsDir, loaderEntry))
	if err != nil {
		return "", false
	}
	return parseLoaderPartition(value)
}

// parseLoaderPartition decodes the variable: four bytes of attributes, then a
// GUID as UTF-16 text with a NUL.
func parseLoaderPartition(value []byte) (string, bool) {
	if len(value) < 4 || len(value) > 256 {
		return "", false
	}
	var units []uint16
	for b := value[4:]; len(b) >= 2; b = b[2:] {
		units = append(units, uint16(b[0])|uint16(b[1])<<8)
	}
	uuid := strings.ToLower(strings.TrimRight(string(utf16.Decode(units)), "\x00"))
	if len(uuid) != 36 || strings.Trim(uuid, "0123456789abcdef-") != "" {
		return "", false
	}
	return uuid, true
}

// Pause implements Machine.
func (sysMachine) Pause(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// Restart implements Machine.
func (sysMachine) Restart() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// Exec implements Machine.
func (sysMachine) Exec(path string, argv, env []string) error {
	return unix.Exec(path, argv, env)
}

// Shell implements Machine. The archive of the rescue image links its shell
// here; the image's own archive has none.
func (sysMachine) Shell() error {
	const shell = "/bin/defaultsh"
	if _, err := os.Stat(shell); err != nil {
		return err
	}
	tty, err := consoleTTY()
	if err != nil {
		return err
	}
	defer tty.Close()
	cmd := exec.Command(shell)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.Env = []string{"HOME=/", "TERM=linux", "PATH=/bbin:/bin:/usr/sbin:/usr/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	var status *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &status) {
		return fmt.Errorf("%s: %w", shell, err)
	}
	return nil
}

// consoleTTY opens the terminal behind /dev/console, which itself can never be
// a controlling terminal. The last one listed is where /dev/console reads.
func consoleTTY() (*os.File, error) {
	text, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		return nil, err
	}
	names := bytes.Fields(text)
	if len(names) == 0 {
		return nil, fmt.Errorf("console: %w", fs.ErrNotExist)
	}
	return os.OpenFile(filepath.Join("/dev", string(names[len(names)-1])), os.O_RDWR|unix.O_NOCTTY, 0)
}

// sysWatchdog is /dev/watchdog.
type sysWatchdog struct{}

// Open implements Watchdog. The descriptor has no close-on-exec flag, and it is
// not an os.File, which would close it when collected.
func (sysWatchdog) Open(timeout time.Duration) (int, time.Duration, error) {
	fd, err := unix.Open("/dev/watchdog", unix.O_WRONLY, 0)
	if err != nil {
		return -1, 0, fmt.Errorf("/dev/watchdog: %w", err)
	}
	// A driver with a fixed timeout refuses; then its own is in force.
	_ = unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, int(timeout/time.Second))
	inForce, err := unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return fd, 0, nil
	}
	return fd, time.Duration(inForce) * time.Second, nil
}

// Feed implements Watchdog.
func (sysWatchdog) Feed(fd int) {
	_ = unix.IoctlWatchdogKeepalive(fd)
}
