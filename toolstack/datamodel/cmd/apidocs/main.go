// Command apidocs writes the reference of the management API as Markdown: a page
// a class, and pages for errors, enumerations, alerts and streams. It says of
// each explicit message whether it has behaviour yet, by the list apicoverage
// keeps.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	var cfg config
	flag.StringVar(&cfg.out, "out", ".build/api-docs", "directory to write")
	flag.StringVar(&cfg.coverage, "coverage", "toolstack/datamodel/coverage.txt", "list of messages with behaviour")
	flag.Parse()
	if err := run(cfg); err != nil {
		fmt.Fprintln(os.Stderr, "apidocs:", err)
		os.Exit(1)
	}
}
