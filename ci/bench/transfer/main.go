// Command transfer measures how disks go out and come in: each format by HTTPS from and
// into a file, beside `cp` of the same bytes and `qemu-img convert` to and from the same
// format, alternating, in one run, with the CPU time and the memory that it took.
//
// The host is that of `make dev`: toolstackd, hostd and qemu-nbd as processes of their
// own, and the client is one too. Run it on a quiet machine.
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
	cfg := config{Size: 1 << 30}
	flag.StringVar(&cfg.Doc, "doc", "", "document whose table is replaced; empty: print only")
	flag.StringVar(&cfg.JSON, "json", "", "`file` for all that was measured")
	flag.StringVar(&cfg.Go, "go", "go", "go `command` that builds the host")
	flag.Var(&cfg.Size, "size", "`size` of the disk, with K, M or G behind it")
	flag.IntVar(&cfg.Rounds, "rounds", 3, "how often each is done")
	flag.StringVar(&cfg.Only, "only", "", "`formats`, with commas between; empty: all, which the bars need")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	work := func() error { return run(ctx, cfg) }
	if flag.NArg() > 0 {
		work = func() error { return beClient(ctx, flag.Args(), os.Stdin, os.Stdout) }
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-transfer:", err)
		os.Exit(1)
	}
}
