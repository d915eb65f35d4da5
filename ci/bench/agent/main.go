// Command agent is the lab's debug channel as a program of its own, for peers
// in benchmarks: both sides are then measured by the same code.
package main

import (
	"context"
	"fmt"
	"os"

	"cairn/init/debug"
)

func main() {
	if err := debug.Main(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
