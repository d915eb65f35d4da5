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
