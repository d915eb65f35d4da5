// Command debian-tree makes the Debian 13 tree of image/packages.list, if the
// cache does not have it, and prints its directory.
//
//	debian-tree               print the tree's directory
//	debian-tree -refresh      rewrite image/packages.lock with the newest versions
//	debian-tree -list FILE …  the same of another list and the lock beside it
//	debian-tree -run NAME …   run a program of the tree in place
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	cfg := config{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	flag.StringVar(&cfg.list, "list", "", "another `file` than image/packages.list")
	flag.BoolVar(&cfg.refresh, "refresh", false, "rewrite the lock with the newest versions")
	flag.BoolVar(&cfg.run, "run", false, "run the program named by the arguments")
	flag.Parse()
	cfg.args = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "debian-tree:", err)
		os.Exit(1)
	}
}
