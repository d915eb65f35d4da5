package xe

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
)

// printer writes what a command has to say. With --minimal it keeps only what
// scripts want, the first field of each record and the elements of lists, and
// writes that as one line at the end.
type printer struct {
	w       io.Writer
	minimal bool
	kept    []string
	err     error
}

// row is one line of a record: a label with its mark, and the value.
type row struct{ label, value string }

// table writes one record.
func (p *printer) table(rows []row) {
	switch {
	case p.minimal && len(rows) > 0:
		p.kept = append(p.kept, visible(rows[0].value))
	case !p.minimal:
		p.print(layOut(rows) + "\n\n")
	}
}

// list writes elements, one a line.
func (p *printer) list(lines ...string) {
	for _, l := range lines {
		if p.minimal {
			p.kept = append(p.kept, visible(l))
		} else {
			p.print(visibleLines(l) + "\n")
		}
	}
}

// say writes what only a person wants to read.
func (p *printer) say(format string, args ...any) {
	if !p.minimal {
		p.print(fmt.Sprintf(format, args...) + "\n")
	}
}

func (p *printer) print(text string) {
	if p.err == nil {
		_, p.err = io.WriteString(p.w, text)
	}
}

// flush ends the output.
func (p *printer) flush() error {
	if p.minimal {
		escape := strings.NewReplacer(`\`, `\\`, ",", `\,`)
		for i, k := range p.kept {
			p.kept[i] = escape.Replace(k)
		}
		p.print(strings.Join(p.kept, ",") + "\n")
	}
	return p.err
}

// layOut writes a record: the first label flush left, the others right-aligned
// under it.
func layOut(rows []row) string {
	width := 0
	for _, r := range rows {
		width = max(width, len(r.label))
	}
	var b strings.Builder
	for i, r := range rows {
		pad := strings.Repeat(" ", width-len(r.label))
		if i == 0 {
			fmt.Fprintf(&b, "%s%s    : %s\n", r.label, pad, visible(r.value))
		} else {
			fmt.Fprintf(&b, "    %s%s: %s\n", pad, r.label, visible(r.value))
		}
	}
	return b.String()
}

// visible writes out what would otherwise command the terminal or begin a line
// of its own: whoever may name a VM must not speak for xe.
func visible(s string) string {
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func hidden(r rune) bool { return !unicode.IsPrint(r) }

// visibleLines is visible for text that may have lines and tabs.
func visibleLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		parts := strings.Split(l, "\t")
		for j := range parts {
			parts[j] = visible(parts[j])
		}
		lines[i] = strings.Join(parts, "\t")
	}
	return strings.Join(lines, "\n")
}

// label is a field's name with its access mark: S set, M map, RO or RW.
func (f *Field) label() string {
	kind, writable := " ", f.Set
	switch f.Kind {
	case "set":
		kind, writable = "S", f.Add
	case "map":
		kind, writable = "M", f.Add
	}
	mode := "RO"
	if writable {
		mode = "RW"
	}
	label := f.Name + " (" + kind + mode + ")"
	if f.Old {
		label += " [DEPRECATED]"
	}
	return label
}
