// Command init is the whole user space of Cairn's demo guest besides u-root's
// commands. It says that it is ready, then gives a sign of life each second on
// the serial console, and offers a shell there: Enter starts it and silences
// the heartbeat, `exit` brings the heartbeat back. A line that is a command of
// package agent is obeyed instead. The ACPI power button powers the guest off in
// order, and so does a host that asks the guest's agent.
package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cairn/image/guest/qga"
)

// Drivers that the kernel does not have built in, in load order. Only those of
// the power button come before the greeting: a guest that is ready can also be
// powered off, and nobody waits for the others.
var (
	buttonDrivers = []string{"button", "evdev"}
	otherDrivers  = []string{
		"virtio_console", "virtio_balloon", "virtio_rng", "virtio_net", "e1000e", "virtio_blk", "virtio_scsi", "sd_mod",
		"ahci", "sr_mod", "isofs",
	}
)

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
	loadAll(console, buttonDrivers)
	off := make(chan string, 1)
	watchPower(off)
	fmt.Fprintf(console, "cairn-demo-guest ready kernel=%s cpu=%q\n", release(), cpu())
	go loadAll(console, otherDrivers)
	go qga.Run(qga.Machine{Console: console, Off: func(why string) { offer(off, why) }})
	lines := make(chan string)
	next := make(chan struct{})
	go readLines(console, lines, next)
	return live(console, lines, next, off)
}
