package main

import (
	"bytes"
	"fmt"
	"strings"

	"cairn/toolstack/datamodel"
	"cairn/toolstack/datamodel/text"
)

func (w *writer) classPage(c *datamodel.Class, words *text.Class) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s%s\n\n%s\n\n[All classes](index.md)\n", c.Name, stage(c.State), words.Doc)
	w.fields(&b, c, words)
	w.implicit(&b, c)
	w.messages(&b, c, words)
	return b.Bytes()
}

func (w *writer) fields(b *bytes.Buffer, c *datamodel.Class, words *text.Class) {
	if len(c.Fields) == 0 {
		return
	}
	b.WriteString("\n## Fields\n\n*RO* changes by itself, *StaticRO* is given at creation, *RW* has a setter.\n\n| field | type | access | |\n|---|---|---|---|\n")
	for _, f := range c.Fields {
		fmt.Fprintf(b, "| %s | %s | %s | %s%s |\n", f.Name, w.typeLink(f.Type), f.Qualifier, cell(words.Fields[f.Name]), stage(f.State))
	}
}

// typeLink writes a type with a link to the class or enumeration it names.
func (w *writer) typeLink(t *datamodel.Type) string {
	name, page := "", ""
	for u := t; u != nil; u = u.Elem {
		switch u.Kind {
		case datamodel.EnumOf:
			name, page = u.Name, "enums.md#"+strings.ToLower(u.Name)
		case datamodel.RefTo, datamodel.RecordOf:
			name, page = u.Name, u.Name+".md"
		}
	}
	s := cell(t.String())
	if name == "" || w.model.Class(name) == nil && w.model.Enum(name) == nil {
		return s
	}
	return strings.Replace(s, name, "["+name+"]("+page+")", 1)
}

// implicit names the messages that follow from the fields.
func (w *writer) implicit(b *bytes.Buffer, c *datamodel.Class) {
	var objects, setters []string
	getters := 0
	for _, m := range c.Implicit() {
		switch {
		case m.Hidden || m.State == datamodel.StateRemoved:
		case m.Implicit == datamodel.OpGet:
			getters++
		case m.Field == nil:
			objects = append(objects, m.Name)
		default:
			setters = append(setters, m.Name)
		}
	}
	if getters == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Implicit messages\n\nAbout objects: %s.\n\nA getter `get_<field>` for each of %d fields.\n", code(objects), getters)
	if len(setters) > 0 {
		fmt.Fprintf(b, "\nSetters: %s.\n", code(setters))
	}
}

func code(names []string) string { return "`" + strings.Join(names, "`, `") + "`" }

func (w *writer) messages(b *bytes.Buffer, c *datamodel.Class, words *text.Class) {
	head := "\n## Messages\n"
	for _, m := range c.Messages {
		if m.Hidden || m.State == datamodel.StateRemoved {
			continue
		}
		b.WriteString(head)
		head = ""
		w.message(b, c, m, words.Messages[m.Name])
	}
}

func (w *writer) message(b *bytes.Buffer, c *datamodel.Class, m *datamodel.Message, words text.Message) {
	fmt.Fprintf(b, "\n### %s%s\n\n%s\n\n    %s\n\n", m.Name, stage(m.State), words.Doc, signature(c, m))
	for _, p := range m.Params {
		if doc := words.Params[p.Name]; doc != "" {
			fmt.Fprintf(b, "- *%s*: %s\n", p.Name, doc)
		}
	}
	if words.Result != "" {
		fmt.Fprintf(b, "- answers: %s\n", words.Result)
	}
	if len(m.Errors) > 0 {
		fmt.Fprintf(b, "- errors: %s\n", code(m.Errors))
	}
	role := m.Role
	switch {
	case m.Internal:
		role = "only between the hosts of a pool"
	case m.NoSession:
		role = "needs no session"
	}
	fmt.Fprintf(b, "- role: %s%s\n", role, map[bool]string{true: "; async", false: ""}[m.Async])
	if !w.built[c.Name+"."+m.Name] {
		b.WriteString("- not built yet: answers `NOT_IMPLEMENTED`\n")
	}
}

// signature writes a message as one line of code.
func signature(c *datamodel.Class, m *datamodel.Message) string {
	var params []string
	if !m.NoSession {
		params = append(params, "session_id")
	}
	for _, p := range m.Params {
		s := p.Name + " " + p.TypeText
		if p.HasDefault {
			s = "[" + s + "]"
		}
		params = append(params, s)
	}
	result := m.ResultText
	if result == "" {
		result = "void"
	}
	return fmt.Sprintf("%s %s.%s(%s)", result, c.Name, m.Name, strings.Join(params, ", "))
}
