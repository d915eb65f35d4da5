package main

import (
	"bytes"
	"fmt"
	"strings"

	dm "cairn/toolstack/datamodel"
)

// bindable reports whether a message gets a typed form of binding behaviour:
// what is written by hand, and constructors and destructors.
func bindable(m message) bool {
	if m.State == dm.StateRemoved {
		return false
	}
	switch m.Implicit {
	case dm.OpExplicit, dm.OpCreate, dm.OpDestroy:
		return true
	}
	return false
}

func (g *generator) handlers(b *bytes.Buffer) {
	b.WriteString("import \"time\"\n\n")
	for id, m := range g.messages {
		if bindable(m) {
			g.handler(b, id, m)
		}
	}
}

// handler writes the function that binds typed behaviour to one message.
func (g *generator) handler(b *bytes.Buffer, id int, m message) {
	name := "Handle" + exported(m.class.Name) + exported(m.Name)
	var names, wire []string
	for _, p := range m.Params {
		names, wire = append(names, p.Name), append(wire, p.Name)
	}
	names = uniqueLocals(names)
	signature, call := "c *Call", "c"
	var decode strings.Builder
	for i, p := range m.Params {
		signature += fmt.Sprintf(", %s %s", names[i], goType(p.Type))
		call += fmt.Sprintf(", p%d", i)
		value := argument(p.Type, i)
		if m.Implicit == dm.OpCreate {
			value = "arg(&a, 0, constructRecord[" + exported(m.class.Name) + "])"
		}
		fmt.Fprintf(&decode, "p%d := %s\n", i, value)
	}
	fmt.Fprintf(b, "// %s binds %s(%s).\n", name, m.method(), strings.Join(wire, ", "))
	fmt.Fprintf(b, "func %s(r *Registry, f func(%s) %s) {\n", name, signature, results(m))
	fmt.Fprintf(b, "r.bind(%d, func(c *Call, args []Value) (Result, error) {\n", id)
	if len(m.Params) > 0 {
		fmt.Fprintf(b, "a := arguments{message: %d, values: args}\n%sif a.err != nil {\nreturn nil, a.err\n}\n", id, decode.String())
	}
	switch {
	case m.Result == nil:
		fmt.Fprintf(b, "return answer(Void{}, f(%s))\n", call)
	case opaque(m.Result):
		fmt.Fprintf(b, "return f(%s)\n", call)
	default:
		fmt.Fprintf(b, "v, err := f(%s)\nreturn %s\n", call, answer(m.Result))
	}
	b.WriteString("})\n}\n\n")
}

func results(m message) string {
	switch {
	case m.Result == nil:
		return "error"
	case opaque(m.Result):
		return "(Result, error)"
	}
	return "(" + goType(m.Result) + ", error)"
}
