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

	"cairn/toolstack/client"
	"cairn/toolstack/xe"
)

func main() {
	ctx, stop := interruptible(context.Background())
	status := xe.Run(ctx, xe.Config{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Terminal: term.IsTerminal(int(os.Stderr.Fd())), Socket: client.LocalSocket,
	})
	stop()
	os.Exit(status)
}

// interruptible is cancelled by the first signal. A second Ctrl-C ends the program at
// once; a second SIGTERM does not, because timeout(1) sends it to the process and to
// its group.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) })
	return ctx, stop
}
