package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"cairn/image/debian"
	"cairn/journal"
)

type config struct {
	list           string
	refresh, run   bool
	args           []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

func run(ctx context.Context, cfg config) error {
	dc := debian.Config{List: cfg.list, Log: journal.New(cfg.stderr, "debian")}
	if cfg.refresh {
		return refresh(ctx, dc, cfg.stdout)
	}
	tree, err := debian.Open(ctx, dc)
	if err != nil {
		return err
	}
	if !cfg.run {
		_, err = fmt.Fprintln(cfg.stdout, tree.Dir)
		return err
	}
	if len(cfg.args) == 0 {
		return errors.New("-run: which program?")
	}
	cmd := tree.Command(ctx, cfg.args[0], cfg.args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = cfg.stdin, cfg.stdout, cfg.stderr
	return cmd.Run()
}

// refresh says what changed, because the lock's diff is long and the reader
// wants to know what he is about to commit.
func refresh(ctx context.Context, dc debian.Config, out io.Writer) error {
	pkgs, changes, err := debian.Refresh(ctx, dc)
	if err != nil {
		return err
	}
	for _, c := range changes {
		fmt.Fprintf(out, "%s: %s → %s\n", c.Name, cmp.Or(c.Locked, "none"), cmp.Or(c.Got, "none"))
	}
	_, err = fmt.Fprintf(out, "%d packages locked\n", len(pkgs))
	return err
}
