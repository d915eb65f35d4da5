// Command volumes runs inside a host of the lab and leads the volumes of one
// repository through their lives, by hostd's own socket: the host has no shell to
// do it from outside.
//
//	volumes TYPE DEVICE STEP
//
// Steps are run one by one, as the lab gives a program a minute; each prints
// "volumes: ok" after its figure, or what went wrong.
package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// limit is less than the lab's for one program.
const limit = 55 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if len(os.Args) != 4 {
		fmt.Println("usage: volumes TYPE DEVICE STEP")
		os.Exit(2)
	}
	if err := run(ctx, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Println("volumes:", err)
		os.Exit(1)
	}
	fmt.Println("volumes: ok")
}
