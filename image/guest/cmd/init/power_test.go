package main

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func event(kind, code uint16, value uint32) []byte {
	b := make([]byte, inputEvent)
	binary.LittleEndian.PutUint16(b[16:], kind)
	binary.LittleEndian.PutUint16(b[18:], code)
	binary.LittleEndian.PutUint32(b[20:], value)
	return b
}

func TestWatchKeys(t *testing.T) {
	press := event(evKey, keyPower, 1)
	for name, c := range map[string]struct {
		stream []byte
		off    bool
	}{
		"press":            {press, true},
		"release only":     {event(evKey, keyPower, 0), false},
		"another key":      {event(evKey, 30, 1), false},
		"another kind":     {event(0, keyPower, 1), false},
		"press after sync": {append(event(0, 0, 0), press...), true},
		"cut short":        {press[:20], false},
		"pressed twice":    {append(press, press...), true},
	} {
		t.Run(name, func(t *testing.T) {
			off := make(chan string, 1)
			watchKeys(bytes.NewReader(c.stream), off)
			if got := len(off) == 1; got != c.off {
				t.Errorf("powers off: %v, want %v", got, c.off)
			}
		})
	}
}
