package config

import (
	"bytes"
	"strings"
	"testing"
)

// structure builds an SMBIOS structure with a fixed part of n bytes.
func structure(kind byte, n int, strs ...string) []byte {
	b := make([]byte, n)
	b[0], b[1] = kind, byte(n)
	if len(strs) == 0 {
		return append(b, 0, 0)
	}
	return append(b, strings.Join(strs, "\x00")+"\x00\x00"...)
}

func TestFromSMBIOS(t *testing.T) {
	end := structure(127, 4)
	doc := structure(11, 5, "vendor string", "cairn.config:version: 1\nhostname: a\n")
	for _, c := range []struct {
		name  string
		table []byte
		want  string
		ok    bool
	}{
		{"empty", nil, "", false},
		{"only others", bytes.Join([][]byte{structure(1, 27, "QEMU"), end}, nil), "", false},
		{"found behind others", bytes.Join([][]byte{structure(0, 24, "b", "v"), structure(17, 40), doc, end}, nil), "version: 1\nhostname: a\n", true},
		{"behind the end", bytes.Join([][]byte{end, doc}, nil), "", false},
		{"second string set", bytes.Join([][]byte{structure(11, 5, "other"), doc, end}, nil), "version: 1\nhostname: a\n", true},
		{"same text in another type", bytes.Join([][]byte{structure(1, 27, "cairn.config:x"), end}, nil), "", false},
		{"truncated string", doc[:len(doc)-10], "", false},
		{"length below header", []byte{11, 2, 0, 0, 'x', 0, 0}, "", false},
		{"length beyond table", []byte{11, 200, 0, 0, 'x', 0, 0}, "", false},
	} {
		got, ok := FromSMBIOS(c.table)
		if ok != c.ok || string(got) != c.want {
			t.Errorf("%s: got %q, %v", c.name, got, ok)
		}
	}
}

func FuzzFromSMBIOS(f *testing.F) {
	f.Add(bytes.Join([][]byte{structure(0, 24, "b"), structure(11, 5, "a", "cairn.config:version: 1"), structure(127, 4)}, nil))
	f.Add([]byte{11, 5, 0, 0, 1})
	f.Fuzz(func(t *testing.T, table []byte) {
		if text, ok := FromSMBIOS(table); ok && !bytes.Contains(table, append([]byte(smbiosPrefix), text...)) {
			t.Fatalf("made up %q", text)
		}
	})
}
