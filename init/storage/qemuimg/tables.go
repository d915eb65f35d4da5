package qemuimg

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Layout of the tables, from docs/interop/qcow2.rst of QEMU: an entry of the first
// says where a second is, and an entry of that where a cluster is.
const (
	entrySize    = 8
	l1SizeAt     = 36
	l1OffsetAt   = 40
	offsetMask   = 0x00fffffffffffe00
	zeroFlag     = 1 << 0
	compressed   = 1 << 62
	featExtended = 1 << 4
	clusterBits  = 16
	perTable     = ClusterSize / entrySize
	// MaxTracked is the largest disk whose tables are read: 256 KiB of the first.
	MaxTracked = 16 << 40
)

// Allocated calls mark for the parts of the disk that an image of this package's
// layout holds itself, as data or as zeros, in order; what it reads from its backing is
// not among them. It returns the size of the disk. The image must not be written to
// meanwhile. It reads no more than one table of each kind at once.
func Allocated(ctx context.Context, r io.ReaderAt, mark func(off, n int64)) (size int64, err error) {
	b := make([]byte, usualHeader)
	if n, err := r.ReadAt(b, 0); err != nil && (!errors.Is(err, io.EOF) || n < headerV3) {
		return 0, fmt.Errorf("qcow2 header: %w", err)
	}
	h, err := ReadHeader(r)
	if err == nil {
		err = h.Usable()
	}
	if err != nil {
		return 0, err
	}
	if version := binary.BigEndian.Uint32(b[4:]); version != 3 || h.ClusterBits != clusterBits || binary.BigEndian.Uint64(b[72:])&featExtended != 0 || h.Size > MaxTracked {
		return 0, fmt.Errorf("%w: version %d, %d cluster bits, %d bytes", ErrOtherLayout, version, h.ClusterBits, h.Size)
	}
	first, err := firstTable(r, h.Size, binary.BigEndian.Uint32(b[l1SizeAt:]), binary.BigEndian.Uint64(b[l1OffsetAt:]))
	if err != nil {
		return 0, err
	}
	table := make([]byte, ClusterSize)
	for i := 0; i*entrySize < len(first); i++ {
		at := binary.BigEndian.Uint64(first[i*entrySize:]) & offsetMask
		if at == 0 {
			continue
		}
		if err := errors.Join(ctx.Err(), readTable(r, table, at)); err != nil {
			return 0, fmt.Errorf("qcow2 table %d: %w", i, err)
		}
		clusters(table, int64(i)*perTable*ClusterSize, h.Size, mark)
	}
	return h.Size, nil
}

// ErrOtherLayout is an image that is sound and was not made here.
var ErrOtherLayout = errors.New("qcow2 image is not laid out as those made here")

// firstTable reads as much of it as the disk's size asks for.
func firstTable(r io.ReaderAt, size int64, entries uint32, at uint64) ([]byte, error) {
	need := (size + perTable*ClusterSize - 1) / (perTable * ClusterSize)
	if int64(entries) < need {
		return nil, fmt.Errorf("qcow2 image of %d bytes has a table of %d entries", size, entries)
	}
	b := make([]byte, need*entrySize)
	if err := readTable(r, b, at); err != nil {
		return nil, fmt.Errorf("qcow2 table: %w", err)
	}
	return b, nil
}

func readTable(r io.ReaderAt, b []byte, at uint64) error {
	if at%ClusterSize != 0 || at > 1<<62 {
		return fmt.Errorf("it is said to be at %#x", at)
	}
	n, err := r.ReadAt(b, int64(at))
	if n == len(b) {
		return nil
	}
	return err
}

// clusters marks those of one second table, for the disk's bytes from off on.
func clusters(table []byte, off, size int64, mark func(off, n int64)) {
	begin := int64(-1)
	end := min(off+perTable*ClusterSize, size)
	for i := 0; off < end; i, off = i+1, off+ClusterSize {
		e := binary.BigEndian.Uint64(table[i*entrySize:])
		own := e&offsetMask != 0 || e&(zeroFlag|compressed) != 0
		switch {
		case own && begin < 0:
			begin = off
		case !own && begin >= 0:
			mark(begin, off-begin)
			begin = -1
		}
	}
	if begin >= 0 {
		mark(begin, end-begin)
	}
}
