package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// sysMounts changes the real mount tree.
type sysMounts struct{}

// Mount implements Mounts.
func (sysMounts) Mount(source, target, fstype string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	return unix.Mount(source, target, fstype, flags, data)
}

// Move implements Mounts.
func (sysMounts) Move(from, to string) error {
	return unix.Mount(from, to, "", unix.MS_MOVE, "")
}

// SwitchRoot implements Mounts. The old root cannot be unmounted, it is the
// kernel's first; its files are deleted so that their memory is free again.
func (sysMounts) SwitchRoot(dir string) error {
	old, err := os.OpenRoot("/")
	if err != nil {
		return err
	}
	defer old.Close()
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to /: %w", dir, err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return empty(old)
}

// empty deletes all files of a root file system in memory. Nothing is mounted
// below it any more, but should something be, it is left alone: a directory on
// another device is not entered.
func empty(root *os.Root) error {
	top, err := root.Stat(".")
	if err != nil {
		return err
	}
	var dirs []string
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case !e.IsDir():
			return root.Remove(name)
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !sameDevice(top, info) {
			return fs.SkipDir
		}
		dirs = append(dirs, name)
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		// A mount point stays busy; that is no reason to stop.
		if rm := root.Remove(dirs[i]); rm != nil && !errors.Is(rm, unix.EBUSY) {
			err = errors.Join(err, rm)
		}
	}
	return err
}
