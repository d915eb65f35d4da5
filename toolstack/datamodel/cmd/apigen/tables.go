package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	dm "cairn/toolstack/datamodel"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

var kindNames = map[dm.Kind]string{
	dm.Void: "KindVoid", dm.String: "KindString", dm.Int: "KindInt", dm.Float: "KindFloat", dm.Bool: "KindBool",
	dm.DateTime: "KindTime", dm.EnumOf: "KindEnum", dm.RefTo: "KindRef", dm.RecordOf: "KindRecord", dm.SetOf: "KindSet",
	dm.MapOf: "KindMap", dm.OptionOf: "KindOption", dm.Batch: "KindBatch",
}

var stateNames = map[string]string{
	dm.StatePublished: "Published", dm.StatePrototyped: "Prototyped", dm.StateDeprecated: "Deprecated",
	dm.StateRemoved: "Removed", dm.StateHidden: "Hidden",
}

func (g *generator) tables(b *bytes.Buffer) {
	var classes, messages bytes.Buffer
	g.classTable(&classes)
	g.messageTable(&messages)
	opTable(b)
	g.enumTable(b)
	g.typeTable(b)
	b.Write(classes.Bytes())
	b.Write(messages.Bytes())
}

func opTable(b *bytes.Buffer) {
	b.WriteString("// The kinds of messages; all but OpExplicit follow from a class's fields.\nconst (\nOpExplicit Op = iota\n")
	for _, name := range dm.Ops[1:] {
		b.WriteString(name + "\n")
	}
	b.WriteString(")\n\n")
}

func (g *generator) enumTable(b *bytes.Buffer) {
	fmt.Fprintf(b, "var enums = [%d]EnumInfo{\n", len(g.model.Enums))
	for _, e := range g.model.Enums {
		fmt.Fprintf(b, "{%q, %#v},\n", e.Name, e.Values)
	}
	b.WriteString("}\n\n")
}

func (g *generator) typeTable(b *bytes.Buffer) {
	fmt.Fprintf(b, "var types = [%d]TypeInfo{\n", len(g.types))
	for _, t := range g.types {
		fmt.Fprintf(b, "{Kind: %s, Text: %q", kindNames[t.Kind], t.String())
		if t.Key != nil {
			fmt.Fprintf(b, ", key: %d", g.addType(t.Key))
		}
		if t.Elem != nil {
			fmt.Fprintf(b, ", elem: %d", g.addType(t.Elem))
		}
		switch t.Kind {
		case dm.EnumOf:
			fmt.Fprintf(b, ", enum: %d", g.enumID[t.Name])
		case dm.RefTo, dm.RecordOf:
			fmt.Fprintf(b, ", class: %d", g.classID[t.Name])
		}
		b.WriteString("},\n")
	}
	b.WriteString("}\n\n")
}

func (g *generator) classTable(b *bytes.Buffer) {
	fmt.Fprintf(b, "var classes = [%d]ClassInfo{\n", len(g.model.Classes))
	for i, c := range g.model.Classes {
		fmt.Fprintf(b, "{ID: %d, Name: %q, Lower: %q", i, c.Name, strings.ToLower(c.Name))
		for _, flag := range []struct {
			name string
			set  bool
		}{{"InDB", c.InDB}, {"Volatile", c.Volatile}, {"Events", c.Events}} {
			if flag.set {
				fmt.Fprintf(b, ", %s: true", flag.name)
			}
		}
		fmt.Fprintf(b, ", State: %s, UUIDField: %d, NameField: %d", stateNames[c.State], fieldIndex(c, "uuid"), fieldIndex(c, "name_label"))
		if hasRecord(c) {
			fmt.Fprintf(b, ", New: func() Record { return New%s() }", exported(c.Name))
			b.WriteString(", Fields: []FieldInfo{\n")
			for _, f := range c.Fields {
				g.fieldRow(b, c, f)
			}
			b.WriteString("}")
			g.linkRows(b, c, "Forward", g.forward[c.Name])
			g.linkRows(b, c, "Reverse", g.reverse[c.Name])
		}
		b.WriteString("},\n")
	}
	b.WriteString("}\n\n")
}

