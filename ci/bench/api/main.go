// Command api measures the management API on a simulated pool: how long lists of
// all VMs take in both encodings, how many requests are answered, how soon a
// change reaches clients that wait for it, and what memory that takes. Beside it
// stands what libvirt needs to list as many defined domains.
//
// toolstackd runs as a process of its own on the etcd engine, and all requests
// go through TLS over loopback. Run it on a quiet machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"cairn/ci/devhost"
)

func main() {
	devhost.Main()
	var cfg config
	flag.StringVar(&cfg.Doc, "doc", "", "document whose table is replaced; empty: print only")
	flag.StringVar(&cfg.Go, "go", "go", "go `command` that builds toolstackd")
	flag.Var(&cfg.Sizes, "vms", "`numbers` of VMs, with commas between; default 1000,4000")
	flag.IntVar(&cfg.Samples, "samples", 100, "lists of each kind, and changes")
	flag.DurationVar(&cfg.Load, "load", 10*time.Second, "how long to keep the server busy with requests")
	flag.IntVar(&cfg.Peer, "domains", 1000, "domains libvirt lists; 0: no libvirt")
	flag.StringVar(&cfg.Profile, "cpuprofile", "", "`directory` for profiles of the server in each phase")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "bench-api:", err)
		os.Exit(1)
	}
}
