// Package agent is what a test asks a guest to do, by lines on its serial console:
// read and write disks, look at hardware, send frames. Nothing in a guest's system
// is needed but the kernel.
//
// A line is a command and its words. The answer is lines of key=value and at last
// one that begins with the command's name and "ok" or "failed". Commands:
//
//	disks                            name, serial number, size of each disk
//	sum DISK                         SHA-256 of a whole disk, read from the device
//	fill DISK SEED MIB [AT]          write Pattern(SEED) at AT MiB, and flush it
//	scatter DISK SEED WRITES AT MIB  make Scattered writes to MIB MiB at AT MiB
//	mount-cd [DISK]                  mount a CD at /cd and list its files
//	unmount-cd
//	nics [MAC]                       name, MAC, MTU, link of each NIC
//	ip NIC ADDRESS/LENGTH            give a NIC an IPv4 address and bring it up
//	send NIC HEX                     send one raw Ethernet frame
//	listen NIC FRAMES SECONDS        print frames that arrive
//	cpus                             bring all CPUs on line and count them
//	memory                           the kernel's total and free memory
//
// DISK is a name of /dev or a serial number. Only one command runs at a time.
package agent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// command is a line that was understood.
type command struct {
	name  string
	words []string
}

// spec of a command: how many words it takes, what they must be, what it does.
type spec struct {
	min   int
	words []func(string) error
	run   func(w io.Writer, words []string) error
}

var commands = map[string]spec{
	"disks":      {0, nil, disks},
	"sum":        {1, words(disk), sum},
	"fill":       {3, words(disk, number(0, 1<<62), number(1, 1<<20), number(0, 1<<30)), fill},
	"scatter":    {5, words(disk, number(0, 1<<62), number(1, 1<<20), number(0, 1<<30), number(1, 1<<20)), scatter},
	"mount-cd":   {0, words(disk), mountCD},
	"unmount-cd": {0, nil, unmountCD},
	"nics":       {0, words(mac), nics},
	"ip":         {2, words(nic, cidr), address},
	"send":       {2, words(nic, frame), send},
	"listen":     {3, words(nic, number(1, 1000), number(1, 600)), listen},
	"cpus":       {0, nil, cpus},
	"memory":     {0, nil, memory},
}

func words(w ...func(string) error) []func(string) error { return w }

// ErrUnknown is the answer to a line whose first word is no command.
var ErrUnknown = errors.New("unknown command")

// Names are the commands there are.
func Names() (names []string) {
	for n := range commands {
		names = append(names, n)
	}
	return names
}

// parse reads a line.
func parse(line string) (command, error) {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return command{}, ErrUnknown
	}
	c := command{name: fields[0], words: fields[1:]}
	s, ok := commands[c.name]
	if !ok {
		return command{}, fmt.Errorf("%q: %w", c.name, ErrUnknown)
	}
	if len(c.words) < s.min || len(c.words) > len(s.words) {
		return command{}, fmt.Errorf("%s takes %d to %d words, not %d", c.name, s.min, len(s.words), len(c.words))
	}
	for i, w := range c.words {
		if err := s.words[i](w); err != nil {
			return command{}, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return c, nil
}

// Run obeys a line. It answers nothing and returns ErrUnknown when the line is no
// command; all other failures are part of the answer.
func Run(w io.Writer, line string) error {
	c, err := parse(line)
	if errors.Is(err, ErrUnknown) {
		return err
	}
	name := strings.Fields(line)[0]
	start := time.Now()
	if err == nil {
		err = commands[c.name].run(w, c.words)
	}
	if err != nil {
		fmt.Fprintf(w, "%s failed err=%q\n", name, err)
		return nil
	}
	fmt.Fprintf(w, "%s ok ms=%d\n", name, time.Since(start).Milliseconds())
	return nil
}

var (
	goodDisk = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$`)
	goodNIC  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)
)

func disk(w string) error { return matches(goodDisk, w) }
func nic(w string) error  { return matches(goodNIC, w) }

func matches(r *regexp.Regexp, w string) error {
	if !r.MatchString(w) {
		return fmt.Errorf("%q is not a name", w)
	}
	return nil
}

func number(low, high int64) func(string) error {
	return func(w string) error {
		if n, err := strconv.ParseInt(w, 10, 64); err != nil || n < low || n > high {
			return fmt.Errorf("%q is not a number from %d to %d", w, low, high)
		}
		return nil
	}
}

// integer reads what number has accepted.
func integer(w string) int64 {
	n, _ := strconv.ParseInt(w, 10, 64)
	return n
}

func cidr(w string) error {
	ip, _, err := net.ParseCIDR(w)
	if err == nil && ip.To4() == nil {
		err = fmt.Errorf("%q is not IPv4", w)
	}
	return err
}
