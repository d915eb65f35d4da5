package dm

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// sampleSuperblock is what `veritysetup format` writes for the given image.
func sampleSuperblock(blocks uint64, salt []byte) []byte {
	b := make([]byte, SuperblockSize)
	copy(b, verityMagic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], 1)
	le.PutUint32(b[12:], 1)
	copy(b[16:], bytes.Repeat([]byte{0xab}, 16))
	copy(b[32:], "sha256")
	le.PutUint32(b[64:], 4096)
	le.PutUint32(b[68:], 4096)
	le.PutUint64(b[72:], blocks)
	le.PutUint16(b[80:], uint16(len(salt)))
	copy(b[88:], salt)
	return b
}

func TestVerityTarget(t *testing.T) {
	cases := []struct {
		about   string
		salt    []byte
		options []string
		params  string
	}{
		{"salted", []byte{1, 2}, nil, "1 8:2 8:3 4096 4096 1000 1 sha256 cafe 0102"},
		{"no salt, restart", nil, []string{RestartOnCorruption}, "1 8:2 8:3 4096 4096 1000 1 sha256 cafe - 1 restart_on_corruption"},
	}
	for _, c := range cases {
		t.Run(c.about, func(t *testing.T) {
			s, err := ReadSuperblock(bytes.NewReader(sampleSuperblock(1000, c.salt)))
			if err != nil {
				t.Fatal(err)
			}
			got := s.Target("8:2", "8:3", "cafe", c.options...)
			if want := (Target{Length: 8000, Type: "verity", Params: c.params}); got != want {
				t.Errorf("target = %+v, want %+v", got, want)
			}
		})
	}
}

func TestSuperblockSizes(t *testing.T) {
	// Tree sizes as `veritysetup format` made them, superblock included.
	cases := []struct{ blocks, tree uint64 }{{1, 1}, {2, 2}, {128, 2}, {129, 4}, {16384, 130}, {16385, 133}}
	for _, c := range cases {
		s, err := ParseSuperblock(sampleSuperblock(c.blocks, nil))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.TreeSize(); got != c.tree*4096 {
			t.Errorf("%d blocks: tree of %d blocks, want %d", c.blocks, got/4096, c.tree)
		}
		if err := s.Check(c.blocks*4096, c.tree*4096); err != nil {
			t.Errorf("%d blocks: exact fit refused: %v", c.blocks, err)
		}
		if s.Check(c.blocks*4096-1, c.tree*4096) == nil || s.Check(c.blocks*4096, c.tree*4096-1) == nil {
			t.Errorf("%d blocks: a device that is too small was accepted", c.blocks)
		}
	}
}

func TestParseSuperblockRefuses(t *testing.T) {
	cases := []struct {
		about string
		edit  func(b []byte)
	}{
		{"no signature", func(b []byte) { b[0] = 'V' }},
		{"version 2", func(b []byte) { b[8] = 2 }},
		{"hash type 0", func(b []byte) { b[12] = 0 }},
		{"weak digest", func(b []byte) { copy(b[32:], "crc32\x00") }},
		{"salt too long", func(b []byte) { b[81] = 2 }},
		{"odd block size", func(b []byte) { b[64] = 1 }},
		{"huge block size", func(b []byte) { b[71] = 0x80 }},
		{"no data", func(b []byte) { clear(b[72:80]) }},
		{"absurd data", func(b []byte) { b[79] = 0xff }},
	}
	for _, c := range cases {
		b := sampleSuperblock(10, nil)
		c.edit(b)
		if _, err := ParseSuperblock(b); err == nil {
			t.Errorf("%s: accepted", c.about)
		}
	}
	if _, err := ReadSuperblock(strings.NewReader("short")); err == nil {
		t.Error("a device of five bytes was accepted")
	}
}

func FuzzParseSuperblock(f *testing.F) {
	f.Add(sampleSuperblock(1000, []byte{1, 2, 3}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSuperblock(b)
		if err != nil {
			return
		}
		if s.TreeSize() < SuperblockSize || s.DataSize() == 0 {
			t.Errorf("accepted %+v: tree %d, data %d", s, s.TreeSize(), s.DataSize())
		}
		if target := s.Target("8:1", "8:2", "00"); strings.ContainsAny(target.Params, "\x00\n") {
			t.Errorf("parameters %q", target.Params)
		}
	})
}
