// Command testguest is the whole user space of the guest that the hypervisor's
// conformance test boots: it greets, obeys or echoes lines of its serial console, and
// powers off when the power button is pressed.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cairn/image/guest/agent"
	"cairn/image/guest/qga"
)

func main() {
	must(os.MkdirAll("/dev", 0o755))
	_ = unix.Mount("devtmpfs", "/dev", "devtmpfs", 0, "") // the kernel may have done it
	for _, kind := range []string{"proc", "sysfs"} {
		at := map[string]string{"proc": "/proc", "sysfs": "/sys"}[kind]
		must(os.MkdirAll(at, 0o755))
		must(unix.Mount(kind, at, kind, 0, ""))
	}
	modules, err := filepath.Glob("/[0-9][0-9]-*.ko")
	must(err)
	for _, m := range modules {
		f, err := os.Open(m)
		must(err)
		must(unix.FinitModule(int(f.Fd()), "", 0))
	}
	tty, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0)
	must(err)
	fmt.Fprintf(tty, "testguest ready buttons=%d\r\n", obeyButtons())
	go qga.Run(qga.Machine{Console: tty, Off: func(string) { must(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)) }})
	in := bufio.NewScanner(tty)
	for in.Scan() {
		switch line := in.Text(); line {
		case "poweroff":
			must(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
		case "reboot":
			must(unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
		case "panic":
			os.Exit(1) // init's death is the kernel's panic
		default:
			if errors.Is(agent.Run(tty, line), agent.ErrUnknown) {
				fmt.Fprintf(tty, "echo %s\r\n", line)
			}
		}
	}
	select {}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
