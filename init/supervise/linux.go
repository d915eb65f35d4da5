package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cairn/init/supervise/engine"
	"cairn/init/supervise/mountinfo"
)

// linux is the real machine. Every part that fails is logged and passed over.
type linux struct{}

const (
	nodev  = unix.MS_NOSUID | unix.MS_NODEV
	noexec = nodev | unix.MS_NOEXEC
)

// mounts are all that stage 1 or this process makes, each after its parent.
// The first four are stage 1's; they are here for a boot without it.
var mounts = []struct {
	source, path, fstype string
	flags                uintptr
	data                 string
}{
	{"proc", "/proc", "proc", noexec, ""},
	{"sysfs", "/sys", "sysfs", noexec, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	{"tmpfs", "/run", "tmpfs", nodev, "mode=0755"},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
	{"tmpfs", "/dev/shm", "tmpfs", nodev, "mode=1777"},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", noexec, "nsdelegate,memory_recursiveprot"},
	{"tmpfs", "/tmp", "tmpfs", nodev, "mode=1777"},
	{"tmpfs", "/var", "tmpfs", nodev, "mode=0755"},
	{"tmpfs", "/etc", "tmpfs", nodev, "mode=0755"},
}

// links are made where the kernel or old programs expect them.
var links = map[string]string{
	"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
	"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	"/var/run": "../run", "/var/lock": "../run/lock", "/etc/mtab": "../proc/self/mounts",
}

var dirs = map[string]fs.FileMode{
	"/run/lock": 0o755, "/run/cairn": 0o755, "/run/libvirt": 0o755, "/var/lib": 0o755, "/var/cache": 0o755,
	"/var/tmp": 0o777 | fs.ModeSticky,
}

// sysctls that every host wants. What belongs to the network is hostd's.
var sysctls = map[string]string{
	"kernel/panic":           "10",
	"kernel/panic_on_oops":   "1",
	"kernel/sysrq":           "0",
	"kernel/kptr_restrict":   "1",
	"kernel/dmesg_restrict":  "1",
	"kernel/core_pattern":    "",
	"fs/protected_symlinks":  "1",
	"fs/protected_hardlinks": "1",
	"fs/protected_fifos":     "1",
	"fs/protected_regular":   "2",
	"fs/aio-max-nr":          "1048576", // QEMU's native AIO
	"net/core/somaxconn":     "4096",
}

const etcSkeleton = "/usr/share/cairn/etc"

// prepare makes the tree that services expect.
func (linux) prepare(log *slog.Logger) {
	failed := func(what string, err error) {
		if err != nil {
			log.Error("setup-failed", "what", what, "err", err)
		}
	}
	unix.Umask(0o022)
	failed("mounts", mountAll())
	failed("etc", copyTree(etcSkeleton, "/etc"))
	for path, target := range links {
		if err := os.Symlink(target, path); err != nil && !errors.Is(err, fs.ErrExist) {
			failed("links", err)
		}
	}
	for path, mode := range dirs {
		failed("directories", errors.Join(os.MkdirAll(path, mode.Perm()), os.Chmod(path, mode)))
	}
	for name, value := range sysctls {
		failed("sysctl", os.WriteFile(filepath.Join("/proc/sys", name), []byte(value+"\n"), 0))
	}
	failed("reserve", lowerReserve("/proc"))
	// Ctrl-Alt-Del becomes SIGINT, and so an orderly reboot.
	failed("ctrl-alt-del", unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF))
}

// mountAll mounts what is not yet. Mounts made later by hostd must reach the
// private name spaces of guests, so the tree is shared.
func mountAll() error {
	var errs []error
	for _, m := range mounts {
		if mounted(m.path) {
			continue
		}
		if err := os.MkdirAll(m.path, 0o755); err != nil {
			errs = append(errs, err)
		}
		if err := unix.Mount(m.source, m.path, m.fstype, m.flags, m.data); err != nil {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.path, err))
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		errs = append(errs, fmt.Errorf("share /: %w", err))
	}
	return errors.Join(errs...)
}

// mounted asks whether a mount begins at path. Before /proc is there, nothing
// is.
func mounted(path string) bool {
	return slices.ContainsFunc(readMounts(), func(m mountinfo.Mount) bool { return m.Path == path })
}

func readMounts() []mountinfo.Mount {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return mountinfo.Parse(data)
}

// copyTree copies a skeleton with its modes and links, all owned by root.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || rel == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return copyEntry(path, filepath.Join(to, rel), info.Mode())
	})
}

func copyEntry(from, to string, mode fs.FileMode) error {
	switch mode.Type() {
	case fs.ModeDir:
		return os.MkdirAll(to, mode.Perm())
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case 0:
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, mode.Perm())
	}
	return fmt.Errorf("%s: neither file, directory nor link", from)
}

// SignalAll implements System. It is for process 1 alone: anybody else would
// signal the whole machine.
func (linux) SignalAll(sig syscall.Signal) error {
	if os.Getpid() != 1 {
		return errors.New("not process 1")
	}
	if err := unix.Kill(-1, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// unmountPasses bounds the passes over the mounts: each pass may free what the
// next one needs.
const unmountPasses = 5

// Unmount implements System.
func (linux) Unmount(log *slog.Logger) {
	unix.Sync()
	for range unmountPasses {
		if done, left := unmountOnce(log); left == 0 || done == 0 {
			break
		}
	}
	for _, m := range stored() {
		err := unix.Mount("", m.Path, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		log.Warn("unmount-failed", "path", m.Path, "type", m.Type, "read-only", err == nil)
	}
	unix.Sync()
}

// stored lists what has to be unmounted, the newest first.
func stored() []mountinfo.Mount {
	all := slices.DeleteFunc(readMounts(), func(m mountinfo.Mount) bool { return m.Path == "/" || !m.Stored() })
	slices.Reverse(all)
	return all
}

func unmountOnce(log *slog.Logger) (done, left int) {
	for _, m := range stored() {
		if err := unix.Unmount(m.Path, unix.UMOUNT_NOFOLLOW); err != nil {
			left++
			continue
		}
		done++
		log.Info("unmounted", "path", m.Path, "type", m.Type)
	}
	return done, left
}

// Down implements System.
func (linux) Down(kind engine.Kind) error {
	command := map[engine.Kind]int{
		engine.PowerOff: unix.LINUX_REBOOT_CMD_POWER_OFF,
		engine.Halt:     unix.LINUX_REBOOT_CMD_HALT,
		engine.Reboot:   unix.LINUX_REBOOT_CMD_RESTART,
	}[kind]
	return fmt.Errorf("reboot: %w", unix.Reboot(command))
}

// labCommandLine is the kernel's command line where options of the lab count,
// else empty; see the package comment.
func labCommandLine() string {
	if _, err := os.Stat("/sys/firmware/efi"); !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	data, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ""
	}
	return string(data)
}

// parseHang finds the option in a kernel command line. Anything but a number of
// seconds up to a day is no option.
func parseHang(cmdline string) time.Duration {
	for word := range strings.FieldsSeq(cmdline) {
		value, ok := strings.CutPrefix(word, "cairn.test.hang-pid1=")
		if n, err := strconv.ParseUint(value, 10, 32); ok && err == nil && n <= 86400 {
			return time.Duration(n) * time.Second
		}
	}
	return 0
}
