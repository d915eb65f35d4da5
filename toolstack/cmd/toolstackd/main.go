// Command toolstackd serves the management API of a Cairn host and runs its VMs.
//
// It runs as the unprivileged user cairn. PID 1 hands it the listening socket,
// hears when it is ready and watches that it lives; hostd does what needs root,
// and libvirtd runs the domains.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"cairn/init/hostd/client"
	"cairn/journal"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	cfg, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, cfg)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "toolstackd:", err)
		os.Exit(1)
	}
}

// parse reads the flags; a Cairn host needs none.
func parse(args []string) (config, error) {
	cfg := config{log: journal.New(os.Stdout, "toolstackd")}
	f := flag.NewFlagSet("toolstackd", flag.ContinueOnError)
	f.StringVar(&cfg.listen, "listen", "", "`address` to listen on where no socket is handed over")
	f.StringVar(&cfg.state, "state", "/var/lib/cairn", "`directory` of database and identity")
	f.StringVar(&cfg.engine, "db", "etcd", "database `engine`: etcd or memory")
	f.StringVar(&cfg.hostd, "hostd", client.Socket, "hostd's `socket`")
	f.StringVar(&cfg.guests, "guests", vm.DefaultGuestDir, "`directory` guests may boot kernels from")
	f.StringVar(&cfg.hypervisor.Socket, "libvirt", hypervisor.DefaultSocket, "libvirtd's `socket`")
	f.StringVar(&cfg.hypervisor.Root, "libvirt-root", "", "`directory` where libvirtd's root is seen")
	f.StringVar(&cfg.hypervisor.ConsoleOwner, "console-owner", hypervisor.DefaultConsoleOwner, "`owner` of consoles, +uid:+gid; empty for QEMU's user")
	if err := f.Parse(args); err != nil {
		return config{}, err
	}
	return cfg, nil
}
