// Command init is Cairn's one static binary below the toolstack. The name it is
// started by chooses the role: /init is stage 1 in the initramfs, /sbin/init is
// PID 1 in the root image, and hostd is the service that owns NICs and disks.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"cairn/init/boot"
	"cairn/init/debug"
	"cairn/init/hostd"
	"cairn/init/supervise"
)

func main() {
	if err := run(context.Background(), os.Args[0]); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		os.Exit(1)
	}
}

// run picks the role. The kernel starts stage 1 as exactly "/init", and stage 1
// starts PID 1 as "/sbin/init", so the whole path tells the two apart.
func run(ctx context.Context, arg0 string) error {
	switch {
	case arg0 == "/init":
		return boot.Main(ctx)
	case arg0 == "/sbin/init" && os.Getpid() == 1:
		return supervise.Main(ctx)
	case arg0 == supervise.ExecServiceName:
		return supervise.ExecService(os.Args)
	case len(os.Args) > 1 && os.Args[1] == "debug" && os.Getpid() != 1:
		return debug.Main(ctx)
	case path.Base(arg0) == "hostd":
		return hostd.Main(ctx)
	default:
		return errors.New("no role is named " + arg0)
	}
}
