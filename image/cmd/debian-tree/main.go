// Command debian-tree makes the Debian 13 tree of image/packages.list, if the
// cache does not have it, and prints its directory.
//
//	debian-tree              print the tree's directory
//	debian-tree -refresh     rewrite image/packages.lock with the newest versions
//	debian-tree -run NAME …  run a program of the tree in place
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"cairn/image/debian"
	"cairn/journal"
)

type config struct {
	refresh, run bool
	args         []string
	stdout       io.Writer
}

func main() {
	cfg := config{stdout: os.Stdout}
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

func run(ctx context.Context, cfg config) error {
	dc := debian.Config{Log: journal.New(os.Stderr, "debian")}
	if cfg.refresh {
		pkgs, err := debian.Refresh(ctx, dc)
		if err == nil {
			fmt.Fprintf(cfg.stdout, "%d packages locked\n", len(pkgs))
		}
		return err
	}
	tree, err := debian.Open(ctx, dc)
	if err != nil {
		return err
	}
	if !cfg.run || len(cfg.args) == 0 {
		_, err = fmt.Fprintln(cfg.stdout, tree.Dir)
		return err
	}
	cmd := tree.Command(ctx, cfg.args[0], cfg.args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, cfg.stdout, os.Stderr
	return cmd.Run()
}
