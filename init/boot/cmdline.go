package boot

import (
	"fmt"
	"strings"

	"cairn/init/slots"
)

// cmdline is what stage 1 reads from the kernel command line.
type cmdline struct {
	rootHash string // cairn.root=
	rescue   bool   // cairn.rescue=1
}

// parseCommandLine reads the words meant for stage 1. The first cairn.root
// counts: the unified kernel image puts its own words in front of any a boot
// loader may add. A rescue image needs no root.
func parseCommandLine(text string) (cmdline, error) {
	var c cmdline
	for _, word := range strings.Fields(text) {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case key == "cairn.root" && c.rootHash == "":
			c.rootHash = strings.ToLower(value)
		case key == "cairn.rescue":
			c.rescue = value == "1"
		}
	}
	if c.rescue {
		return c, nil
	}
	if c.rootHash == "" {
		return c, fmt.Errorf("command line: no cairn.root")
	}
	if _, err := slots.ParseHash(c.rootHash); err != nil {
		return c, fmt.Errorf("command line: %w", err)
	}
	return c, nil
}
