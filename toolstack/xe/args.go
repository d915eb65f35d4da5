package xe

import (
	"fmt"
	"strings"
)

// Invocation is a command line taken apart: where to go, as whom, and what for.
type Invocation struct {
	Settings
	Command string
	Params  Params
	Help    bool
}

// Param is one name=value argument. Key is set for map parameters, which are
// written name:key=value.
type Param struct{ Name, Key, Value string }

// full is the name as it was written.
func (p Param) full() string {
	if p.Key == "" {
		return p.Name
	}
	return p.Name + ":" + p.Key
}

// Params keeps the order of the command line.
type Params []Param

// Get returns the first plain parameter of this name. The name may offer
// others, "a|b", of which the first that is given counts.
func (p Params) Get(names string) (string, bool) {
	for name := range strings.SplitSeq(names, "|") {
		for _, a := range p {
			if a.Name == name && a.Key == "" {
				return a.Value, true
			}
		}
	}
	return "", false
}

// All returns every plain parameter of this name.
func (p Params) All(name string) []string {
	var all []string
	for _, a := range p {
		if a.Name == name && a.Key == "" {
			all = append(all, a.Value)
		}
	}
	return all
}

// Map returns the keys and values given as name:key=value, or in the older way
// as name-key=value.
func (p Params) Map(name string) map[string]string {
	m := map[string]string{}
	for _, a := range p {
		old, isOld := strings.CutPrefix(a.Name, name+"-")
		switch {
		case a.Name == name && a.Key != "":
			m[a.Key] = a.Value
		case isOld && a.Key == "" && old != "":
			m[old] = a.Value
		}
	}
	return m
}

// True reports whether a switch is on: --name or name=true.
func (p Params) True(name string) bool {
	v, ok := p.Get(name)
	on, known := truth(v)
	return ok && known && on
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

// standard are the parameters every command understands; they never filter.
var standard = []string{"server", "password", "port", "username", "minimal", "force", "multiple", "all", "message-priority", "trace", "progress"}

// truth reads a truth value as users write it.
func truth(text string) (value, ok bool) {
	switch strings.ToLower(text) {
	case "true", "yes", "1":
		return true, true
	case "false", "no", "0":
		return false, true
	}
	return false, false
}

// UsageError is a command line that cannot be understood.
type UsageError struct{ Reason string }

// Error implements error.
func (e *UsageError) Error() string { return e.Reason }

func usage(format string, args ...any) error {
	return &UsageError{Reason: fmt.Sprintf(format, args...)}
}

// missing is said when a command lacks a parameter it cannot do without.
func missingParam(name string) error { return usage("required parameter not found: %s", name) }

// Parse takes a command line apart. Switches may stand anywhere; the first word
// without "=" is the command, the rest are parameters. Settings may be given
// as parameters too (server=host), unless the command has one of that name.
func Parse(args []string) (Invocation, error) { return parse(defaults(), args) }

// parse starts from settings that are already known.
func parse(known Settings, args []string) (Invocation, error) {
	inv := Invocation{Settings: known}
	var words []string
	for len(args) > 0 {
		rest, word, err := inv.take(args)
		if err != nil {
			return inv, err
		}
		if word != "" {
			words = append(words, word)
		}
		args = rest
	}
	words = inv.command(words)
	for _, w := range words {
		if err := inv.param(w); err != nil {
			return inv, err
		}
	}
	return inv, nil
}

// take reads one switch with its value, or hands back one word.
func (inv *Invocation) take(args []string) (rest []string, word string, err error) {
	arg := args[0]
	args = args[1:]
	name, isSwitch := valued[arg]
	switch {
	case arg == "--help" || arg == "-help":
		inv.Help = true
		return args, "", nil
	case isSwitch && len(args) == 0:
		return nil, "", usage("%s wants a value", arg)
	case isSwitch:
		return args[1:], "", inv.set(name, args[0])
	case strings.HasPrefix(arg, "--") && len(arg) > 2:
		return args, switchWord(arg[2:]), nil
	case strings.HasPrefix(arg, "-") && len(arg) > 1:
		return nil, "", usage("unknown switch %s", arg)
	}
	return args, arg, nil
}

// switchWord turns the rest of a switch, "force" or "ca-file=x", into a
// parameter.
func switchWord(text string) string {
	if strings.Contains(text, "=") {
		return text
	}
	return text + "=true"
}

// command takes the command out of the words.
func (inv *Invocation) command(words []string) []string {
	for i, w := range words {
		if !strings.Contains(w, "=") {
			inv.Command = w
			return append(words[:i:i], words[i+1:]...)
		}
	}
	return words
}

// param reads name=value, name:key=value, or a bare word, which `xe help` and
// `xe completion` need.
func (inv *Invocation) param(arg string) error {
	name, value, ok := strings.Cut(arg, "=")
	if !ok && !bareWords[inv.Command] {
		return usage("%q is not of the form name=value", arg)
	}
	name, key, _ := strings.Cut(name, ":")
	if name == "" {
		return usage("%q names no parameter", arg)
	}
	if key == "" && isSetting(name) && !load().declares(inv.Command, name) {
		return inv.set(name, value)
	}
	inv.Params = append(inv.Params, Param{Name: name, Key: key, Value: value})
	return nil
}

// bareWords are the commands whose parameters are plain words.
var bareWords = map[string]bool{"help": true, "completion": true}
