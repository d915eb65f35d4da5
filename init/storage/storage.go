// Package storage gives a host its durable directories: it finds the disk the
// root runs from, mounts STATE and LOGS from it, and binds what the daemons
// write to.
//
// A host without them must stay reachable: whatever goes wrong, Mount leaves
// writable directories behind and says in its Outcome what lies under them.
// Only the kernel replays a journal; nothing here formats or repairs.
//
// Mount is idempotent, so a restart of hostd finds its work done. It is called
// once at start, by one goroutine. All contact with the system goes through
// System.
package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Kind is what lies under a directory that should be durable.
type Kind string

// The kinds.
const (
	Disk   Kind = "disk"
	Tmpfs  Kind = "tmpfs"  // there is no such partition
	Failed Kind = "failed" // there is one, but it did not mount
)

// Outcome is what became of STATE or LOGS.
type Outcome struct {
	Kind   Kind
	Device string // for Disk and Failed
	Err    error  // for Failed, and for Tmpfs where a reason is known
}

// Mounts are the outcomes of one run.
type Mounts struct {
	State, Logs Outcome
	// BootDisk is the kernel name of the disk the root is on, or empty.
	BootDisk string
	// Err holds binds and directories that could not be made.
	Err error
}

// Option is a mount option.
type Option string

// The options in use.
const (
	NoAtime Option = "noatime"
	NoSuid  Option = "nosuid"
	NoDev   Option = "nodev"
	NoExec  Option = "noexec"
)

// System is the operating system as this package uses it.
type System interface {
	// RootDevice is the number of the device / is mounted from, as "254:0".
	RootDevice() (string, error)
	// Mounted tells what is mounted at target, as its source; "" for nothing.
	Mounted(target string) (string, error)
	// Prepare makes a file system usable, as by loading its module.
	Prepare(fstype string) error
	Mount(source, target, fstype string, options []Option) error
	Bind(source, target string) error
	// MkdirAll makes a directory with this mode and owner, and its parents.
	MkdirAll(path string, mode fs.FileMode) error
}

// Where the partitions are mounted.
const (
	StateDir = "/state"
	LogsDir  = "/logs"
)

// Names of the partitions in the GPT.
const (
	statePart = "STATE"
	logsPart  = "LOGS"
)

// dir is a directory on STATE or LOGS and where it is bound to, if anywhere.
type dir struct {
	path string
	mode fs.FileMode
	bind string
}

// dirs lists what Cairn keeps. The daemons' own directories below are made by
// them or by PID 1, with their owners.
var dirs = []dir{
	{"/state/config", 0o700, ""},
	{"/state/libvirt", 0o755, "/var/lib/libvirt"},
	{"/state/cairn", 0o755, "/var/lib/cairn"},
	{"/state/cache/libvirt", 0o755, "/var/cache/libvirt"},
	{"/state/chrony", 0o755, "/var/lib/chrony"},
	{"/state/sr", 0o755, ""},
	{"/state/iso", 0o755, ""},
	{"/logs", 0o755, "/var/log"},
}

// Mount brings up STATE, LOGS and the binds. sysfs is normally /sys.
func Mount(sys System, sysfs string) Mounts {
	var m Mounts
	disk, err := RootDisk(sys, sysfs)
	m.BootDisk = disk.Name
	m.State = mountOne(sys, disk, err, statePart, StateDir, []Option{NoAtime, NoDev})
	m.Logs = mountOne(sys, disk, err, logsPart, LogsDir, []Option{NoAtime, NoSuid, NoDev, NoExec})
	for _, d := range dirs {
		m.Err = errors.Join(m.Err, provide(sys, d))
	}
	return m
}

func mountOne(sys System, disk BootDisk, diskErr error, part, target string, options []Option) Outcome {
	if diskErr != nil {
		return standIn(sys, target, Outcome{Kind: Tmpfs, Err: diskErr})
	}
	dev, ok := disk.Partitions[part]
	if !ok {
		return standIn(sys, target, Outcome{Kind: Tmpfs, Err: fmt.Errorf("disk %s has no partition %s", disk.Name, part)})
	}
	dev = filepath.Join("/dev", dev)
	switch source, err := sys.Mounted(target); {
	case err == nil && source == dev:
		return Outcome{Kind: Disk, Device: dev}
	case err == nil && source != "":
		return Outcome{Kind: Failed, Device: dev, Err: errors.New("it did not mount at an earlier start")}
	}
	err := sys.Prepare("ext4")
	if merr := sys.Mount(dev, target, "ext4", options); merr != nil {
		err = errors.Join(fmt.Errorf("mount %s at %s: %w", dev, target, merr), err)
		return standIn(sys, target, Outcome{Kind: Failed, Device: dev, Err: err})
	}
	return Outcome{Kind: Disk, Device: dev}
}

// standIn puts a tmpfs where a partition should be.
func standIn(sys System, target string, o Outcome) Outcome {
	if source, err := sys.Mounted(target); err == nil && source != "" {
		return o
	}
	if err := sys.Mount("tmpfs", target, "tmpfs", []Option{NoSuid, NoDev}); err != nil {
		o.Kind, o.Err = Failed, errors.Join(o.Err, fmt.Errorf("mount a tmpfs at %s: %w", target, err))
	}
	return o
}

func provide(sys System, d dir) error {
	if err := sys.MkdirAll(d.path, d.mode); err != nil {
		return err
	}
	if d.bind == "" {
		return nil
	}
	if source, err := sys.Mounted(d.bind); err != nil || source != "" {
		return err
	}
	if err := sys.MkdirAll(d.bind, d.mode); err != nil {
		return err
	}
	if err := sys.Bind(d.path, d.bind); err != nil {
		return fmt.Errorf("bind %s to %s: %w", d.path, d.bind, err)
	}
	return nil
}
