package boot

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"cairn/init/boot/uevent"
	"cairn/init/dm"
	"cairn/journal"
)

// Main is stage 1 on the real machine. It never returns on success, and on
// failure it restarts the machine; it returns only where it may not do that.
func Main(ctx context.Context) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("stage 1 is process 1 of the initramfs, not %d", os.Getpid())
	}
	d := Deps{
		Log:      journal.New(os.Stderr, "boot"),
		Mounts:   sysMounts{},
		Disks:    sysDisks{sys: "/sys", dev: "/dev"},
		Watchdog: sysWatchdog{},
		Mapper:   sysMapper{},
		Machine:  sysMachine{},
	}
	err := guarded(ctx, d)
	Fail(d, err)
	return err
}

// guarded turns a panic into a failure like any other.
func guarded(ctx context.Context, d Deps) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	mods, err := openModules()
	if err != nil {
		return err
	}
	socket, err := uevent.Open()
	if err != nil {
		return err
	}
	d.Modules, d.Events = mods, sysEvents{socket}
	d.Machine = sysMachine{modules: mods}
	return Run(ctx, d)
}

// sysMapper opens the device mapper when it is needed: its node appears with
// its module.
type sysMapper struct{}

// Activate implements Mapper.
func (sysMapper) Activate(name, uuid string, readOnly bool, table []dm.Target) (dm.Device, error) {
	c, err := dm.Open()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.Activate(name, uuid, readOnly, table)
}

// sameDevice tells whether two files lie in the same file system.
func sameDevice(a, b os.FileInfo) bool {
	x, okX := a.Sys().(*syscall.Stat_t)
	y, okY := b.Sys().(*syscall.Stat_t)
	return okX && okY && x.Dev == y.Dev
}
