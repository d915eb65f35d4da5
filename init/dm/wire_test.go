package dm

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestCommandNumbers(t *testing.T) {
	// The values of linux/dm-ioctl.h, as strace prints them.
	cases := map[Command]uintptr{
		Version: 0xc138fd00, Create: 0xc138fd03, Remove: 0xc138fd04, Suspend: 0xc138fd06,
		Status: 0xc138fd07, Load: 0xc138fd09, TableDeps: 0xc138fd0b, TableStatus: 0xc138fd0c,
	}
	for cmd, want := range cases {
		if got := cmd.number(); got != want {
			t.Errorf("%v = %#x, want %#x", cmd, got, want)
		}
	}
}

func TestEncodeHeader(t *testing.T) {
	buf, err := header{targets: 1, flags: flagReadOnly, dev: 0x0102, name: "root", uuid: "u-1"}.encode([]byte("pay"), 320)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 320)
	copy(want, unhex(t, "04000000 00000000 00000000 40010000 38010000 01000000 00000000 01000000 00000000 00000000 0201000000000000"))
	copy(want[48:], "root")
	copy(want[176:], "u-1")
	copy(want[312:], "pay")
	if !bytes.Equal(buf, want) {
		t.Errorf("header:\n%s\nwant:\n%s", hex.Dump(buf), hex.Dump(want))
	}
	for _, h := range []header{{name: strings.Repeat("n", 128)}, {uuid: strings.Repeat("u", 129)}} {
		if _, err := h.encode(nil, 0); err == nil {
			t.Error("a name without room for its NUL was accepted")
		}
	}
}

func TestEncodeTargets(t *testing.T) {
	got, err := encodeTargets([]Target{
		{Start: 0, Length: 16, Type: "linear", Params: "8:1 0"},
		{Start: 16, Length: 8, Type: "zero"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := unhex(t, `
		0000000000000000 1000000000000000 00000000 30000000 6c696e65617200000000000000000000
		383a312030000000
		1000000000000000 0800000000000000 00000000 30000000 7a65726f000000000000000000000000
		0000000000000000`)
	if !bytes.Equal(got, want) {
		t.Errorf("targets:\n%s\nwant:\n%s", hex.Dump(got), hex.Dump(want))
	}
	if _, err := encodeTargets([]Target{{Type: strings.Repeat("t", 16)}}); err == nil {
		t.Error("a target type without room for its NUL was accepted")
	}
}

func TestDecodeTargetsRefuses(t *testing.T) {
	one, err := encodeTargets([]Target{{Length: 1, Type: "zero"}})
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		about   string
		payload []byte
		count   uint32
	}{
		{"empty payload", nil, 1},
		{"cut short", one[:39], 1},
		{"too many", one, maxTargets + 1},
		{"next out of range", one, 2},
	}
	for _, c := range cases {
		if _, err := decodeTargets(c.payload, c.count); err == nil {
			t.Errorf("%s: accepted", c.about)
		}
	}
}

func FuzzDecode(f *testing.F) {
	buf, err := header{targets: 1, name: "root"}.encode(make([]byte, 64), 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(buf)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, err := decodeHeader(b)
		if err != nil {
			return
		}
		if table, err := decodeTargets(payload, h.targets); err == nil && len(table) > maxTargets {
			t.Errorf("%d targets", len(table))
		}
		if deps, err := decodeDeps(payload); err == nil && len(deps) > len(b)/8 {
			t.Errorf("%d dependencies of %d bytes", len(deps), len(b))
		}
	})
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
