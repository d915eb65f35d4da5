package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestEdit(t *testing.T) {
	const text = "# mine\nversion: 1\nhostname: a # the old name\nntp:\n  # nearest first\n  - t1.example\nemulation: allowed\n"
	for _, tt := range []struct {
		name, text string
		values     map[string]any
		want       string
	}{
		{"nothing", "", nil, "version: 1\n"},
		{"into the default", "", map[string]any{"hostname": "b"}, "version: 1\nhostname: b\n"},
		{"name", text, map[string]any{"hostname": "b"}, strings.Replace(text, "hostname: a", "hostname: b", 1)},
		{"number-like name", "", map[string]any{"hostname": "123"}, "version: 1\nhostname: \"123\"\n"},
		{"list", "version: 1\n", map[string]any{"ntp": []string{"x", "y"}}, "version: 1\nntp:\n  - x\n  - \"y\"\n"},
		{"no list", text, map[string]any{"ntp": []string{}}, "# mine\nversion: 1\nhostname: a # the old name\nemulation: allowed\n"},
		{"json", `{"version": 1, "hostname": "a"}`, map[string]any{"hostname": "b"}, "{\"version\": 1, \"hostname\": b}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Edit([]byte(tt.text), tt.values)
			if err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestEditRefuses(t *testing.T) {
	for name, err := range map[string]error{
		"a wrong value":    editError("version: 1\n", map[string]any{"hostname": "-"}),
		"an unknown key":   editError("version: 1\n", map[string]any{"host": "b"}),
		"a wrong document": editError("version: 2\n", map[string]any{"hostname": "b"}),
	} {
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func editError(text string, values map[string]any) error {
	_, err := Edit([]byte(text), values)
	return err
}

// TestEditKeepsTheRest: what is not edited means what it meant.
func TestEditKeepsTheRest(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		edited, err := Edit(text, map[string]any{"hostname": "edited"})
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		got, err := Parse(edited)
		want.Hostname = "edited"
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", f, got, err, want)
		}
	}
}

// FuzzEdit: what Edit returns is a document, with the name that was asked for.
func FuzzEdit(f *testing.F) {
	f.Add("version: 1\nhostname: a\n", "b")
	f.Add(`{"version": 1, "ntp": []}`, "1")
	f.Add("", "null")
	f.Fuzz(func(t *testing.T, text, name string) {
		edited, err := Edit([]byte(text), map[string]any{"hostname": name})
		if err != nil {
			return
		}
		doc, err := Parse(edited)
		if err != nil || doc.Hostname != name {
			t.Errorf("%q with %q became %q: %q, %v", text, name, edited, doc.Hostname, err)
		}
	})
}
