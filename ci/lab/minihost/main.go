// Command minihost is the smallest thing the lab can start: an init that says
// host-ready and serves the debug channel. It proves the lab itself, apart
// from any Cairn image.
package main

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"cairn/init/debug"
	"cairn/journal"
)

func main() {
	log := journal.New(os.Stdout, "minihost")
	err := run(context.Background())
	log.Error("ended", "err", err)
}

func run(ctx context.Context) error {
	for _, fs := range []struct{ kind, dir string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := os.MkdirAll(fs.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(fs.kind, fs.dir, fs.kind, 0, ""); err != nil {
			return &os.PathError{Op: "mount", Path: fs.dir, Err: err}
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	journal.New(os.Stdout, "minihost").Info("host-ready", "uptime", info.Uptime, "pid", os.Getpid())
	os.Args = []string{"debug", "/dev/ttyS1"}
	return debug.Main(ctx)
}
