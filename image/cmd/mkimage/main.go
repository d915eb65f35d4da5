// Command mkimage builds Cairn's image: root file system, hash tree, unified
// kernel images and a bootable disk. It does only what changed since last time.
//
//	mkimage -out .build/image
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"cairn/image/build"
)

func main() {
	cfg := build.Config{Log: os.Stderr}
	flag.StringVar(&cfg.Module, "module", ".", "directory of go.mod")
	flag.StringVar(&cfg.Out, "out", ".build/image", "output directory")
	flag.StringVar(&cfg.Cache, "cache", "", "directory of cached results (default: ~/.cache/cairn/image)")
	flag.BoolVar(&cfg.Fresh, "fresh", false, "build everything again, even what is in the cache")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := build.Run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}
