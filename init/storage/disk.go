package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// BootDisk is the disk the root runs from, with the kernel names of its
// partitions by their GPT names.
type BootDisk struct {
	Name       string
	Partitions map[string]string
}

// ErrNoDisk says that the root is not on a disk: it was booted from memory.
var ErrNoDisk = errors.New("the root is not on a disk")

// maxStack bounds the walk down a stack of device-mapper devices.
const maxStack = 8

// RootDisk finds the disk below /, through device-mapper, by sysfs alone.
func RootDisk(sys System, sysfs string) (BootDisk, error) {
	num, err := sys.RootDevice()
	if err != nil {
		return BootDisk{}, fmt.Errorf("root device: %w", err)
	}
	dev, err := filepath.EvalSymlinks(filepath.Join(sysfs, "dev/block", num))
	if err != nil {
		return BootDisk{}, ErrNoDisk
	}
	for range maxStack {
		slaves, err := os.ReadDir(filepath.Join(dev, "slaves"))
		if err != nil || len(slaves) == 0 {
			return partitions(dev)
		}
		if dev, err = filepath.EvalSymlinks(filepath.Join(dev, "slaves", slaves[0].Name())); err != nil {
			return BootDisk{}, fmt.Errorf("root device %s: %w", num, err)
		}
	}
	return BootDisk{}, fmt.Errorf("root device %s: more than %d layers", num, maxStack)
}

// partitions reads the partitions of the disk that dev is one of.
func partitions(dev string) (BootDisk, error) {
	if _, err := os.Stat(filepath.Join(dev, "partition")); err != nil {
		return BootDisk{}, ErrNoDisk // a whole disk or a loop device
	}
	dir := filepath.Dir(dev)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return BootDisk{}, fmt.Errorf("disk %s: %w", filepath.Base(dir), err)
	}
	disk := BootDisk{Name: filepath.Base(dir), Partitions: map[string]string{}}
	for _, e := range entries {
		if name, ok := partName(filepath.Join(dir, e.Name(), "uevent")); ok {
			disk.Partitions[name] = e.Name()
		}
	}
	return disk, nil
}

func partName(uevent string) (string, bool) {
	b, err := os.ReadFile(uevent)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "PARTNAME="); ok {
			return name, true
		}
	}
	return "", false
}
