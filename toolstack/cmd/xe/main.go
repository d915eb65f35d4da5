// Command xe controls a pool from the command line:
//
//	xe vm-list -s host -u root -pw password
//
// `xe help` lists the commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"cairn/toolstack/xe"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := xe.Run(ctx, xe.Config{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
	})
	stop()
	os.Exit(status)
}
