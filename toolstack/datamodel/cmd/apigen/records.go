package main

import (
	"bytes"
	"fmt"

	dm "cairn/toolstack/datamodel"
)

// hasRecord reports whether a class has records: not those that only name
// messages, and not event, whose records hold other records.
func hasRecord(c *dm.Class) bool { return len(c.Fields) > 0 && c.Name != "event" }

func (g *generator) records(b *bytes.Buffer) {
	b.WriteString("import (\n\"maps\"\n\"slices\"\n\"time\"\n)\n\n")
	for _, c := range g.model.Classes {
		name := exported(c.Name)
		if !hasRecord(c) {
			fmt.Fprintf(b, "// %s is the class %s, which has no records.\ntype %s struct{}\n\n", name, c.Name, name)
		}
		fmt.Fprintf(b, "// %sRef refers to a record of class %s.\ntype %sRef = Ref[%s]\n\n", name, c.Name, name, name)
		if hasRecord(c) {
			g.recordType(b, c, name)
			g.fieldMethods(b, c, name)
			g.linkMethods(b, c, name)
			identityMethods(b, c, name)
		}
	}
}

func (g *generator) recordType(b *bytes.Buffer, c *dm.Class, name string) {
	fmt.Fprintf(b, "// %s is a record of class %s.\ntype %s struct {\n", name, c.Name, name)
	for _, f := range c.Fields {
		fmt.Fprintf(b, "%s %s // %s\n", exported(f.Name), goType(f.Type), f.Name)
	}
	fmt.Fprintf(b, "}\n\n// New%s returns a record holding the declared defaults.\nfunc New%s() *%s {\nreturn &%s{\n", name, name, name, name)
	for _, f := range c.Fields {
		if v := g.defaultOf(f); v != "" {
			fmt.Fprintf(b, "%s: %s,\n", exported(f.Name), v)
		}
	}
	fmt.Fprintf(b, "}\n}\n\n// Clone returns a copy that shares no map or slice with r.\nfunc (r *%s) Clone() *%s {\nc := *r\n", name, name)
	for _, f := range c.Fields {
		field := exported(f.Name)
		switch f.Type.Kind {
		case dm.SetOf:
			fmt.Fprintf(b, "c.%s = slices.Clone(r.%s)\n", field, field)
		case dm.MapOf:
			fmt.Fprintf(b, "c.%s = maps.Clone(r.%s)\n", field, field)
		}
	}
	fmt.Fprintf(b, "return &c\n}\n\n// CloneRecord implements Record.\nfunc (r *%s) CloneRecord() Record { return r.Clone() }\n\n", name)
	fmt.Fprintf(b, "// Class implements Record.\nfunc (*%s) Class() *ClassInfo { return &classes[%d] }\n\n", name, g.classID[c.Name])
}

// defaultOf is the Go expression of a field's default, "" for the zero value.
func (g *generator) defaultOf(f *dm.Field) string {
	switch v := f.Default.(type) {
	case nil:
		if f.Type.Kind == dm.EnumOf && !f.HasDefault {
			return fmt.Sprintf("%q", g.model.Enum(f.Type.Name).Values[0])
		}
		return ""
	case bool:
		return map[bool]string{true: "true"}[v]
	case string:
		if v == "" || f.Type.Kind == dm.RefTo || f.Type.Kind == dm.DateTime {
			return "" // no other reference or date than null and never is declared
		}
		return fmt.Sprintf("%q", v)
	case []any:
		return listDefault(f.Type, v)
	case map[string]any:
		return mapDefault(f.Type, v)
	default: // a number
		s := fmt.Sprint(v)
		return map[bool]string{true: s}[s != "0" && s != "0.0"]
	}
}

