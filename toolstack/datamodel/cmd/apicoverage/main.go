// Command apicoverage counts the messages that have behaviour. A message counts
// when a test that passes says it asserts the message's effect (package
// wiretest, Covers). The command runs the toolstack's tests, prints a table by
// class, and fails when a message of the list it keeps is not covered any more.
//
//	apicoverage            count and compare
//	apicoverage -update    count and rewrite the list and the table in docs/
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	cfg := config{stdout: os.Stdout}
	flag.StringVar(&cfg.list, "list", "toolstack/datamodel/coverage.txt", "the list of covered messages")
	flag.StringVar(&cfg.doc, "doc", "docs/api-coverage.md", "the table for readers")
	flag.BoolVar(&cfg.update, "update", false, "rewrite the list and the table")
	flag.StringVar(&cfg.gocmd, "go", "go", "the go command")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "apicoverage:", err)
		os.Exit(1)
	}
}
