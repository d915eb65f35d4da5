package nbd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

type reply struct{ b []byte }

func (r *reply) chunk(flags, kind uint16, cookie uint64, data ...[]byte) *reply {
	all := bytes.Join(data, nil)
	r.b = binary.BigEndian.AppendUint32(r.b, magicStructured)
	r.b = binary.BigEndian.AppendUint16(r.b, flags)
	r.b = binary.BigEndian.AppendUint16(r.b, kind)
	r.b = binary.BigEndian.AppendUint64(r.b, cookie)
	r.b = binary.BigEndian.AppendUint32(r.b, uint32(len(all)))
	r.b = append(r.b, all...)
	return r
}

func (r *reply) simple(number uint32, cookie uint64) *reply {
	r.b = binary.BigEndian.AppendUint32(r.b, magicSimple)
	r.b = binary.BigEndian.AppendUint32(r.b, number)
	r.b = binary.BigEndian.AppendUint64(r.b, cookie)
	return r
}

func n64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
func n32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func n16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// listen reads replies to a read of 16 bytes at 4096 (1), a write (2), and a question
// for the status of 1 MiB (3), to the first error.
func listen(b []byte, structured bool) (calls []*call, err error) {
	calls = []*call{
		{kind: cmdRead, off: 4096, length: 16, buf: make([]byte, 16), left: 16},
		{kind: cmdWrite, off: 0, length: 512},
		{kind: cmdStatus, off: 0, length: 1 << 20},
	}
	open := map[uint64]*call{1: calls[0], 2: calls[1], 3: calls[2]}
	r := replies{in: bufio.NewReader(bytes.NewReader(b)), structured: structured, find: func(c uint64) *call { return open[c] }}
	for {
		cookie, complete, err := r.next()
		if err != nil {
			return calls, err
		}
		if complete {
			delete(open, cookie)
		}
	}
}

// TestLies: what does not fit the request ends the connection.
func TestLies(t *testing.T) {
	data := make([]byte, 16)
	for name, r := range map[string]*reply{
		"noise":            {bytes.Repeat([]byte("x"), 64)},
		"nobody asked":     new(reply).simple(0, 9),
		"twice":            new(reply).simple(0, 2).simple(0, 2),
		"simple read":      new(reply).simple(0, 1),
		"simple status":    new(reply).simple(0, 3),
		"before it":        new(reply).chunk(1, chunkData, 1, n64(4095), data),
		"behind it":        new(reply).chunk(1, chunkData, 1, n64(4097), data),
		"far behind it":    new(reply).chunk(1, chunkData, 1, n64(1<<63), data),
		"too much":         new(reply).chunk(1, chunkData, 1, n64(4096), data, data),
		"the same twice":   new(reply).chunk(0, chunkData, 1, n64(4096), data).chunk(1, chunkData, 1, n64(4096), data),
		"too little":       new(reply).chunk(1, chunkData, 1, n64(4096), data[:8]),
		"nothing":          new(reply).chunk(1, chunkNone, 1),
		"nothing, and on":  new(reply).chunk(0, chunkNone, 2),
		"a large hole":     new(reply).chunk(1, chunkHole, 1, n64(4096), n32(17)),
		"a hole of none":   new(reply).chunk(1, chunkHole, 1, n64(4096), n32(0)),
		"data of a write":  new(reply).chunk(1, chunkData, 2, n64(0), data),
		"status of a read": new(reply).chunk(1, chunkStatus, 1, n32(0), n32(16), n32(0)),
		"half a status":    new(reply).chunk(1, chunkStatus, 3, n32(0), n32(16)),
		"empty extent":     new(reply).chunk(1, chunkStatus, 3, n32(0), n32(0), n32(0)),
		"context twice":    new(reply).chunk(0, chunkStatus, 3, n32(0), n32(16), n32(0)).chunk(1, chunkStatus, 3, n32(0), n32(16), n32(0)),
		"unknown kind":     new(reply).chunk(1, 77, 2),
		"long message":     new(reply).chunk(1, chunkError|1, 2, n32(5), n16(9), data[:3]),
		"short error":      new(reply).chunk(1, chunkError|1, 2, n32(5)),
		"huge error":       new(reply).chunk(1, chunkError|1, 2, n32(5), n16(9), make([]byte, maxMessage)),
	} {
		if _, err := listen(r.b, true); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := listen(new(reply).chunk(1, chunkNone, 2).b, false); !errors.Is(err, ErrProtocol) {
		t.Errorf("structured without asking: %v", err)
	}
}

func FuzzReplies(f *testing.F) {
	good := new(reply).chunk(0, chunkHole, 1, n64(4096), n32(8)).chunk(1, chunkData, 1, n64(4104), make([]byte, 8)).
		chunk(1, chunkError|2, 2, n32(28), n16(2), []byte("no"), n64(0)).chunk(1, chunkStatus, 3, n32(0), n32(1<<20), n32(3))
	f.Add(good.b, true)
	f.Add(append(new(reply).simple(0, 1).b, make([]byte, 16)...), false)
	f.Add(new(reply).simple(5, 2).simple(0, 3).b, false)
	f.Fuzz(func(t *testing.T, b []byte, structured bool) {
		calls, err := listen(b, structured)
		if err == nil || len(calls[0].buf) != 16 || calls[0].left < 0 {
			t.Fatal(calls[0], err)
		}
	})
}

// script answers a handshake with bytes made before.
type script struct{ *bytes.Reader }

func (script) Write(p []byte) (int, error) { return len(p), nil }

func FuzzHandshake(f *testing.F) {
	b := append(n64(magicServer), n64(magicOption)...)
	b = append(b, 0, 3)
	add := func(option, kind uint32, data ...[]byte) {
		all := bytes.Join(data, nil)
		b = append(append(append(append(append(b, n64(magicAnswer)...), n32(option)...), n32(kind)...), n32(uint32(len(all)))...), all...)
	}
	add(optStructured, ack)
	add(optSetContext, contextName, n32(7), []byte(Allocation))
	add(optSetContext, ack)
	add(optGo, infoReply, n16(infoExport), n64(1<<30), n16(1))
	add(optGo, infoReply, n16(infoBlockSize), n32(1), n32(4096), n32(32<<20))
	add(optGo, ack)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		server := script{bytes.NewReader(b)}
		if hello(server) != nil {
			return
		}
		e, err := greet(server, "n", []string{Allocation})
		if err == nil && (e.size < 0 || e.smallest < 1 || e.largest < e.smallest || len(e.contexts) > 1) {
			t.Fatalf("%+v", e)
		}
	})
}
