package hostd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cairn/init/config"
)

// mediaModules are what mounting each file system takes: vfat translates names
// by two tables that are modules of their own.
var mediaModules = map[config.FSType][]string{
	config.VFAT:    {"vfat", "nls_cp437", "nls_ascii"},
	config.ISO9660: {"isofs"},
}

// Media implements System: it reads the labels of the devices that somebody at
// the machine can change, and mounts only the one that has the right one.
func (l *linux) Media() ([]byte, bool, error) {
	entries, err := os.ReadDir(filepath.Join(l.paths.Sys, "class/block"))
	if err != nil {
		return nil, false, fmt.Errorf("block devices: %w", err)
	}
	for _, e := range entries {
		if !atHand(l.paths.Sys, e.Name()) {
			continue
		}
		dev := filepath.Join("/dev", e.Name())
		fstype, ok := mediaType(dev)
		if !ok {
			continue
		}
		text, err := l.readMedia(dev, fstype)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return text, err == nil, err
	}
	return nil, false, nil
}

// atHand reports whether a block device is a medium that somebody put into the
// machine: an optical disc, a memory card, anything removable or on USB, or the
// virtual disk of a host that is itself a virtual machine. Other disks may belong
// to guests, and a document on one of them would hand the host to its guest.
func atHand(sysfs, name string) bool {
	dev, err := filepath.EvalSymlinks(filepath.Join(sysfs, "class/block", name))
	if err != nil {
		return false
	}
	for _, p := range []string{"sr", "mmcblk", "vd"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	if strings.Contains(dev, "/usb") {
		return true
	}
	for _, dir := range []string{dev, filepath.Dir(dev)} { // of a partition, the disk says it
		if b, err := os.ReadFile(filepath.Join(dir, "removable")); err == nil {
			return strings.TrimSpace(string(b)) == "1"
		}
	}
	return false
}

// mediaType is the file system of a device with the right label. A drive
// without a medium does not open, which is as good as another label.
func mediaType(dev string) (config.FSType, bool) {
	f, err := os.OpenFile(dev, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	fstype, label, err := config.ReadLabel(f)
	return fstype, err == nil && label == config.MediaLabel
}

func (l *linux) readMedia(dev string, fstype config.FSType) (text []byte, err error) {
	for _, m := range mediaModules[fstype] {
		// One that is built in is not found as a module; the mount will tell.
		err = errors.Join(err, l.LoadModule(m))
	}
	at := filepath.Join(l.paths.Run, "media")
	if merr := os.MkdirAll(at, 0o700); merr != nil {
		return nil, merr
	}
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if merr := unix.Mount(dev, at, string(fstype), flags, ""); merr != nil {
		return nil, fmt.Errorf("mount %s: %w", dev, errors.Join(merr, err))
	}
	defer func() {
		if uerr := unix.Unmount(at, unix.MNT_DETACH); uerr != nil {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", dev, uerr))
		}
	}()
	f, err := os.Open(filepath.Join(at, config.MediaFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dev, err)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBody))
}
