// Package console renders what a host shows on its screen: who it is, where it
// is managed, and what is wrong with it. It is pure; hostd writes the text when
// it changes.
package console

import (
	"fmt"
	"strings"
)

// Info is what there is to show.
type Info struct {
	Product  string // name and version
	Hostname string
	// Address is without prefix length; empty while there is none.
	Address   string
	Interface string // empty while none is chosen
	Mode      string // dhcp or static
	// NoKVM is why guests cannot use hardware virtualization; empty if they can.
	NoKVM string
	// Emulation is true when the document allows guests without it.
	Emulation bool
	// Problems are refused configuration documents and missing storage.
	Problems []string
	// Login is false while no root password is configured.
	Login bool
}

// URL is where the host is managed, or empty while it has no address.
func (i Info) URL() string {
	if i.Address == "" {
		return ""
	}
	return "https://" + i.Address + "/"
}

// width is that of the narrowest console, a VGA text screen.
const width = 80

// clear moves home and clears, so that the text stands at the top of a screen.
const clear = "\x1b[H\x1b[2J"

// Screen is the text for a terminal of its own, such as tty1.
func Screen(i Info) string {
	return clear + strings.ReplaceAll(Text(i), "\n", "\r\n")
}

// Text is the banner as plain lines.
func Text(i Info) string {
	var b strings.Builder
	line := func(format string, args ...any) { b.WriteString(wrap(fmt.Sprintf(format, args...))) }
	line("")
	line("  %s   %s", i.Product, i.Hostname)
	line("")
	switch {
	case i.Address != "":
		line("  Manage this host:  %s", i.URL())
		line("  Interface:         %s (%s)", i.Interface, i.Mode)
	case i.Interface != "":
		line("  Waiting for an address on %s (%s) ...", i.Interface, i.Mode)
	default:
		line("  Waiting for a network interface with a link ...")
	}
	if !i.Login {
		line("  Nobody can log in: the configuration document sets no root password.")
	}
	switch {
	case i.NoKVM != "" && i.Emulation:
		line("  WARNING: guests run slowly, in emulation: %s", i.NoKVM)
	case i.NoKVM != "":
		line("  WARNING: guests cannot run: %s", i.NoKVM)
	}
	for _, p := range i.Problems {
		line("  ERROR: %s", p)
	}
	line("")
	return b.String()
}

// wrap breaks a line at blanks, with the rest indented, so that a terminal does
// not cut the sentence that names the fault. Control characters are dropped:
// some of the text comes from the network.
func wrap(s string) string {
	var b strings.Builder
	col := 0
	for i, word := range strings.Split(printable(s), " ") {
		n := len([]rune(word))
		switch {
		case i == 0:
		case col+1+n > width && col > 0:
			b.WriteString("\n      ")
			col = 6
		default:
			b.WriteByte(' ')
			col++
		}
		b.WriteString(word)
		col += n
	}
	b.WriteByte('\n')
	return b.String()
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}
