// Package qcow2 writes QEMU's own format as a stream: tables first, because it is told
// beforehand which clusters will come, then the clusters in the disk's order. It does not
// read those of others, which QEMU does, but checks that they are whole.
//
// The layout (QEMU, docs/interop/qcow2.txt, version 3, big-endian): a header, the table
// of reference counts and its blocks, the L1 table, the L2 tables, the data; all of them
// in clusters of 64 KiB, each counted once. What is left out reads as zeros.
//
// What is kept: the length is known before the first byte, and memory is a bit for each
// cluster of the disk and one cluster. A check reads no more than there are tables, and
// takes a cluster of at most 2 MiB.
//
// A Writer is used by one goroutine at a time.
package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
)

// ClusterSize is the unit of content.
const ClusterSize = 64 << 10

// Magic is how every image begins.
const Magic = "QFI\xfb"

const (
	version       = 3
	clusterBits   = 16
	headerSize    = 112
	refcountOrder = 4 // 16 bits each
	entry         = 8
	perTable      = ClusterSize / entry // entries of a table
	perBlock      = ClusterSize / 2     // reference counts of a block
	copied        = 1 << 63             // of a cluster with one reference

	// MaxSize is the largest disk: an L1 table of 4 MiB, far below QEMU's bound of 32.
	MaxSize = 4 << 20 / entry * perTable * ClusterSize
)

// Map says which clusters of a disk an image brings.
type Map struct {
	size int64
	bits []uint64
	n    int64
}

// NewMap is that of a disk of zeros.
func NewMap(size int64) (*Map, error) {
	if size <= 0 || size%512 != 0 || size > MaxSize {
		return nil, fmt.Errorf("a disk of %d bytes does not fit into a qcow2", size)
	}
	return &Map{size: size, bits: make([]uint64, (clusters(size)+63)/64)}, nil
}

func clusters(size int64) int64 { return (size + ClusterSize - 1) / ClusterSize }

// Add adds a cluster.
func (m *Map) Add(cluster int64) {
	if bit := uint64(1) << (cluster % 64); m.bits[cluster/64]&bit == 0 {
		m.bits[cluster/64] |= bit
		m.n++
	}
}

// has tells whether a cluster comes.
func (m *Map) has(cluster int64) bool {
	return cluster < clusters(m.size) && m.bits[cluster/64]>>(cluster%64)&1 == 1
}

// table tells how many clusters of an L2 table's come.
func (m *Map) table(n int64) (count int64) {
	for _, w := range m.bits[n*perTable/64 : min((n+1)*perTable/64, int64(len(m.bits)))] {
		count += int64(bits.OnesCount64(w))
	}
	return count
}

// plan is where things lie, in clusters.
type plan struct {
	refTable, refBlocks int64 // how many
	l1, l2              int64
	total               int64
}

func (m *Map) plan() (p plan) {
	tables := (clusters(m.size) + perTable - 1) / perTable
	p.l1 = (tables*entry + ClusterSize - 1) / ClusterSize
	for n := range tables {
		if m.table(n) > 0 {
			p.l2++
		}
	}
	for { // counts count themselves
		p.total = 1 + p.refTable + p.refBlocks + p.l1 + p.l2 + m.n
		blocks := (p.total + perBlock - 1) / perBlock
		table := (blocks*entry + ClusterSize - 1) / ClusterSize
		if blocks == p.refBlocks && table == p.refTable {
			return p
		}
		p.refBlocks, p.refTable = max(blocks, p.refBlocks), max(table, p.refTable)
	}
}

// Length is how long the image is.
func (m *Map) Length() int64 { return m.plan().total * ClusterSize }

// Writer writes an image from front to back.
type Writer struct {
	out  io.Writer
	m    *Map
	next int64 // the lowest cluster that may come
	left int64
	buf  [ClusterSize]byte
}

// NewWriter writes all that comes before the clusters.
func NewWriter(out io.Writer, m *Map) (*Writer, error) {
	w, p := &Writer{out: out, m: m, left: m.n}, m.plan()
	for _, part := range []func(plan) error{w.header, w.refTable, w.refBlocks, w.l1, w.l2} {
		if err := part(p); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *Writer) header(p plan) error {
	h, be := w.cluster(), binary.BigEndian
	copy(h, Magic)
	be.PutUint32(h[4:], version)
	be.PutUint32(h[20:], clusterBits)
	be.PutUint64(h[24:], uint64(w.m.size))
	be.PutUint32(h[36:], uint32((clusters(w.m.size)+perTable-1)/perTable))
	be.PutUint64(h[40:], uint64(1+p.refTable+p.refBlocks)*ClusterSize)
	be.PutUint64(h[48:], ClusterSize)
	be.PutUint32(h[56:], uint32(p.refTable))
	be.PutUint32(h[96:], refcountOrder)
	be.PutUint32(h[100:], headerSize)
	_, err := w.out.Write(h)
	return err
}

// cluster is an empty one.
func (w *Writer) cluster() []byte {
	clear(w.buf[:])
	return w.buf[:]
}

// entries writes clusters of 64-bit values, as many as there is room for in n of them.
func (w *Writer) entries(n int64, value func(i int64) uint64) error {
	for c := range n {
		b := w.cluster()
		for i := range int64(perTable) {
			binary.BigEndian.PutUint64(b[i*entry:], value(c*perTable+i))
		}
		if _, err := w.out.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) refTable(p plan) error {
	return w.entries(p.refTable, func(i int64) uint64 {
		if i >= p.refBlocks {
			return 0
		}
		return uint64(1+p.refTable+i) * ClusterSize
	})
}

func (w *Writer) refBlocks(p plan) error {
	left := p.total
	for range p.refBlocks {
		b := w.cluster()
		for i := range min(left, perBlock) {
			b[2*i+1] = 1
		}
		left -= min(left, perBlock)
		if _, err := w.out.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) l1(p plan) error {
	at, tables := 1+p.refTable+p.refBlocks+p.l1, (clusters(w.m.size)+perTable-1)/perTable
	return w.entries(p.l1, func(i int64) uint64 {
		if i >= tables || w.m.table(i) == 0 {
			return 0
		}
		at++
		return copied | uint64(at-1)*ClusterSize
	})
}

func (w *Writer) l2(p plan) error {
	at, tables := p.total-w.m.n, (clusters(w.m.size)+perTable-1)/perTable
	for n := range tables {
		if w.m.table(n) == 0 {
			continue
		}
		err := w.entries(1, func(i int64) uint64 {
			if !w.m.has(n*perTable + i) {
				return 0
			}
			at++
			return copied | uint64(at-1)*ClusterSize
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Cluster writes the next one that comes; the last one of a disk may be short.
func (w *Writer) Cluster(n int64, data []byte) error {
	want := min(ClusterSize, w.m.size-n*ClusterSize)
	if n < w.next || !w.m.has(n) || int64(len(data)) != want {
		return fmt.Errorf("a cluster of %d bytes, number %d, does not come now", len(data), n)
	}
	w.next, w.left = n+1, w.left-1
	if len(data) < ClusterSize {
		b := w.cluster()
		copy(b, data)
		data = b
	}
	_, err := w.out.Write(data)
	return err
}

// Close fails when something that was announced did not come.
func (w *Writer) Close() error {
	if w.left > 0 {
		return fmt.Errorf("the image lacks %d clusters", w.left)
	}
	return nil
}
