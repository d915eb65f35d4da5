// Command dev is `make dev`: a whole host in the foreground, for working on the
// toolstack, on clients and on user interfaces.
//
// It builds toolstackd and runs it with hostd, libvirtd and QEMU of the Debian
// tree in namespaces of their own (package devhost), with emulation allowed. With
// -sim-hosts it runs toolstackd alone, on a simulated pool. Either way the API
// answers on a loopback address, all that is written is below one directory, and
// nothing outlives this program.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"cairn/ci/devhost"
)

func main() {
	devhost.Main()
	var cfg config
	flag.StringVar(&cfg.Listen, "listen", "127.0.0.1:8443", "`address` the API answers on")
	flag.StringVar(&cfg.Dir, "dir", ".build/dev", "`directory` of everything that is written; kept between runs")
	flag.StringVar(&cfg.Bin, "bin", ".build/bin", "`directory` of built programs")
	flag.StringVar(&cfg.Go, "go", "go", "go `command` that builds toolstackd")
	flag.BoolVar(&cfg.Built, "built", false, "toolstackd is built already")
	flag.BoolVar(&cfg.Fresh, "fresh", false, "forget what former runs left")
	flag.IntVar(&cfg.SimHosts, "sim-hosts", 0, "simulate a pool of so many `hosts`")
	flag.IntVar(&cfg.SimVMs, "sim-vms", 0, "with so many `VMs`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	runtime.LockOSThread() // a parent's death is told to the thread that asked
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
	}
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
		os.Exit(1)
	}
}
