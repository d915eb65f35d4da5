package event

import (
	"strings"
	"testing"
)

func FuzzParseToken(f *testing.F) {
	for _, seed := range []string{"", "00000000000000000007,00000000000000000001", "1,2,3", "1", ",", "-1,0", "18446744073709551616,0", "+1,1", "1_0,1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := ParseToken(token.String())
		if err != nil || again != token || len(token.String()) != 41 {
			t.Errorf("%q → %v → %v, %v", s, token, again, err)
		}
	})
}

func TestParseSubscription(t *testing.T) {
	for _, c := range []struct {
		entries          string
		vm, ref, network bool // wants any VM, the VM r, any network
		tasksOnly, bad   bool
	}{
		{entries: "*", vm: true, ref: true, network: true},
		{entries: "VM", vm: true, ref: true},
		{entries: "vm", vm: true, ref: true},
		{entries: "Vm/OpaqueRef:r", ref: true},
		{entries: "vm/OpaqueRef:R"},
		{entries: "vm/OpaqueRef:r network", ref: true, network: true},
		{entries: "TASK task/OpaqueRef:r", tasksOnly: true},
		{entries: "task vm", vm: true, ref: true},
		{entries: "session nonsense"},
		{entries: ""},
		{entries: "*/OpaqueRef:r"},
		{entries: "/", bad: true},
		{entries: "vm/", bad: true},
		{entries: "/OpaqueRef:r", bad: true},
		{entries: "vm a/b/c", bad: true},
	} {
		s, err := parseSubscription(strings.Fields(c.entries))
		if c.bad != (err != nil) {
			t.Errorf("%q: %v", c.entries, err)
		}
		if err != nil {
			continue
		}
		got := c
		got.vm, got.ref = s.object(vmClass, "OpaqueRef:q"), s.object(vmClass, "OpaqueRef:r")
		got.network, got.tasksOnly = s.object(networkClass, "OpaqueRef:r"), s.tasksOnly()
		if got != c {
			t.Errorf("%q: %+v, want %+v", c.entries, got, c)
		}
		if s.class(sessionClass) || s.object(sessionClass, "OpaqueRef:r") {
			t.Errorf("%q subscribes to sessions", c.entries)
		}
	}
	if _, err := parseSubscription([]string{""}); err == nil {
		t.Error("an empty entry is taken")
	}
}

// FuzzParseSubscription: what is understood does not depend on the case of the
// classes or the order of the entries, and wanting an object needs an entry for
// it.
func FuzzParseSubscription(f *testing.F) {
	for _, seed := range []string{"*", "vm\nNetwork", "vm/OpaqueRef:r", "//", "vm/\n*", "İ/x", "\xff/\xfe"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		entries := strings.Split(text, "\n")
		s, err := parseSubscription(entries)
		if err != nil {
			return
		}
		var normals []string
		for i := len(entries) - 1; i >= 0; i-- {
			normals = append(normals, normal(entries[i]))
		}
		again, err := parseSubscription(normals)
		if err != nil {
			t.Fatalf("%q: %v", normals, err)
		}
		for _, c := range []string{"OpaqueRef:r", "OpaqueRef:q"} {
			if s.object(vmClass, c) != again.object(vmClass, c) || s.tasksOnly() != again.tasksOnly() || s.class(vmClass) != again.class(vmClass) {
				t.Errorf("%q and %q differ", entries, normals)
			}
		}
		if s.object(vmClass, "OpaqueRef:r") && !s.class(vmClass) {
			t.Errorf("%q wants an object of a class it does not want", entries)
		}
	})
}
