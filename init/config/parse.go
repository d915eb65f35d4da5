package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxDocument bounds the text of a document; real ones have a few hundred bytes.
const maxDocument = 64 << 10

// Parse reads a document, strictly: unknown and duplicate keys, wrong types,
// aliases, second documents and invalid values are Problems, each with its
// line. What the document leaves out is taken from Default.
func Parse(text []byte) (Document, error) {
	p := &parser{lines: map[string]int{}}
	doc := Default()
	if p.checkText(text); len(p.problems) == 0 {
		if root := p.tree(text); root != nil {
			p.document(root, &doc)
		}
	}
	if len(p.problems) > 0 {
		return Document{}, p.problems.sorted()
	}
	return doc, nil
}

// parser walks the YAML tree by hand: a decoder by reflection would neither
// name lines for wrong values nor start as fast.
type parser struct {
	problems Problems
	// lines holds the line of each key seen, by its dotted path.
	lines map[string]int
}

func (p *parser) fail(line int, format string, args ...any) {
	p.problems = append(p.problems, Problem{Line: max(line, 1), Message: fmt.Sprintf(format, args...)})
}

// checkText refuses what the YAML reader would refuse without naming the line.
func (p *parser) checkText(text []byte) {
	if len(text) > maxDocument {
		p.fail(1, "document has %d bytes, at most %d are allowed", len(text), maxDocument)
		return
	}
	for i, line := range bytes.Split(text, []byte("\n")) {
		if !utf8.Valid(line) {
			p.fail(i+1, "text is not UTF-8")
			return
		}
		if j := bytes.IndexFunc(bytes.TrimSuffix(line, []byte("\r")), forbidden); j >= 0 {
			p.fail(i+1, "text holds control character %#02x", line[j])
			return
		}
	}
}

func forbidden(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// tree returns the mapping at the document's root, or nil after saying why not.
func (p *parser) tree(text []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		p.fail(1, "document is empty; it needs at least \"version: %d\"", Version)
		return nil
	} else if err != nil {
		p.syntax(err)
		return nil
	}
	if err := dec.Decode(&second); err == nil {
		p.fail(second.Line, "only one document is allowed")
		return nil
	} else if !errors.Is(err, io.EOF) {
		p.syntax(err)
		return nil
	}
	if len(doc.Content) != 1 {
		p.fail(1, "document is empty; it needs at least \"version: %d\"", Version)
		return nil
	}
	return doc.Content[0]
}

// syntax turns the reader's "yaml: line 3: did not find …" into a Problem.
func (p *parser) syntax(err error) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if num, tail, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(num); err == nil {
				line, msg = n+offByOne(tail), tail
			}
		}
	}
	p.fail(line, "not YAML: %s", msg)
}

// offByOne corrects the line of the reader's grammar errors, which it counts
// from zero while it counts those of its scanner from one.
func offByOne(msg string) int {
	for _, grammar := range []string{"<document start>", "node content", "'-' indicator", "key", "',' or ']'", "',' or '}'"} {
		if strings.HasSuffix(msg, "did not find expected "+grammar) {
			return 1
		}
	}
	return 0
}

// field is one key a mapping may have.
type field struct {
	name string
	read func(path string, n *yaml.Node)
}

// mapping reads n, which must be a mapping with no other keys than the given.
func (p *parser) mapping(path string, n *yaml.Node, fields ...field) {
	if !p.plain(path, n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n.Line, "%s must be a mapping, not %s", subject(path), kind(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" || key.Anchor != "" {
			p.fail(key.Line, "%s has a key that is not text", subject(path))
			continue
		}
		if first, dup := seen[key.Value]; dup {
			p.fail(key.Line, "%s is given twice, first on line %d", join(path, key.Value), first)
			continue
		}
		seen[key.Value] = key.Line
		p.key(path, key, value, fields)
	}
}

func (p *parser) key(path string, key, value *yaml.Node, fields []field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		if f.name == key.Value {
			full := join(path, f.name)
			p.lines[full] = key.Line
			f.read(full, value)
			return
		}
		names[i] = f.name
	}
	p.fail(key.Line, "unknown key %q; %s may have %s", key.Value, subject(path), strings.Join(names, ", "))
}

// plain refuses what hides a value from the reader of the document.
func (p *parser) plain(path string, n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		p.fail(n.Line, "%s uses an anchor or alias, which are not allowed", subject(path))
		return false
	}
	return true
}

// text reads a scalar that must be text and hands it to check, whose error is
// about the value.
func (p *parser) text(path string, n *yaml.Node, check func(string) error) {
	if !p.plain(path, n) {
		return
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		p.fail(n.Line, "%s must be text, not %s%s", path, kind(n), quoteHint(n))
		return
	}
	if err := check(n.Value); err != nil {
		p.fail(n.Line, "%s %s", path, err)
	}
}

// list reads a list of text with at most limit entries.
func (p *parser) list(path string, n *yaml.Node, limit int, check func(string) error) {
	if !p.plain(path, n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		p.fail(n.Line, "%s must be a list, not %s", path, kind(n))
		return
	}
	if len(n.Content) > limit {
		p.fail(n.Line, "%s has %d entries, at most %d are allowed", path, len(n.Content), limit)
		return
	}
	for i, e := range n.Content {
		p.text(fmt.Sprintf("%s[%d]", path, i), e, check)
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func subject(path string) string {
	if path == "" {
		return "the document"
	}
	return path
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!str":
		return "text"
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the boolean " + n.Value
	case "!!null":
		return "nothing"
	case "!!timestamp":
		return "the date " + n.Value
	}
	return "a value tagged " + n.ShortTag()
}

func quoteHint(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		return ""
	}
	return " (put it in quotes)"
}
