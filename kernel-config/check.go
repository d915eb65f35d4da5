package kernelconfig

import (
	"bufio"
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"strings"
)

//go:embed symbols.list
var symbolsList []byte

// A Requirement is one symbol the appliance needs or wants.
type Requirement struct {
	Symbol string
	Value  string
	Wanted bool   // its absence is reported but is no fault
	Reason string // why it is only wanted
}

// A RequirementGroup is one section of symbols.list.
type RequirementGroup struct {
	Name         string
	Requirements []Requirement
}

// A Problem is a requirement that a kernel does not meet.
type Problem struct {
	Requirement
	Got string // "n" where the symbol is absent
}

// GroupReport says how a kernel meets one group.
type GroupReport struct {
	Name     string
	Required int
	Missing  []Problem
	Absent   []Problem // only wanted, and absent
}

// Report says how a kernel meets all groups, in the order of symbols.list.
type Report struct {
	Groups []GroupReport
}

// Check compares a kernel configuration with the required symbols.
func Check(r io.Reader) (Report, error) {
	values, err := Parse(r)
	if err != nil {
		return Report{}, err
	}
	groups, err := Requirements()
	if err != nil {
		return Report{}, err
	}
	return compare(groups, values), nil
}

// Requirements returns the required symbols by group.
func Requirements() ([]RequirementGroup, error) { return parseSymbols(symbolsList) }

func parseSymbols(data []byte) ([]RequirementGroup, error) {
	var groups []RequirementGroup
	seen := map[string]bool{}
	err := eachLine(data, func(text, comment string) error {
		if name, ok := header(text); ok {
			groups = append(groups, RequirementGroup{Name: name})
			return nil
		}
		text, wanted := strings.CutSuffix(text, "?")
		symbol, value, ok := strings.Cut(strings.TrimSpace(text), "=")
		if !ok || !isSymbol(symbol) || value == "" || len(groups) == 0 || seen[symbol] {
			return fmt.Errorf("%q is not a new symbol and its value in a group", text)
		}
		seen[symbol] = true
		g := &groups[len(groups)-1]
		req := Requirement{Symbol: symbol, Value: value, Wanted: wanted}
		if wanted {
			req.Reason = comment
		}
		g.Requirements = append(g.Requirements, req)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("symbols.list: %w", err)
	}
	return groups, nil
}

// eachLine calls yield for each line that is not empty, without its comment.
func eachLine(data []byte, yield func(text, comment string) error) error {
	sc := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; sc.Scan(); n++ {
		text, comment, _ := strings.Cut(sc.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if err := yield(text, strings.TrimSpace(comment)); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return sc.Err()
}

// header reads "[name]".
func header(text string) (name string, ok bool) {
	if !strings.HasPrefix(text, "[") || !strings.HasSuffix(text, "]") {
		return "", false
	}
	return strings.TrimSpace(text[1 : len(text)-1]), true
}

func compare(groups []RequirementGroup, values map[string]string) Report {
	var rep Report
	for _, g := range groups {
		gr := GroupReport{Name: g.Name}
		for _, req := range g.Requirements {
			got := values[req.Symbol]
			if got == "" {
				got = "n"
			}
			if !req.Wanted {
				gr.Required++
			}
			switch {
			case req.met(got):
			case req.Wanted:
				gr.Absent = append(gr.Absent, Problem{req, got})
			default:
				gr.Missing = append(gr.Missing, Problem{req, got})
			}
		}
		rep.Groups = append(rep.Groups, gr)
	}
	return rep
}

// met reports whether a value is good enough: a module may be built in, what
// must be built in may not be a module.
func (r Requirement) met(got string) bool {
	return got == r.Value || r.Value == "m" && got == "y"
}

// Missing lists the unmet requirements of all groups.
func (r Report) Missing() []Problem {
	var all []Problem
	for _, g := range r.Groups {
		all = append(all, g.Missing...)
	}
	return all
}

// Err is an error naming every missing symbol, or nil.
func (r Report) Err() error {
	missing := r.Missing()
	if len(missing) == 0 {
		return nil
	}
	var names []string
	for _, p := range missing {
		names = append(names, fmt.Sprintf("%s is %s, want %s", p.Symbol, p.Got, p.Value))
	}
	return fmt.Errorf("kernel configuration: %s", strings.Join(names, "; "))
}

// String is a table of the groups with every problem below its group.
func (r Report) String() string {
	var b strings.Builder
	for _, g := range r.Groups {
		fmt.Fprintf(&b, "%-26s %3d of %3d\n", g.Name, g.Required-len(g.Missing), g.Required)
		for _, p := range g.Missing {
			fmt.Fprintf(&b, "  missing %s=%s, is %s\n", p.Symbol, p.Value, p.Got)
		}
		for _, p := range g.Absent {
			fmt.Fprintf(&b, "  absent  %s  (%s)\n", p.Symbol, p.Reason)
		}
	}
	return b.String()
}
