// Package boot is stage 1: /init of the initramfs. It loads the drivers the
// hardware asks for, finds the root image by the hash on the command line,
// opens it through dm-verity, mounts it read-only and becomes its /sbin/init.
//
// Invariants:
//   - A disk is chosen by content, never by its kernel name. The partition
//     GUIDs are cut from the root hash, and verity proves every block.
//   - It never waits without bound and never polls: it sleeps on device events
//     until a deadline.
//   - Every failure, a panic included, is one line boot-failed and a restart.
//     A shell exists only in the rescue archive, and only for cairn.rescue=1.
//   - The hardware watchdog runs from before the first driver is tried, so a
//     hang anywhere in here is a restart too. Its descriptor goes to PID 1.
//
// A block that does not match the root hash makes the kernel log the block and
// restart at once (verity's restart_on_corruption): the reader never gets the
// bytes, and no program has to notice an I/O error for the host to leave a
// damaged image. Boot counting then picks the other slot.
//
// Stage 1 is one goroutine, which alone uses Deps; only Modules.Start works
// beside it.
package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"cairn/init/dm"
	"cairn/init/slots"
)

const (
	// rootWait bounds the search for the root. Slow HBAs need some 20 s.
	rootWait = 30 * time.Second
	// loaderWait is how long a copy on another disk waits for the disk the
	// boot loader came from.
	loaderWait = 5 * time.Second
	// failWait leaves the failure readable on the console.
	failWait = 5 * time.Second
	// watchdogTimeout covers rootWait and failWait with room to spare.
	watchdogTimeout = 60 * time.Second
)

const (
	newRoot  = "/sysroot"
	rootName = "cairn-root" // name of the verity mapping
	nextInit = "/sbin/init"
)

// WatchdogEnv names the inherited descriptor of the open watchdog for PID 1.
const WatchdogEnv = "CAIRN_WATCHDOG_FD"

// required are the modules without which no root can be opened; drivers are
// found by the hardware, these by name.
func required() []string { return []string{"dm_mod", "dm_verity", "erofs"} }

// Run is stage 1 on the given machine. It returns only when it failed.
func Run(ctx context.Context, d Deps) error {
	if err := mountBase(d); err != nil {
		return err
	}
	d.Log.Info("stage1-start", "uptime", d.Machine.Uptime())
	opts, err := options(d)
	if err != nil {
		return err
	}
	if opts.rescue {
		return rescue(d)
	}
	core := d.Modules.Start(required())
	dog := openWatchdog(d)
	root, err := openRoot(ctx, d, opts, core)
	if err != nil {
		return err
	}
	return switchRoot(d, root, dog)
}

// Fail reports err and restarts the machine.
func Fail(d Deps, err error) {
	d.Log.Error("boot-failed", "err", err)
	d.Machine.Pause(failWait)
	d.Machine.Restart()
}