func fieldIndex(c *dm.Class, name string) int {
	if !hasRecord(c) {
		return -1
	}
	return slices.IndexFunc(c.Fields, func(f *dm.Field) bool { return f.Name == name })
}

func (g *generator) fieldRow(b *bytes.Buffer, c *dm.Class, f *dm.Field) {
	fmt.Fprintf(b, "{Name: %q, Type: &types[%d], Qualifier: %s, State: %s", f.Name, g.addType(f.Type), f.Qualifier, stateNames[f.State])
	if f.Required() {
		b.WriteString(", Required: true")
	}
	for _, l := range g.reverse[c.Name] {
		if l.field == f.Name {
			b.WriteString(", Derived: true")
		}
	}
	b.WriteString("},\n")
}

func (g *generator) linkRows(b *bytes.Buffer, c *dm.Class, name string, links []link) {
	if len(links) == 0 {
		return
	}
	fmt.Fprintf(b, ", %s: []LinkInfo{", name)
	for _, l := range links {
		fmt.Fprintf(b, "{Field: %d, OtherField: %d, other: %d},", fieldIndex(c, l.field),
			fieldIndex(g.model.Class(l.other), l.otherField), g.classID[l.other])
	}
	b.WriteString("}")
}

func (g *generator) messageTable(b *bytes.Buffer) {
	fmt.Fprintf(b, "var messages = [%d]MessageInfo{\n", len(g.messages))
	for i, m := range g.messages {
		fmt.Fprintf(b, "{ID: %d, Method: %q, Class: &classes[%d], Role: %q, State: %s", i, m.method(), g.classID[m.class.Name], m.Role, stateNames[m.State])
		fmt.Fprintf(b, ", Op: %s, Field: %d", dm.Ops[m.Implicit], messageField(m))
		if m.Result != nil {
			fmt.Fprintf(b, ", Result: &types[%d]", g.addType(m.Result))
		}
		for _, flag := range []struct {
			name string
			set  bool
		}{{"Async", m.Async}, {"NoSession", m.NoSession}, {"Hidden", m.Hidden}, {"Internal", m.Internal},
			{"Emergency", slices.Contains(g.model.Emergency, m.method())}} {
			if flag.set {
				fmt.Fprintf(b, ", %s: true", flag.name)
			}
		}
		g.paramRows(b, m)
		b.WriteString("},\n")
	}
	b.WriteString("}\n")
}

func messageField(m message) int {
	if m.Field == nil {
		return -1
	}
	return fieldIndex(m.class, m.Field.Name)
}

func (g *generator) paramRows(b *bytes.Buffer, m message) {
	if len(m.Params) == 0 {
		return
	}
	b.WriteString(", Params: []ParamInfo{")
	for _, p := range m.Params {
		fmt.Fprintf(b, "{Name: %q, Type: &types[%d]", p.Name, g.addType(p.Type))
		if p.HasDefault {
			fmt.Fprintf(b, ", Optional: true, Default: %s", valueOf(p.Default))
		}
		b.WriteString("},")
	}
	b.WriteString("}")
}

// valueOf is a parameter's default as a wire value.
func valueOf(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("Value{Kind: StringValue, Text: %q}", v)
	case bool:
		return fmt.Sprintf("Value{Kind: BoolValue, Text: %q}", map[bool]string{true: "1", false: "0"}[v])
	case json.Number:
		return fmt.Sprintf("Value{Kind: FloatValue, Text: %q}", v)
	case []any:
		return "Value{Kind: ArrayValue}"
	case map[string]any:
		return "Value{Kind: StructValue}"
	}
	panic(fmt.Sprintf("default %#v of no known type", v))
}
