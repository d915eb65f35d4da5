package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// ErrFormat is what is no image, or one that lacks a part of what it says it has.
var ErrFormat = errors.New("not a qcow2 image that can be read")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

const (
	minBits, maxBits = 9, 21
	offsetMask       = 0x00fffffffffffe00
	isCompressed     = 1 << 62
	isZero           = 1 << 0
	isElsewhere      = 1 << 2 // features: the clusters are in another file,
	isZstd           = 1 << 3 // packed otherwise,
	isExtended       = 1 << 4 // or parts of them can be there
	sector           = 512
	subclusters      = 32

	// What QEMU opens: tables of 32 and 8 MiB, and so many snapshots.
	maxL1, maxRefTable = 32 << 20, 8 << 20
	maxSnapshots       = 1 << 16
)

// image is one that is checked.
type image struct {
	r       io.ReaderAt
	length  int64 // how much of r it is
	version uint32
	size    uint64 // of the disk
	cluster int64
	entry   int64 // of an L2 table
	zstd    bool
	tables  int64 // L2 tables that were read
}

// Check refuses, with an error of ErrFormat, an image that ends before something that
// its tables name: what was cut off would read as zeros. It follows those of the disk;
// of what is not read (counts of references, the disk's former states) it sees that the
// tables are there. It reads no table twice, and takes a cluster of memory.
func Check(r io.ReaderAt, length int64) error {
	m := &image{r: r, length: length}
	h := make([]byte, headerSize)
	if err := m.read(h[:min(length, headerSize)], 0); err != nil {
		return err
	}
	be := binary.BigEndian
	if err := m.header(h); err != nil {
		return err
	}
	if err := m.counts(be.Uint64(h[48:]), be.Uint32(h[56:])); err != nil {
		return err
	}
	if err := m.snapshots(be.Uint64(h[64:]), be.Uint32(h[60:])); err != nil {
		return err
	}
	return m.content(be.Uint64(h[40:]), be.Uint32(h[36:]))
}

func (m *image) header(h []byte) error {
	be := binary.BigEndian
	m.version, m.size, m.entry = be.Uint32(h[4:]), be.Uint64(h[24:]), entry
	order := be.Uint32(h[20:])
	switch {
	case string(h[:len(Magic)]) != Magic:
		return malformed("no header")
	case m.version != 2 && m.version != 3:
		return malformed("version %d", m.version)
	case order < minBits || order > maxBits:
		return malformed("clusters of 2^%d bytes", order)
	}
	m.cluster = 1 << order
	if m.version == 2 {
		return nil
	}
	features := be.Uint64(h[72:])
	if features&isElsewhere != 0 {
		return malformed("its data is in another file")
	}
	if features&isExtended != 0 {
		m.entry = 2 * entry
	}
	m.zstd = features&isZstd != 0 && be.Uint32(h[100:]) > 104 && h[104] == 1
	return nil
}

// within refuses what ends behind the image.
func (m *image) within(what string, at uint64, n int64) error {
	if at > uint64(m.length) || n > m.length-int64(at) {
		return malformed("it ends after %d bytes, and %s lies at %d", m.length, what, at)
	}
	return nil
}

// table is within for what begins with a cluster.
func (m *image) table(what string, at uint64, n int64) error {
	if at%uint64(m.cluster) != 0 {
		return malformed("%s lies at %d, where no cluster begins", what, at)
	}
	return m.within(what, at, n)
}

// read fills b. What is wrong then is not the image.
func (m *image) read(b []byte, at int64) error {
	if n, err := m.r.ReadAt(b, at); n < len(b) {
		return err
	}
	return nil
}

