package datamodel

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func loaded(t testing.TB) *Model {
	t.Helper()
	m, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The derived messages must be exactly those the surface lists as implicit,
// with their parameters, results, roles and states.
func TestImplicitMessagesEqualTheSurface(t *testing.T) {
	var got []string
	for _, c := range loaded(t).Classes {
		for _, m := range c.Implicit() {
			line := m.Signature(c.Name)
			if m.Implicit == OpCreate {
				if required := requiredFields(c); required != "" {
					line += " | " + required
				} else {
					line += " | "
				}
			}
			got = append(got, line)
		}
	}
	slices.Sort(got)
	text, err := os.ReadFile("testdata/implicit.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	slices.Sort(want)
	for _, line := range want {
		if _, ok := slices.BinarySearch(got, line); !ok {
			t.Errorf("not derived: %s", line)
		}
	}
	for _, line := range got {
		if _, ok := slices.BinarySearch(want, line); !ok {
			t.Errorf("derived but not in the surface: %s", line)
		}
	}
}

func requiredFields(c *Class) string {
	var names []string
	for _, f := range c.Fields {
		if f.Required() {
			names = append(names, f.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestCountsOfTheSurface(t *testing.T) {
	m := loaded(t)
	classes, fields, messages, hidden, live := 0, 0, 0, 0, 0
	for _, c := range m.Classes {
		if c.State != StateHidden {
			classes++
		}
		fields += len(c.Fields)
		for _, msg := range c.AllMessages() {
			switch {
			case msg.Hidden:
				hidden++
			default:
				messages++
				if msg.State != StateRemoved {
					live++
				}
			}
		}
	}
	got := []int{classes, fields, messages, hidden, len(m.Enums), len(m.Errors), len(m.HTTP)}
	want := []int{72, 922, 2007, 251, 74, 635, 57}
	if !slices.Equal(got, want) {
		t.Errorf("classes, fields, messages, hidden, enums, errors, handlers = %v, want %v (live %d)", got, want, live)
	}
}

func TestParseType(t *testing.T) {
	for _, s := range []string{
		"string", "int", "VM ref", "VM ref set", "enum vm_operations set", "(string -> string) map",
		"(VM ref -> (string -> string) map) map", "string set set", "sr_stat record option", "an event batch",
		"<class> record", "(int -> string set) map",
	} {
		typ, err := ParseType(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
		} else if typ.String() != s {
			t.Errorf("%s came back as %s", s, typ)
		}
	}
	for _, s := range []string{
		"", "ref", "VM", "VM ref ref", "(string) map", "(string -> string", "(string -> string) set", "enum", "enum 4x",
		"set", "VM record map", "string string", strings.Repeat("(string -> ", 40) + "int" + strings.Repeat(") map", 40),
	} {
		if typ, err := ParseType(s); err == nil {
			t.Errorf("%q was taken for %s", s, typ)
		}
	}
}

func FuzzParseType(f *testing.F) {
	f.Add("(VM ref -> (string -> enum vm_operations set) map) map")
	f.Add("string option set")
	f.Fuzz(func(t *testing.T, s string) {
		typ, err := ParseType(s)
		if err != nil {
			return
		}
		again, err := ParseType(typ.String())
		if err != nil || again.String() != typ.String() {
			t.Errorf("%q → %q → %v, %v", s, typ, again, err)
		}
	})
}
