package storage

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Linux is the System of the running kernel.
type Linux struct {
	// LoadModule loads a kernel module; there is no modprobe for the kernel
	// to call by itself.
	LoadModule func(name string) error
}

// RootDevice implements System.
func (Linux) RootDevice() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		return "", fmt.Errorf("stat /: %w", err)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), nil
}

// Mounted implements System.
func (Linux) Mounted(target string) (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	return mountPoints(string(b))[target], nil
}

// Prepare implements System.
func (l Linux) Prepare(fstype string) error {
	if err := l.LoadModule(fstype); err != nil {
		return fmt.Errorf("file system %s: %w", fstype, err)
	}
	return nil
}

var mountFlags = map[Option]uintptr{
	NoAtime: unix.MS_NOATIME, NoSuid: unix.MS_NOSUID, NoDev: unix.MS_NODEV, NoExec: unix.MS_NOEXEC,
}

// Mount implements System.
func (Linux) Mount(source, target, fstype string, options []Option) error {
	var flags uintptr
	for _, o := range options {
		flags |= mountFlags[o]
	}
	data := ""
	if fstype == "tmpfs" {
		data = "mode=0755" // its own default lets everybody write
	}
	return unix.Mount(source, target, fstype, flags, data)
}

// Unmount ends a mount nobody uses; one in use is EBUSY.
func (Linux) Unmount(target string) error { return unix.Unmount(target, unix.UMOUNT_NOFOLLOW) }

// Bind implements System.
func (Linux) Bind(source, target string) error {
	return unix.Mount(source, target, "", unix.MS_BIND, "")
}

// MkdirAll implements System. The mode is not left to the umask, and not
// changed where the directory is there already.
func (Linux) MkdirAll(path string, mode fs.FileMode) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}
