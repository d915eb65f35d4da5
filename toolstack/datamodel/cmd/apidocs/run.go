package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cairn/toolstack/datamodel"
	"cairn/toolstack/datamodel/text"
)

type config struct{ out, coverage string }

func run(cfg config) error {
	w, err := newWriter(cfg.coverage)
	if err != nil {
		return err
	}
	pages, err := w.pages()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.out, 0o755); err != nil {
		return err
	}
	for name, page := range pages {
		if err := os.WriteFile(filepath.Join(cfg.out, name+".md"), page, 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("%d pages in %s; begin with index.md\n", len(pages), cfg.out)
	return nil
}

// writer holds what the pages are made from.
type writer struct {
	model  *datamodel.Model
	built  map[string]bool
	enums  map[string]text.Enum
	errors map[string]string
	alerts map[string]string
	http   map[string]string
}

func newWriter(coverage string) (*writer, error) {
	w := &writer{built: map[string]bool{}}
	list, err := os.ReadFile(coverage)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		method, _, _ := strings.Cut(line, " ")
		w.built[method] = true
	}
	if w.model, err = datamodel.Load(); err != nil {
		return nil, err
	}
	if w.enums, err = text.Enums(); err != nil {
		return nil, err
	}
	if w.errors, err = text.Errors(); err != nil {
		return nil, err
	}
	if w.alerts, err = text.Alerts(); err != nil {
		return nil, err
	}
	w.http, err = text.HTTP()
	return w, err
}

// pages returns the text of each page by its name.
func (w *writer) pages() (map[string][]byte, error) {
	pages := map[string][]byte{
		"errors": w.errorsPage(), "enums": w.enumsPage(), "alerts": w.alertsPage(), "streams": w.streamsPage(),
	}
	var index bytes.Buffer
	index.WriteString(`# The management API

Every class below has objects, or is a name for messages. Clients send messages by XML-RPC (` + "`POST /`" + `) or JSON-RPC
(` + "`POST /jsonrpc`" + `), first ` + "`session.login_with_password`" + `, then with the session as first parameter. A message
marked *async* may be sent as ` + "`Async.<class>.<message>`" + ` and answers a task. See also [errors](errors.md),
[enumerations](enums.md), [alerts](alerts.md) and [streams](streams.md).

| class | |
|---|---|
`)
	for _, c := range w.model.Classes {
		words, err := text.OfClass(c.Name)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&index, "| [%s](%s.md) | %s%s |\n", c.Name, c.Name, cell(words.Doc), stage(c.State))
		pages[c.Name] = w.classPage(c, words)
	}
	pages["index"] = index.Bytes()
	return pages, nil
}

// stage marks what is not simply published.
func stage(state string) string {
	if state == datamodel.StatePublished {
		return ""
	}
	return " *(" + state + ")*"
}

// cell makes a text fit into a table.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s) }
