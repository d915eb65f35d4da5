package console

import (
	"bytes"
	"strings"
	"testing"
)

// hellos are what a viewer sends before its first message.
const hellos = "RFB 003.008\n\x01\x01"

func TestKeyboard(t *testing.T) {
	pixels := "\x00" + strings.Repeat("\x00", 19)
	encodings := "\x02\x00\x00\x02" + strings.Repeat("\x00", 8)
	request := "\x03" + strings.Repeat("\x00", 9)
	tests := []struct {
		name string
		send string // after a complete hello and formats
		want bool
	}{
		{"asks for pictures", request + request, false},
		{"asks for all of them", "\x96" + strings.Repeat("\x00", 9) + request, false},
		{"a fence", "\xf8\x00\x00\x00\x00\x00\x00\x00\x03abc" + request, false},
		{"another size", "\xfb\x00\x00\x10\x00\x10\x01\x00" + strings.Repeat("\x00", 16) + request, false},
		{"sound", "\xff\x01\x00\x00" + "\xff\x01\x00\x02\x01\x02\x00\x00\x00\x01" + request, false},
		{"a key", request + "\x04\x01\x00\x00\x00\x00\x00\x61", true},
		{"a key and its place", "\xff\x00\x00\x01\x00\x00\x00\x61\x00\x00\x00\x1e", true},
		{"the pointer", "\x05\x00\x00\x01\x00\x01", true},
		{"pasted text", "\x06\x00\x00\x00\x00\x00\x00\x05hello", true},
		{"what nobody knows", "\xc8", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := &keyboard{}
			if !k.read([]byte(hellos)) {
				t.Error("one who comes is not seen")
			}
			if k.read([]byte(pixels + encodings)) {
				t.Error("formats count as input")
			}
			if got := k.read([]byte(tt.send)); got != tt.want {
				t.Errorf("somebody is there: %t", got)
			}
			if k.lost != strings.Contains(tt.name, "nobody") {
				t.Errorf("lost: %t", k.lost)
			}
		})
	}
}

// TestKeyboardPasses what lies inside of longer messages.
func TestKeyboardPasses(t *testing.T) {
	k := &keyboard{}
	k.read([]byte("RFB 003.003\n\x01"))
	k.read([]byte("\x06\x00\x00\x00\x00\x00\x00\x08\x04\x04\x04"))
	if k.read([]byte("\x04\x04\x04\x04\x04")) {
		t.Error("pasted bytes are taken for keys")
	}
	if k.read([]byte("\x03" + strings.Repeat("\x04", 9))) {
		t.Error("a place on the screen is taken for a key")
	}
	if !k.read([]byte("\x04")) || k.lost {
		t.Error("the key is not seen")
	}
}

// FuzzKeyboard: whatever is sent, in whatever pieces, nothing is remembered beyond a
// few bytes, and pieces make no difference.
func FuzzKeyboard(f *testing.F) {
	f.Add([]byte(hellos+"\x04\x01\x00\x00\x00\x00\x00\x61"), 3)
	f.Add([]byte(hellos+"\x06\x00\x00\x00\x80\x00\x00\x00abc"), 1)
	f.Add([]byte("RFB 003.007\n\x02"), 12)
	f.Add([]byte(hellos+"\xff\x01\x00\x02\x01\x02\x00\x00\x00\x01\xfb\x00\x00\x10\x00\x10\xff\x00"), 5)
	f.Fuzz(func(t *testing.T, p []byte, size int) {
		if size < 1 {
			return
		}
		whole, pieces := &keyboard{}, &keyboard{}
		want, got := whole.read(p), false
		for chunk := range chunks(p, size) {
			got = pieces.read(chunk) || got
		}
		if len(p) > 0 && got != want || whole.lost != pieces.lost || whole.skip != pieces.skip || !bytes.Equal(whole.piece, pieces.piece) {
			t.Errorf("in one %+v (%t), in pieces %+v (%t)", whole, want, pieces, got)
		}
		if cap(whole.piece) > 4*headLimit || whole.skip < 0 || whole.want > headLimit {
			t.Errorf("remembers %+v", whole)
		}
	})
}

func chunks(p []byte, size int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			n := min(size, len(p))
			if !yield(p[:n]) {
				return
			}
			p = p[n:]
		}
	}
}
