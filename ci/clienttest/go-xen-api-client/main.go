// Command go-xen-api-client drives a pool with the Go client of that name, over
// XML-RPC, and says each step it took: log in, list, make a VM, follow its
// events, destroy it, log out. It is a module of its own so that the client is
// nobody else's dependency.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: go-xen-api-client URL USER PASSWORD")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
