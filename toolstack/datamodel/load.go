package datamodel

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

//go:embed data
var files embed.FS

// Load reads the description that is built into the program.
func Load() (*Model, error) { return load(files) }

func load(fsys fs.FS) (*Model, error) {
	m := &Model{classByName: map[string]*Class{}, enumByName: map[string]*Enum{}}
	var names []string
	var relations [][2]string
	var enums map[string][]string
	for file, into := range map[string]any{
		"classes": &names, "errors": &m.Errors, "alerts": &m.Alerts, "relations": &relations,
		"emergency": &m.Emergency, "http": &m.HTTP, "enums": &enums,
	} {
		if err := decodeFile(fsys, "data/"+file+".json", into, false); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(enums)) {
		e := &Enum{Name: name, Values: enums[name]}
		m.Enums = append(m.Enums, e)
		m.enumByName[name] = e
	}
	for _, name := range names {
		c := &Class{}
		if err := decodeFile(fsys, "data/classes/"+name+".json", c, true); err != nil {
			return nil, err
		}
		m.Classes = append(m.Classes, c)
		m.classByName[name] = c
	}
	if err := m.resolve(relations); err != nil {
		return nil, err
	}
	return m, nil
}

func decodeFile(fsys fs.FS, name string, into any, strict bool) error {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// UnmarshalJSON tells a default of null or "" from no default at all.
func (f *Field) UnmarshalJSON(text []byte) error {
	type plain Field
	var err error
	f.Default, f.HasDefault, err = unmarshalWithDefault(text, (*plain)(f))
	return err
}

// UnmarshalJSON tells a default of null or "" from no default at all.
func (p *Param) UnmarshalJSON(text []byte) error {
	type plain Param
	var err error
	p.Default, p.HasDefault, err = unmarshalWithDefault(text, (*plain)(p))
	return err
}

func unmarshalWithDefault(text []byte, into any) (any, bool, error) {
	if err := json.Unmarshal(text, into); err != nil {
		return nil, false, err
	}
	var d struct {
		Default json.RawMessage `json:"default"`
	}
	if err := json.Unmarshal(text, &d); err != nil || d.Default == nil {
		return nil, false, err
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(d.Default))
	dec.UseNumber()
	err := dec.Decode(&v)
	return v, true, err
}

// resolve parses types, fills derived values and checks every name used.
func (m *Model) resolve(relations [][2]string) error {
	for _, c := range m.Classes {
		if err := m.resolveClass(c); err != nil {
			return fmt.Errorf("class %s: %w", c.Name, err)
		}
	}
	for _, r := range relations {
		rel := Relation{}
		var ok1, ok2 bool
		rel.From, rel.FromField, ok1 = strings.Cut(r[0], ".")
		rel.To, rel.ToField, ok2 = strings.Cut(r[1], ".")
		if !ok1 || !ok2 || !m.hasField(rel.From, rel.FromField) || !m.hasField(rel.To, rel.ToField) {
			return fmt.Errorf("relation %s to %s: no such field", r[0], r[1])
		}
		m.Relations = append(m.Relations, rel)
	}
	return nil
}

func (m *Model) hasField(class, field string) bool {
	c := m.Class(class)
	return c != nil && c.Field(field) != nil
}

func (m *Model) resolveClass(c *Class) error {
	c.Lifecycle.resolve()
	if c.ReadRole == "" {
		c.ReadRole = RoleReadOnly
	}
	for _, f := range c.Fields {
		f.Lifecycle.resolve()
		f.ReadRole = or(f.ReadRole, c.ReadRole)
		f.WriteRole = or(f.WriteRole, c.WriteRole)
		var err error
		if f.Type, err = m.parse(f.TypeText); err != nil {
			return fmt.Errorf("field %s: %w", f.Name, err)
		}
	}
	for _, msg := range c.Messages {
		msg.Lifecycle.resolve()
		if err := m.resolveMessage(msg); err != nil {
			return fmt.Errorf("message %s: %w", msg.Name, err)
		}
	}
	return nil
}

func (m *Model) resolveMessage(msg *Message) error {
	var err error
	for _, p := range msg.Params {
		if p.Type, err = m.parse(p.TypeText); err != nil {
			return fmt.Errorf("parameter %s: %w", p.Name, err)
		}
	}
	if msg.ResultText != "" {
		msg.Result, err = m.parse(msg.ResultText)
	}
	return err
}

// parse reads a type and checks the names it uses.
func (m *Model) parse(s string) (*Type, error) {
	t, err := ParseType(s)
	if err == nil {
		err = m.checkNames(t)
	}
	return t, err
}

func (m *Model) checkNames(t *Type) error {
	switch {
	case t == nil:
		return nil
	case t.Kind == EnumOf && m.Enum(t.Name) == nil:
		return fmt.Errorf("no enumeration %q", t.Name)
	case (t.Kind == RefTo || t.Kind == RecordOf) && m.Class(t.Name) == nil && t.Name != "<class>":
		return fmt.Errorf("no class %q", t.Name)
	}
	if err := m.checkNames(t.Key); err != nil {
		return err
	}
	return m.checkNames(t.Elem)
}

func or(s, fallback string) string {
	if s != "" {
		return s
	}
	return fallback
}
