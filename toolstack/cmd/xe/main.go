// Command xe controls a pool from the command line:
//
//	xe vm-list -s host -u root -pw password
//
// `xe help` lists the commands; docs/xe.md tells the rest.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"cairn/toolstack/xe"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal cancels. A second Ctrl-C ends at once; a second SIGTERM does not,
	// because timeout(1) sends it to the process and to its group.
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) })
	status := xe.Run(ctx, xe.Config{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Terminal: term.IsTerminal(int(os.Stderr.Fd())),
	})
	stop()
	os.Exit(status)
}
