package main

import (
	"flag"
	"os"
	"strconv"

	"cairn/init/hostd/client"
	"cairn/journal"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/transfer/share"
	"cairn/toolstack/vm"
)

// extras add what builds for development have beyond the product: flags, and what
// to do with them once they are read.
var extras []func(*flag.FlagSet) func(*config) error

// parse reads the flags; a Cairn host needs none.
func parse(args []string) (config, error) {
	cfg := config{log: journal.New(os.Stdout, "toolstackd")}
	f := flag.NewFlagSet("toolstackd", flag.ContinueOnError)
	f.StringVar(&cfg.listen, "listen", "", "`address` to listen on where no socket is handed over")
	f.StringVar(&cfg.local, "local", "", "unix `socket` to serve root on where none is handed over; empty for none")
	f.StringVar(&cfg.disks, "disks", ":"+strconv.Itoa(share.Port), "`address` to serve disks on; empty for none")
	f.StringVar(&cfg.state, "state", "/var/lib/cairn", "`directory` of database and identity")
	f.StringVar(&cfg.engine, "db", "etcd", "database `engine`: etcd or memory")
	f.StringVar(&cfg.hostd, "hostd", client.Socket, "hostd's `socket`")
	f.StringVar(&cfg.guests, "guests", vm.DefaultGuestDir, "`directory` guests may boot kernels from")
	f.StringVar(&cfg.hypervisor.Socket, "libvirt", hypervisor.DefaultSocket, "libvirtd's `socket`")
	f.StringVar(&cfg.hypervisor.Root, "libvirt-root", "", "`directory` where libvirtd's root is seen")
	f.StringVar(&cfg.hypervisor.ConsoleOwner, "console-owner", hypervisor.DefaultConsoleOwner, "`owner` of consoles, +uid:+gid; empty for QEMU's user")
	var then []func(*config) error
	for _, add := range extras {
		then = append(then, add(f))
	}
	if err := f.Parse(args); err != nil {
		return config{}, err
	}
	for _, do := range then {
		if err := do(&cfg); err != nil {
			return config{}, err
		}
	}
	return cfg, nil
}
