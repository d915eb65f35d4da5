package text_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"cairn/toolstack/datamodel"
	"cairn/toolstack/datamodel/text"
)

func model(t *testing.T) *datamodel.Model {
	t.Helper()
	m, err := datamodel.Load()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// sentence reports whether a text can stand in the reference as it is.
func sentence(s string) bool {
	return len(s) > 3 && strings.HasSuffix(s, ".") && s == strings.TrimSpace(s)
}

func TestEveryClassFieldAndMessageIsDescribed(t *testing.T) {
	for _, c := range model(t).Classes {
		words, err := text.OfClass(c.Name)
		if err != nil {
			t.Error(err)
			continue
		}
		if !sentence(words.Doc) {
			t.Errorf("%s: %q", c.Name, words.Doc)
		}
		for _, f := range c.Fields {
			if !sentence(words.Fields[f.Name]) {
				t.Errorf("%s.%s: %q", c.Name, f.Name, words.Fields[f.Name])
			}
		}
		for _, m := range c.Messages {
			if m.State != datamodel.StateRemoved && !sentence(words.Messages[m.Name].Doc) {
				t.Errorf("%s.%s: %q", c.Name, m.Name, words.Messages[m.Name].Doc)
			}
		}
		checkNames(t, c, words)
	}
}

// checkNames finds words about what does not exist.
func checkNames(t *testing.T, c *datamodel.Class, words *text.Class) {
	for name := range words.Fields {
		if c.Field(name) == nil {
			t.Errorf("%s has no field %s", c.Name, name)
		}
	}
	for name, m := range words.Messages {
		i := slices.IndexFunc(c.Messages, func(m *datamodel.Message) bool { return m.Name == name })
		if i < 0 {
			t.Errorf("%s has no explicit message %s", c.Name, name)
			continue
		}
		for p := range m.Params {
			if !slices.ContainsFunc(c.Messages[i].Params, func(q *datamodel.Param) bool { return q.Name == p }) {
				t.Errorf("%s.%s has no parameter %s", c.Name, name, p)
			}
		}
	}
}

func TestEveryEnumeratedValueIsDescribed(t *testing.T) {
	words, err := text.Enums()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range model(t).Enums {
		if !sentence(words[e.Name].Doc) {
			t.Errorf("%s: %q", e.Name, words[e.Name].Doc)
		}
		for _, v := range e.Values {
			if words[e.Name].Values[v] == "" {
				t.Errorf("%s: no words for %q", e.Name, v)
			}
		}
	}
}

var brace = regexp.MustCompile(`\{([^}]*)\}`)

func TestEveryErrorAlertAndStreamIsDescribed(t *testing.T) {
	errors, err1 := text.Errors()
	alerts, err2 := text.Alerts()
	streams, err3 := text.HTTP()
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	m := model(t)
	for _, e := range m.Errors {
		if !sentence(errors[e.Code]) {
			t.Errorf("%s: %q", e.Code, errors[e.Code])
		}
		for _, found := range brace.FindAllStringSubmatch(errors[e.Code], -1) {
			if !slices.Contains(e.Params, found[1]) {
				t.Errorf("%s has no parameter %q", e.Code, found[1])
			}
		}
	}
	for _, a := range m.Alerts {
		if !sentence(alerts[a.Name]) {
			t.Errorf("alert %s: %q", a.Name, alerts[a.Name])
		}
	}
	for _, h := range m.HTTP {
		if !sentence(streams[h.Action]) {
			t.Errorf("action %s: %q", h.Action, streams[h.Action])
		}
	}
}

func TestSentenceFillsParameters(t *testing.T) {
	got := text.Sentence("Expected {expected}, found {actual} of {vm}.", []string{"vm", "expected", "actual"}, []string{"v1", "running"})
	if want := "Expected running, found {actual} of v1."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
