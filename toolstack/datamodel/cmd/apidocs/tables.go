package main

import (
	"bytes"
	"fmt"
	"strings"
)

func (w *writer) errorsPage() []byte {
	var b bytes.Buffer
	b.WriteString("# Errors\n\nAn error is a code and a list of strings.\n\n| code | parameters | |\n|---|---|---|\n")
	for _, e := range w.model.Errors {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", e.Code, cell(strings.Join(e.Params, ", ")), cell(w.errors[e.Code]))
	}
	return b.Bytes()
}

func (w *writer) enumsPage() []byte {
	var b bytes.Buffer
	b.WriteString("# Enumerations\n")
	for _, e := range w.model.Enums {
		words := w.enums[e.Name]
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", e.Name, words.Doc)
		for _, v := range e.Values {
			fmt.Fprintf(&b, "- `%s`: %s\n", v, words.Values[v])
		}
	}
	return b.Bytes()
}

func (w *writer) alertsPage() []byte {
	var b bytes.Buffer
	b.WriteString("# Alerts\n\nAn alert is an object of class [message](message.md); priority 1 is the gravest.\n\n| name | priority | |\n|---|---|---|\n")
	for _, a := range w.model.Alerts {
		fmt.Fprintf(&b, "| %s | %d | %s |\n", a.Name, a.Priority, cell(w.alerts[a.Name]))
	}
	return b.Bytes()
}

func (w *writer) streamsPage() []byte {
	var b bytes.Buffer
	b.WriteString("# Streams\n\nHTTP requests beside the messages. They authenticate by `session_id` (query or cookie) or HTTP Basic.\n\n| action | request | query | role | |\n|---|---|---|---|---|\n")
	for _, h := range w.model.HTTP {
		var args []string
		for _, a := range h.Args {
			args = append(args, a.Name)
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s | %s |\n", h.Action, strings.ToUpper(h.Method), cell(h.URI), strings.Join(args, ", "), h.MinRole, cell(w.http[h.Action]))
	}
	return b.Bytes()
}
