package qcow2

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"testing"
)

// disk is a disk's content with some clusters of data, the last one among them.
func disk(size int64) []byte {
	b, r := make([]byte, size), rand.New(rand.NewPCG(1, uint64(size)))
	for range 9 {
		at := r.Int64N(size)
		for i := at; i < min(size, at+9000); i++ {
			b[i] = byte(r.Uint32()) | 1
		}
	}
	b[size-1] = 7
	return b
}

// write makes an image.
func write(t testing.TB, b []byte) []byte {
	t.Helper()
	m, err := NewMap(int64(len(b)))
	must(t, err)
	var have []int64
	for n := range clusters(m.size) {
		part := b[n*ClusterSize : min((n+1)*ClusterSize, m.size)]
		if !bytes.Equal(part, make([]byte, len(part))) {
			m.Add(n)
			m.Add(n)
			have = append(have, n)
		}
	}
	var out bytes.Buffer
	w, err := NewWriter(&out, m)
	must(t, err)
	for _, n := range have {
		must(t, w.Cluster(n, b[n*ClusterSize:min((n+1)*ClusterSize, m.size)]))
	}
	must(t, w.Close())
	if int64(out.Len()) != m.Length() {
		t.Errorf("%d bytes, %d were promised", out.Len(), m.Length())
	}
	return out.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read follows the tables, as the specification has them.
func read(image []byte) []byte {
	be := binary.BigEndian
	out := make([]byte, be.Uint64(image[24:]))
	const offset = 1<<56 - 1
	l1 := image[be.Uint64(image[40:]):]
	for i := range int64(be.Uint32(image[36:])) {
		at := be.Uint64(l1[8*i:]) & offset
		if at == 0 {
			continue
		}
		for j := range int64(perTable) {
			if c := be.Uint64(image[at+uint64(8*j):]) & offset; c != 0 {
				copy(out[(i*perTable+j)*ClusterSize:], image[c:c+ClusterSize])
			}
		}
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int64{512, ClusterSize, 5*ClusterSize + 512, 90 * ClusterSize} {
		b := disk(size)
		if got := read(write(t, b)); !bytes.Equal(got, b) {
			t.Errorf("%d bytes come back as others", size)
		}
	}
	if got := read(write(t, append(make([]byte, ClusterSize-1), 1))); got[ClusterSize-1] != 1 {
		t.Error("one byte is lost")
	}
}

// TestCounts: every cluster of an image that needs many blocks of counts is counted.
func TestCounts(t *testing.T) {
	m, err := NewMap(3 << 40)
	must(t, err)
	for n := range int64(3*perBlock - 9) {
		m.Add(n * 11)
	}
	p := m.plan()
	if p.refBlocks*perBlock < p.total || (p.refBlocks-1)*perBlock >= p.total || p.refTable*perTable < p.refBlocks || p.refBlocks != 4 {
		t.Errorf("%+v", p)
	}
	if _, err := NewWriter(io.Discard, m); err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	for _, size := range []int64{0, -1, 513, MaxSize + 512} {
		if _, err := NewMap(size); err == nil {
			t.Errorf("a disk of %d bytes", size)
		}
	}
	m, err := NewMap(3 * ClusterSize)
	must(t, err)
	m.Add(1)
	w, err := NewWriter(io.Discard, m)
	must(t, err)
	full := make([]byte, ClusterSize)
	if w.Cluster(0, full) == nil || w.Cluster(1, full[1:]) == nil || w.Close() == nil {
		t.Error("what was not announced is written")
	}
	must(t, w.Cluster(1, full))
	if w.Cluster(1, full) == nil {
		t.Error("the same cluster is written twice")
	}
	must(t, w.Close())
}
