package qemuimg

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"
)

// image is the header of a qcow2 image as QEMU 10 lays it out: the fixed fields,
// then extensions, then the name of the backing file.
type image struct {
	version      uint32
	size         uint64
	crypt        uint32
	incompatible uint64
	extensions   []extension
	backing      string
}

type extension struct {
	kind uint32
	body string
}

const (
	backingFormat = 0xe2792aca
	dataFile      = 0x44415441
	luksHeader    = 0x0537be77
	featureTable  = 0x6803f857
)

// images are those the tests read, by name. A real image names its features in a
// table of 384 bytes, which a reader has to step over.
var images = map[string]image{
	"plain":   {version: 3, size: 10 << 30, extensions: []extension{{featureTable, strings.Repeat("f", 384)}}},
	"overlay": {version: 3, size: 20 << 30, extensions: []extension{{backingFormat, "qcow2"}, {featureTable, strings.Repeat("f", 384)}}, backing: "plain.qcow2"},
	"old":     {version: 2, size: 1 << 30, extensions: []extension{{backingFormat, "raw"}}, backing: "base.raw"},
	"datafile": {version: 3, size: 1 << 20, incompatible: 1 << 2, extensions: []extension{
		{dataFile, "data.raw"}, {featureTable, strings.Repeat("f", 384)},
	}},
	"luks": {version: 3, size: 1 << 20, crypt: 2, extensions: []extension{{luksHeader, strings.Repeat("l", 16)}}},
}

// bytes is the first KiB of the image.
func (i image) bytes() []byte {
	length := 112 // with the compression type, padded to 8
	if i.version == 2 {
		length = 72
	}
	b := make([]byte, length, 1024)
	copy(b, "QFI\xfb")
	be := binary.BigEndian
	be.PutUint32(b[4:], i.version)
	be.PutUint32(b[20:], 16) // clusters of 64 KiB
	be.PutUint64(b[24:], i.size)
	be.PutUint32(b[32:], i.crypt)
	if i.version > 2 {
		be.PutUint64(b[72:], i.incompatible)
		be.PutUint32(b[96:], 4) // 16-bit reference counts
		be.PutUint32(b[100:], uint32(length))
	}
	for _, e := range i.extensions {
		b = be.AppendUint32(b, e.kind)
		b = be.AppendUint32(b, uint32(len(e.body)))
		b = append(b, e.body...)
		b = append(b, make([]byte, -len(e.body)&7)...)
	}
	b = append(b, make([]byte, 8)...) // the end of the extensions
	if i.backing != "" {
		be.PutUint64(b[8:], uint64(len(b)))
		be.PutUint32(b[16:], uint32(len(i.backing)))
		b = append(b, i.backing...)
	}
	return b[:cap(b)]
}

func TestHeaders(t *testing.T) {
	for name, want := range map[string]struct {
		h      Header
		usable string
	}{
		"plain":    {Header{Size: 10 << 30, ClusterBits: 16}, ""},
		"overlay":  {Header{Size: 20 << 30, ClusterBits: 16, Backing: "plain.qcow2", BackingFormat: "qcow2"}, ""},
		"old":      {Header{Size: 1 << 30, ClusterBits: 16, Backing: "base.raw", BackingFormat: "raw"}, ""},
		"datafile": {Header{Size: 1 << 20, ClusterBits: 16, DataFile: true}, "another file"},
		"luks":     {Header{Size: 1 << 20, ClusterBits: 16, Encrypted: true}, "encrypted"},
	} {
		got, err := ReadHeader(bytes.NewReader(images[name].bytes()))
		if err != nil || got != want.h {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if err := got.Usable(); (err == nil) != (want.usable == "") || err != nil && !strings.Contains(err.Error(), want.usable) {
			t.Errorf("%s: usable: %v", name, err)
		}
	}
}

func TestBadHeaders(t *testing.T) {
	put32 := func(at int, v uint32) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint32(b[at:], v) }
	}
	put64 := func(at int, v uint64) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint64(b[at:], v) }
	}
	for name, spoil := range map[string]func([]byte){
		"magic": put32(0, 7), "version": put32(4, 4), "size": put64(24, 1<<63), "small clusters": put32(20, 8), "large clusters": put32(20, 22),
		"length": put32(100, 1<<20), "backing far away": put64(8, 1<<40), "long backing": put32(16, 1024), "backing wraps": put64(8, 1<<64-4),
		"backing not text": func(b []byte) { b[binary.BigEndian.Uint64(b[8:])] = 0xff }, "extension": put32(116, 1<<30),
		"unknown feature": put64(72, 1<<9), "corrupt": put64(72, 2), "backing elsewhere": func(b []byte) { copy(b[binary.BigEndian.Uint64(b[8:]):], "nbd:1") },
		"no format": put32(112, 1),
	} {
		b := images["overlay"].bytes()
		spoil(b)
		h, err := ParseHeader(b)
		if err == nil {
			err = h.Usable()
		}
		if err == nil {
			t.Errorf("%s: accepted as %+v", name, h)
		}
	}
	for n := range 104 {
		if _, err := ParseHeader(images["overlay"].bytes()[:n]); err == nil {
			t.Errorf("%d bytes are accepted", n)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	for _, name := range slices.Sorted(maps.Keys(images)) {
		f.Add(images[name].bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err == nil && (h.Size < 0 || len(h.Backing) > maxBacking || len(h.BackingFormat) > len(b)) {
			t.Errorf("%+v", h)
		}
	})
}
