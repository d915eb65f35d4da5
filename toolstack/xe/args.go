package xe

import (
	"fmt"
	"strconv"
	"strings"
)

// Invocation is a command line taken apart.
type Invocation struct {
	Server   string
	Port     int
	Username string
	Password string
	Command  string
	Params   Params
	Minimal  bool
	Force    bool
	Multiple bool
	All      bool
	Help     bool
}

// Param is one name=value argument. Key is set for map parameters, which are
// written name:key=value.
type Param struct{ Name, Key, Value string }

// Params keeps the order of the command line.
type Params []Param

// Get returns the first plain parameter of this name.
func (p Params) Get(name string) (string, bool) {
	for _, a := range p {
		if a.Name == name && a.Key == "" {
			return a.Value, true
		}
	}
	return "", false
}

// Map returns the keys and values given as name:key=value.
func (p Params) Map(name string) map[string]string {
	m := map[string]string{}
	for _, a := range p {
		if a.Name == name && a.Key != "" {
			m[a.Key] = a.Value
		}
	}
	return m
}

// Without returns the parameters except those with the given names.
func (p Params) Without(names ...string) Params {
	var rest Params
	for _, a := range p {
		keep := true
		for _, n := range names {
			keep = keep && a.Name != n
		}
		if keep {
			rest = append(rest, a)
		}
	}
	return rest
}

// UsageError is a command line that cannot be understood.
type UsageError struct{ Reason string }

// Error implements error.
func (e *UsageError) Error() string { return e.Reason }

func usage(format string, args ...any) error {
	return &UsageError{Reason: fmt.Sprintf(format, args...)}
}

// Parse takes a command line apart. Switches may stand anywhere; the first
// other word is the command, the rest are parameters.
func Parse(args []string) (Invocation, error) {
	inv := Invocation{Port: 443, Username: "root"}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		rest, err := inv.take(arg, args)
		if err != nil {
			return inv, err
		}
		args = rest
	}
	if inv.Command == "" && !inv.Help {
		return inv, usage("no command given; try: xe help")
	}
	return inv, nil
}

func (inv *Invocation) take(arg string, rest []string) ([]string, error) {
	switch {
	case inv.flag(arg):
		return rest, nil
	case valued[arg]:
		if len(rest) == 0 {
			return nil, usage("%s wants a value", arg)
		}
		return rest[1:], inv.option(arg, rest[0])
	case strings.HasPrefix(arg, "-"):
		return nil, usage("unknown switch %s", arg)
	case inv.Command == "":
		inv.Command = arg
		return rest, nil
	default:
		return rest, inv.param(arg)
	}
}

// valued are the switches that take the next word.
var valued = map[string]bool{"-s": true, "-h": true, "-p": true, "-u": true, "-pw": true}

func (inv *Invocation) flag(arg string) bool {
	switch arg {
	case "--minimal":
		inv.Minimal = true
	case "--force":
		inv.Force = true
	case "--multiple":
		inv.Multiple = true
	case "--all":
		inv.All = true
	case "--help":
		inv.Help = true
	default:
		return false
	}
	return true
}

func (inv *Invocation) option(name, value string) error {
	switch name {
	case "-s", "-h":
		inv.Server = value
	case "-u":
		inv.Username = value
	case "-pw":
		inv.Password = value
	case "-p":
		port, err := strconv.Atoi(value)
		if err != nil || port < 1 || port > 65535 {
			return usage("%q is not a port number", value)
		}
		inv.Port = port
	}
	return nil
}

// param reads name=value, name:key=value, or a bare word, which `xe help` and
// switches written as parameters ("force=true") need.
func (inv *Invocation) param(arg string) error {
	name, value, ok := strings.Cut(arg, "=")
	if !ok && inv.Command != "help" {
		return usage("%q is not of the form name=value", arg)
	}
	name, key, _ := strings.Cut(name, ":")
	if name == "" {
		return usage("%q names no parameter", arg)
	}
	switch {
	case key == "" && name == "force":
		inv.Force = value == "true"
	case key == "" && name == "multiple":
		inv.Multiple = value == "true"
	default:
		inv.Params = append(inv.Params, Param{Name: name, Key: key, Value: value})
	}
	return nil
}