// entries calls f for each value of a table that has been found to be within.
func (m *image) entries(at uint64, n int64, f func(i int64, value uint64) error) error {
	var buf [4 << 10]byte
	for i := int64(0); i < n; {
		b := buf[:min(int64(len(buf)), (n-i)*entry)]
		if err := m.read(b, int64(at)+i*entry); err != nil {
			return err
		}
		for ; len(b) > 0; b, i = b[entry:], i+1 {
			if err := f(i, binary.BigEndian.Uint64(b)); err != nil {
				return err
			}
		}
	}
	return nil
}

// counts looks for the blocks of counts.
func (m *image) counts(at uint64, clusters uint32) error {
	n := int64(clusters) * m.cluster
	if n > maxRefTable {
		return malformed("a table of counts of %d bytes", n)
	}
	if err := m.table("the table of counts", at, n); err != nil {
		return err
	}
	return m.entries(at, n/entry, func(i int64, value uint64) error {
		if value&^(sector-1) == 0 {
			return nil
		}
		return m.table(fmt.Sprint("block of counts ", i), value&^(sector-1), m.cluster)
	})
}

// snapshots looks for the list of former states, and for the first table of each.
func (m *image) snapshots(at uint64, number uint32) error {
	if number > maxSnapshots {
		return malformed("%d snapshots", number)
	}
	be, h := binary.BigEndian, make([]byte, 40)
	for i := range number {
		name := fmt.Sprint("snapshot ", i)
		if err := m.within(name, at, int64(len(h))); err != nil {
			return err
		}
		if err := m.read(h, int64(at)); err != nil {
			return err
		}
		rest := int64(be.Uint32(h[36:])) + int64(be.Uint16(h[12:])) + int64(be.Uint16(h[14:]))
		if err := m.within(name, at+uint64(len(h)), rest); err != nil {
			return err
		}
		if err := m.table("the table of "+name, be.Uint64(h), int64(be.Uint32(h[8:]))*entry); err != nil {
			return err
		}
		at += uint64(int64(len(h))+rest+7) &^ 7
	}
	return nil
}

// content follows the tables of the disk.
func (m *image) content(at uint64, n uint32) error {
	covers := uint64(m.cluster/m.entry) * uint64(m.cluster) // one of L2
	switch {
	case int64(n)*entry > maxL1:
		return malformed("an L1 table of %d entries", n)
	case m.size > uint64(n)*covers:
		return malformed("an L1 table of %d entries for %d bytes", n, m.size)
	}
	if err := m.table("the L1 table", at, int64(n)*entry); err != nil {
		return err
	}
	buf := make([]byte, m.cluster)
	return m.entries(at, int64(n), func(i int64, value uint64) error {
		if value &= offsetMask; value == 0 {
			return nil
		}
		if err := m.table(fmt.Sprint("L2 table ", i), value, m.cluster); err != nil {
			return err
		}
		if m.tables++; m.tables*m.cluster > m.length { // some are the same, and would be read for ever
			return malformed("it has more L2 tables than it has room for")
		}
		if err := m.read(buf, int64(value)); err != nil {
			return err
		}
		return m.clusters(buf, uint64(i)*covers)
	})
}

// clusters checks those of an L2 table whose first one holds the disk's byte off.
func (m *image) clusters(table []byte, off uint64) error {
	for ; len(table) > 0 && off < m.size; table, off = table[m.entry:], off+uint64(m.cluster) {
		e := binary.BigEndian.Uint64(table)
		if e&isCompressed != 0 {
			if err := m.compressed(e, off); err != nil {
				return err
			}
			continue
		}
		at, n := e&offsetMask, m.cluster
		switch {
		case m.entry > entry: // a bit for each part that is there
			n = m.cluster / subclusters * int64(bits.Len32(binary.BigEndian.Uint32(table[entry+4:])))
		case e&isZero != 0:
			n = 0
		}
		if at == 0 || n == 0 {
			continue
		}
		n = int64(min(uint64(n), m.size-off)) // the disk ends in its last one
		if err := m.table(fmt.Sprintf("the disk's byte %d", off), at, n); err != nil {
			return err
		}
	}
	return nil
}
