// Command run is `make run`: it builds the image, boots a host in QEMU and
// starts a KVM guest in it through the management API. With -once it proves
// that and powers everything off, else it stays until Ctrl-C.
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
	flag.StringVar(&cfg.Dir, "dir", ".build/run", "directory for the host's disks and logs")
	flag.BoolVar(&cfg.Once, "once", false, "prove it and stop")
	flag.StringVar(&cfg.Firmware, "firmware", "direct", "direct: kernel and initramfs straight from the image; ovmf: the real boot chain, some seconds longer")
	flag.IntVar(&cfg.Port, "port", 0, "local port for the host's API; 0: any free one")
	flag.StringVar(&cfg.Go, "go", "go", "go command that builds the image")
	flag.BoolVar(&cfg.NoBuild, "no-build", false, "take the image as it is")
	flag.DurationVar(&cfg.Deadline, "deadline", 10*time.Minute, "longest time from power-on to the guest's greeting")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}
