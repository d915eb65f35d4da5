// Command boot measures Cairn beside a stock Debian 13 with libvirt: the time
// from the kernel's start to the first answer of the API, and the memory in use
// a minute later. Both boot in the same QEMU with the same CPUs and memory,
// directly into the kernel, alternating. Run it on a quiet machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	var cfg config
	flag.StringVar(&cfg.Image, "image", ".build/image", "directory of the built image")
	flag.StringVar(&cfg.Doc, "doc", "", "document whose table is replaced; empty: print only")
	flag.StringVar(&cfg.Go, "go", "go", "go command that builds the agent")
	flag.IntVar(&cfg.Rounds, "rounds", 5, "boots of each side")
	flag.DurationVar(&cfg.Settle, "settle", time.Minute, "time from ready to the look at memory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "bench-boot:", err)
		os.Exit(1)
	}
}