func listDefault(t *dm.Type, v []any) string {
	if len(v) == 0 {
		return ""
	}
	s := goType(t) + "{"
	for _, item := range v {
		if text, ok := item.(string); ok && t.Elem.Kind != dm.Int {
			s += fmt.Sprintf("%q,", text)
		} else {
			s += fmt.Sprint(item) + ","
		}
	}
	return s + "}"
}

func mapDefault(t *dm.Type, m map[string]any) string {
	if len(m) == 0 {
		return ""
	}
	s := goType(t) + "{"
	for _, k := range sortedKeys(m) {
		s += fmt.Sprintf("%q: %q,", k, fmt.Sprint(m[k]))
	}
	return s + "}"
}

func (g *generator) fieldMethods(b *bytes.Buffer, c *dm.Class, name string) {
	fmt.Fprintf(b, "// AppendField implements Record.\nfunc (r *%s) AppendField(b []byte, e Encoding, field int) []byte {\nswitch field {\n", name)
	for i, f := range c.Fields {
		fmt.Fprintf(b, "case %d:\nreturn %s\n", i, encode(f.Type, "r."+exported(f.Name)))
	}
	fmt.Fprintf(b, "}\nreturn b\n}\n\n// SetField implements Record.\nfunc (r *%s) SetField(field int, v *Value) error {\nswitch field {\n", name)
	for i, f := range c.Fields {
		fmt.Fprintf(b, "case %d:\nreturn %s\n", i, set(f.Type, "r."+exported(f.Name)))
	}
	b.WriteString("}\nreturn errNoField\n}\n\n")
}

func (g *generator) linkMethods(b *bytes.Buffer, c *dm.Class, name string) {
	fmt.Fprintf(b, "// LinkRefs implements Record.\nfunc (r *%s) LinkRefs(field int, f func(string)) {\n", name)
	seen := map[string]bool{}
	g.linkSwitch(b, c, append(append([]link(nil), g.forward[c.Name]...), g.reverse[c.Name]...), func(f *dm.Field) string {
		if seen[f.Name] {
			return ""
		}
		seen[f.Name] = true
		if f.Type.Kind == dm.SetOf {
			return "linkMany(r." + exported(f.Name) + ", f)"
		}
		return "linkOne(string(r." + exported(f.Name) + "), f)"
	})
	fmt.Fprintf(b, "// SetLinks implements Record.\nfunc (r *%s) SetLinks(field int, refs []string) {\n", name)
	g.linkSwitch(b, c, g.reverse[c.Name], func(f *dm.Field) string {
		if f.Type.Kind != dm.SetOf {
			return ""
		}
		return fmt.Sprintf("r.%s = toLinks[%s](refs)", exported(f.Name), goType(f.Type.Elem))
	})
}

func (g *generator) linkSwitch(b *bytes.Buffer, c *dm.Class, links []link, statement func(*dm.Field) string) {
	if len(links) > 0 {
		b.WriteString("switch field {\n")
		for i, f := range c.Fields {
			for _, l := range links {
				if l.field != f.Name {
					continue
				}
				if s := statement(f); s != "" {
					fmt.Fprintf(b, "case %d:\n%s\n", i, s)
				}
			}
		}
		b.WriteString("}\n")
	}
	b.WriteString("}\n\n")
}

func identityMethods(b *bytes.Buffer, c *dm.Class, name string) {
	get, set, label := `""`, "", `""`
	if f := c.Field("uuid"); f != nil && f.Type.Kind == dm.String {
		get, set = "r.UUID", "r.UUID = uuid"
	}
	if c.Field("name_label") != nil {
		label = "r.NameLabel"
	}
	fmt.Fprintf(b, "// GetUUID implements Record.\nfunc (r *%s) GetUUID() string { return %s }\n\n", name, get)
	fmt.Fprintf(b, "// SetUUID implements Record.\nfunc (r *%s) SetUUID(uuid string) { %s }\n\n", name, set)
	fmt.Fprintf(b, "// GetName implements Record.\nfunc (r *%s) GetName() string { return %s }\n\n", name, label)
}
