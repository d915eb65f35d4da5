// Command vm measures what the toolstack adds to libvirt and qemu-img: starting a
// machine, a snapshot and a clone of a disk of 10 GiB, the list of all machines.
// Each figure stands beside that of the same work done without Cairn, alternating,
// in one run.
//
// The host is that of `make dev`: real libvirt, QEMU, qemu-img and hostd, fenced,
// below a directory of its own. Run it on a quiet machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var cfg config
	flag.StringVar(&cfg.Doc, "doc", "", "document whose table is replaced; empty: print only")
	flag.StringVar(&cfg.Go, "go", "go", "go `command` that builds the host")
	flag.IntVar(&cfg.Rounds, "rounds", 15, "how often each is done")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "bench-vm:", err)
		os.Exit(1)
	}
}
