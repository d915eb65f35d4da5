package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"cairn/toolstack/datamodel"
	"cairn/toolstack/wire/wiretest"
)

type config struct {
	list, doc, gocmd string
	update           bool
	stdout           io.Writer
}

func run(ctx context.Context, cfg config) error {
	model, err := datamodel.Load()
	if err != nil {
		return err
	}
	found, err := collect(ctx, cfg.gocmd)
	if err != nil {
		return err
	}
	c := count(model, found)
	c.print(cfg.stdout)
	if cfg.update {
		return errors.Join(
			os.WriteFile(cfg.list, c.list(), 0o644),
			os.WriteFile(cfg.doc, c.page(), 0o644))
	}
	before, err := os.ReadFile(cfg.list)
	if err != nil {
		return err
	}
	return c.compare(before, cfg.stdout)
}

// collect runs the tests and returns for each covered message its tests.
func collect(ctx context.Context, gocmd string) (map[string][]string, error) {
	dir, err := os.MkdirTemp("", "api-coverage-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	test := exec.CommandContext(ctx, gocmd, "test", "-count=1", "./toolstack/...")
	test.Env = append(os.Environ(), wiretest.CoverageDir+"="+dir)
	var output bytes.Buffer
	test.Stdout, test.Stderr = &output, &output
	if err := test.Run(); err != nil {
		return nil, fmt.Errorf("tests of the toolstack: %w\n%s", err, output.Bytes())
	}
	found := map[string][]string{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		lines, err := os.ReadFile(path)
		parse(found, lines)
		return err
	})
	return found, err
}

// parse adds lines of message and test.
func parse(found map[string][]string, lines []byte) {
	for line := range strings.Lines(string(lines)) {
		method, test, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && !slices.Contains(found[method], test) {
			found[method] = append(found[method], test)
			slices.Sort(found[method])
		}
	}
}

// classCount is one row of the table. Implicit messages follow from the fields.
type classCount struct {
	name                     string
	implicit, implicitOf     int
	explicit, explicitOf     int
	coveredTests, notCovered []string
}

type counts struct {
	classes []classCount
	total   classCount
}

func count(m *datamodel.Model, found map[string][]string) *counts {
	c := &counts{total: classCount{name: "all"}}
	for _, class := range m.Classes {
		row := classCount{name: class.Name}
		for _, msg := range class.AllMessages() {
			if msg.State == datamodel.StateRemoved || msg.Hidden {
				continue
			}
			row.add(class.Name+"."+msg.Name, found, msg.Implicit != datamodel.OpExplicit)
		}
		c.classes = append(c.classes, row)
		c.total.implicit += row.implicit
		c.total.implicitOf += row.implicitOf
		c.total.explicit += row.explicit
		c.total.explicitOf += row.explicitOf
	}
	return c
}

func (r *classCount) add(method string, found map[string][]string, implicit bool) {
	have, of := &r.explicit, &r.explicitOf
	if implicit {
		have, of = &r.implicit, &r.implicitOf
	}
	*of++
	if tests := found[method]; len(tests) > 0 {
		*have++
		r.coveredTests = append(r.coveredTests, method+" "+tests[0])
	} else {
		r.notCovered = append(r.notCovered, method)
	}
}

func (r *classCount) have() int { return r.implicit + r.explicit }
func (r *classCount) of() int   { return r.implicitOf + r.explicitOf }

const rowFormat = "%-22s %5d of %-5d %5d of %-5d %5d of %d\n"

func (c *counts) print(w io.Writer) {
	fmt.Fprintf(w, "%-22s %14s %14s %14s\n", "class", "implicit", "explicit", "together")
	for _, r := range append(c.classes, c.total) {
		if r.of() > 0 {
			fmt.Fprintf(w, rowFormat, r.name, r.implicit, r.implicitOf, r.explicit, r.explicitOf, r.have(), r.of())
		}
	}
}

// list is the file kept: each covered message with one of its tests.
func (c *counts) list() []byte {
	var lines []string
	for _, r := range c.classes {
		lines = append(lines, r.coveredTests...)
	}
	slices.Sort(lines)
	return []byte(strings.Join(lines, "\n") + "\n")
}

// compare fails when a message of the list has lost its test.
func (c *counts) compare(before []byte, w io.Writer) error {
	had, has := map[string][]string{}, map[string][]string{}
	parse(had, before)
	parse(has, c.list())
	var lost []string
	for method := range had {
		if has[method] == nil {
			lost = append(lost, method)
		}
	}
	slices.Sort(lost)
	if len(lost) > 0 {
		return fmt.Errorf("%d messages lost their test: %s", len(lost), strings.Join(lost, ", "))
	}
	if gained := len(has) - len(had); gained > 0 {
		fmt.Fprintf(w, "%d more than the list has: run this with -update\n", gained)
	}
	return nil
}

// page is the table for readers.
func (c *counts) page() []byte {
	var b bytes.Buffer
	b.WriteString(`# Messages with behaviour

Written by ` + "`make api-coverage UPDATE=1`" + `. A message counts when a test that passes asserts its effect; the others answer
` + "`NOT_IMPLEMENTED`" + ` with their name. Implicit messages are those that follow from a class's fields (getters, setters,
` + "`get_all_records`" + ` and so on). Removed messages are left out: they answer ` + "`MESSAGE_REMOVED`" + `.

| class | implicit | explicit | explicit ones without behaviour |
|---|---|---|---|
`)
	for _, r := range append(c.classes, c.total) {
		if r.of() == 0 {
			continue
		}
		var without []string
		for _, m := range r.notCovered {
			without = append(without, strings.TrimPrefix(m, r.name+"."))
		}
		fmt.Fprintf(&b, "| %s | %d of %d | %d of %d | %s |\n", r.name, r.implicit, r.implicitOf, r.explicit, r.explicitOf, strings.Join(without, " "))
	}
	return b.Bytes()
}