// mount is one line of a mount table.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// base are the kernel's own file systems; all of them move to the new root.
func base() []mount {
	return []mount{
		{"proc", "/proc", "proc", quiet, ""},
		{"sysfs", "/sys", "sysfs", quiet, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	}
}

func mountBase(d Deps) error {
	for _, m := range base() {
		if err := d.Mounts.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

func options(d Deps) (cmdline, error) {
	text, err := d.Machine.CommandLine()
	if err != nil {
		return cmdline{}, fmt.Errorf("command line: %w", err)
	}
	return parseCommandLine(text)
}

// openWatchdog starts the hardware watchdog if one is there. A machine without
// one boots all the same.
func openWatchdog(d Deps) int {
	for _, err := range d.Modules.LoadWatchdogs() {
		d.Log.Warn("module-failed", "err", err)
	}
	fd, timeout, err := d.Watchdog.Open(watchdogTimeout)
	if err != nil {
		d.Log.Warn("watchdog-missing", "err", err)
		return -1
	}
	d.Log.Info("watchdog-open", "timeout", timeout)
	return fd
}

// openRoot leaves the verified root mounted at newRoot; core waits for the
// required modules.
func openRoot(ctx context.Context, d Deps, opts cmdline, core func() error) (candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, rootWait)
	defer cancel()
	root, err := find(ctx, d, opts.rootHash)
	if err != nil {
		return candidate{}, err
	}
	d.Log.Info("root-found", "dev", root.root.Node, "slot", root.slot, "disk", root.disk.GUID)
	if err := core(); err != nil {
		return candidate{}, err
	}
	node, err := openVerity(d, root, opts.rootHash)
	if err != nil {
		return candidate{}, fmt.Errorf("slot %s: %w", root.slot, err)
	}
	d.Log.Info("verity-open", "dev", node, "hash", opts.rootHash)
	if err := d.Mounts.Mount(node, newRoot, "erofs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return candidate{}, fmt.Errorf("slot %s: mount %s: %w", root.slot, node, err)
	}
	d.Log.Info("root-mounted", "dev", node)
	return root, nil
}

// openVerity opens the slot through dm-verity and returns the device's node.
func openVerity(d Deps, root candidate, rootHash string) (string, error) {
	head, err := d.Disks.Superblock(root.hash)
	if err != nil {
		return "", err
	}
	block, err := dm.ParseSuperblock(head)
	if err != nil {
		return "", err
	}
	if err := block.Check(root.root.Size, root.hash.Size); err != nil {
		return "", err
	}
	table := []dm.Target{block.Target(root.root.Dev, root.hash.Dev, rootHash, dm.RestartOnCorruption)}
	dev, err := d.Mapper.Activate(rootName, block.MapUUID(rootName), true, table)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/dev/dm-%d", dev.Minor()), nil
}

// switchRoot moves into the mounted root and becomes its init.
func switchRoot(d Deps, root candidate, dog int) error {
	for _, m := range base() {
		if err := d.Mounts.Move(m.target, newRoot+m.target); err != nil {
			return fmt.Errorf("move %s: %w", m.target, err)
		}
	}
	env := []string{"HOME=/", "TERM=linux", "PATH=/usr/sbin:/usr/bin"}
	if dog >= 0 {
		d.Watchdog.Feed(dog)
		env = append(env, fmt.Sprintf("%s=%d", WatchdogEnv, dog))
	}
	d.Log.Info("switch-root", "slot", root.slot, "uptime", d.Machine.Uptime())
	if err := d.Mounts.SwitchRoot(newRoot); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if err := d.Machine.Exec(nextInit, []string{nextInit}, env); err != nil {
		return fmt.Errorf("start %s: %w", nextInit, err)
	}
	return errors.New(nextInit + " was not started")
}

// rescue gives the console to the shell of the rescue archive. The watchdog
// stays closed: a person is slower than a minute.
func rescue(d Deps) error {
	for _, modalias := range d.Modules.Present() {
		loadDriver(d, modalias)
	}
	d.Log.Warn("rescue-start", "uptime", d.Machine.Uptime())
	if err := d.Machine.Shell(); err != nil {
		return fmt.Errorf("rescue: %w", err)
	}
	d.Log.Warn("rescue-end")
	d.Machine.Restart()
	return errors.New("rescue: ended")
}

// Deps are all the ways stage 1 touches the machine.
type Deps struct {
	Log      *slog.Logger
	Machine  Machine
	Mounts   Mounts
	Modules  Modules
	Events   Events
	Disks    Disks
	Mapper   Mapper
	Watchdog Watchdog
}

// Machine is the machine and this process on it.
type Machine interface {
	CommandLine() (string, error)
	Uptime() string // seconds since the kernel started
	LoaderPartition() (uuid string, ok bool)
	Pause(time.Duration)
	Restart()
	Exec(path string, argv, env []string) error
	Shell() error
}

// Mounts changes the mount tree.
type Mounts interface {
	// Mount makes the target directory if need be.
	Mount(source, target, fstype string, flags uintptr, data string) error
	Move(from, to string) error
	// SwitchRoot makes dir the root and frees what the old one held.
	SwitchRoot(dir string) error
}

// Modules loads drivers.
type Modules interface {
	// Present lists the modaliases of the devices there are, those first behind
	// which a root is likely.
	Present() []string
	// LoadAlias loads what claims a device and tells whether that was new; a
	// failing driver is an error that does not keep the others from being tried.
	LoadAlias(modalias string) (loaded bool, errs []error)
	// Start loads modules by name while the caller goes on, and returns what
	// waits for the end of it.
	Start(names []string) (wait func() error)
	// LoadWatchdogs loads the drivers of the watchdogs that are present.
	LoadWatchdogs() []error
}

// Events announces changes of devices.
type Events interface {
	// Next waits for a change. An empty modalias means: look at the disks;
	// errLost means: look at everything.
	Next(ctx context.Context) (modalias string, err error)
}

// Disks looks at partitioned disks.
type Disks interface {
	// Scan lists the disks that have partitions named like a slot's; a disk
	// that cannot be read is an error beside the others.
	Scan() ([]Disk, []error)
	// Superblock reads the head of a hash partition.
	Superblock(p Partition) ([]byte, error)
}

// Mapper makes device mapper devices.
type Mapper interface {
	Activate(name, uuid string, readOnly bool, table []dm.Target) (dm.Device, error)
}

// Watchdog is the hardware watchdog.
type Watchdog interface {
	// Open returns a descriptor that survives exec, and the timeout in force.
	Open(timeout time.Duration) (fd int, inForce time.Duration, err error)
	Feed(fd int)
}

// Disk is a disk with a GUID partition table.
type Disk struct {
	Name       string // the kernel's, for messages only
	GUID       string
	Partitions []Partition
}

// Partition is a partition the kernel knows too.
type Partition struct {
	slots.Partition
	Dev  string // major:minor
	Node string // path below /dev
	Size uint64 // bytes
}
