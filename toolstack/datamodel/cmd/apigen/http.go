package main

import (
	"bytes"
	"fmt"
)

// http writes the table of the streams beside the RPC endpoints. A use of a
// stream that needs a role of its own has no path.
func (g *generator) http(b *bytes.Buffer) {
	b.WriteString("var httpActions = [...]HTTPAction{\n")
	seen := map[string]bool{}
	for _, h := range g.model.HTTP {
		fmt.Fprintf(b, "{Name: %q, Method: %q, Path: %q, Role: %q, Checked: %v},\n", h.Action, h.Method, h.URI, h.MinRole, h.RoleInHTTP)
		for _, s := range h.SubActions {
			if !seen[s.Action] {
				seen[s.Action] = true
				fmt.Fprintf(b, "{Name: %q, Role: %q, Checked: true},\n", s.Action, s.MinRole)
			}
		}
	}
	b.WriteString("}\n")
}

// alerts writes the priorities of the alerts the toolstack raises by itself.
func (g *generator) alerts(b *bytes.Buffer) {
	b.WriteString("var alertPriorities = map[string]int64{\n")
	for _, a := range g.model.Alerts {
		fmt.Fprintf(b, "%q: %d,\n", a.Name, a.Priority)
	}
	b.WriteString("}\n")
}
