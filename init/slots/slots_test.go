package slots

import (
	"strings"
	"testing"
)

const sample = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210"

func TestPartUUIDs(t *testing.T) {
	root, hash, err := PartUUIDs(sample)
	if err != nil {
		t.Fatal(err)
	}
	if want := "00112233-4455-6677-8899-aabbccddeeff"; root != want {
		t.Errorf("root = %s, want %s", root, want)
	}
	if want := "01234567-89ab-cdef-fedc-ba9876543210"; hash != want {
		t.Errorf("hash = %s, want %s", hash, want)
	}
}

func TestPartUUIDsRefuses(t *testing.T) {
	for _, bad := range []string{"", "00", sample + "00", strings.Repeat("g", 64), sample[:63] + " "} {
		if _, _, err := PartUUIDs(bad); err == nil {
			t.Errorf("PartUUIDs(%q) accepted", bad)
		}
	}
}

func TestNames(t *testing.T) {
	cases := []struct {
		name string
		slot Slot
		ok   bool
	}{
		{"root_A", A, true}, {"hash_A", A, true}, {"root_B", B, true}, {"hash_B", B, true},
		{"ESP", "", false}, {"root_C", "", false}, {"", "", false}, {"root_", "", false},
	}
	for _, c := range cases {
		if got, ok := OfName(c.name); got != c.slot || ok != c.ok {
			t.Errorf("OfName(%q) = %q, %v; want %q, %v", c.name, got, ok, c.slot, c.ok)
		}
	}
	if A.Other() != B || B.Other() != A {
		t.Error("Other does not swap the slots")
	}
}

func TestFind(t *testing.T) {
	root, hash, err := PartUUIDs(sample)
	if err != nil {
		t.Fatal(err)
	}
	other := "ffffffff-ffff-ffff-ffff-ffffffffffff"
	cases := []struct {
		about string
		disk  []Partition
		slot  Slot
		ok    bool
	}{
		{"empty", nil, "", false},
		{"slot A", []Partition{{"root_A", root}, {"hash_A", hash}, {"root_B", other}, {"hash_B", other}}, A, true},
		{"slot B, upper case", []Partition{{"root_A", other}, {"root_B", strings.ToUpper(root)}, {"hash_B", hash}}, B, true},
		{"no hash tree", []Partition{{"root_A", root}}, "", false},
		{"halves in two slots", []Partition{{"root_A", root}, {"hash_B", hash}}, "", false},
		{"another image", []Partition{{"root_A", other}, {"hash_A", other}}, "", false},
	}
	for _, c := range cases {
		t.Run(c.about, func(t *testing.T) {
			if got, ok := Find(c.disk, sample); got != c.slot || ok != c.ok {
				t.Errorf("Find = %q, %v; want %q, %v", got, ok, c.slot, c.ok)
			}
		})
	}
	if _, ok := Find(nil, "short"); ok {
		t.Error("Find accepted a hash that is not one")
	}
}

func FuzzPartUUIDs(f *testing.F) {
	f.Add(sample)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		root, hash, err := PartUUIDs(text)
		if err != nil {
			return
		}
		joined := strings.ReplaceAll(root+hash, "-", "")
		if !strings.EqualFold(joined, text) {
			t.Errorf("PartUUIDs(%q) = %s, %s", text, root, hash)
		}
	})
}
