// Package disk says what a disk's bytes are to those who stream them: formats read and
// write a Device and do not know what lies behind it.
//
// What is kept: a device has one size for as long as it is open, extents tell no byte
// as zero that reads as something else, and what Flush returned after is there when the
// power goes. What a stream has of a disk in memory are four pieces of 2 MiB at most, in
// either direction, however long it is and whichever side is slow. A Device lives as long
// as the context it was opened with; its methods fail soon after that ends.
package disk

import (
	"context"
	"fmt"
	"io"
	"iter"
)

// Device is a disk's bytes. Methods may be called concurrently.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Size() int64
	// Extents tells the parts of [off, off+n) in order, without gaps; Zero parts read as zeros.
	Extents(ctx context.Context, off, n int64) ([]Extent, error)
	Zero(off, n int64) error // writes zeros, punching a hole where possible
	Flush() error
	Close() error
}

// Extent is a part of a disk.
type Extent struct {
	Off, Len int64
	Zero     bool
}

// End is the first byte behind it.
func (e Extent) End() int64 { return e.Off + e.Len }

// Append adds an extent behind the others, to the last one where they are of one kind.
func Append(all []Extent, e Extent) []Extent {
	last := len(all) - 1
	switch {
	case e.Len == 0:
	case last >= 0 && all[last].Zero == e.Zero && all[last].End() == e.Off:
		all[last].Len += e.Len
	default:
		all = append(all, e)
	}
	return all
}

// Within refuses what does not lie in a device of a size.
func Within(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%d bytes at %d do not lie in a disk of %d", n, off, size)
	}
	return nil
}

// window is how much of a disk is asked for at once: a disk whose every other cluster
// is a hole has 8,192 extents in it.
const window = 1 << 30

// All is the whole disk in extents, in order. Neighbours may be of one kind.
func All(ctx context.Context, d Device) iter.Seq2[Extent, error] {
	return Part(ctx, d, 0, d.Size())
}

// Part is All for the bytes [off, off+n).
func Part(ctx context.Context, d Device, off, n int64) iter.Seq2[Extent, error] {
	return Windows(off, n, func(off, n int64) ([]Extent, error) { return d.Extents(ctx, off, n) })
}

// Windows asks about [off, off+n) a window at a time, and hands on what it is told. The
// first error is the end.
func Windows(off, n int64, ask func(off, n int64) ([]Extent, error)) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		for at, end := off, off+n; at < end; at += window {
			list, err := ask(at, min(window, end-at))
			if err != nil {
				yield(Extent{}, err)
				return
			}
			for _, e := range list {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// Aligned are the extents that are not zero, widened to multiples of a unit: what a
// format writes down that knows only whole ones. The last one ends with the disk.
func Aligned(extents iter.Seq2[Extent, error], unit, size int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		end := int64(0)
		for e, err := range extents {
			if err != nil {
				yield(e, err)
				return
			}
			from, to := max(end, e.Off/unit*unit), min((e.End()+unit-1)/unit*unit, size)
			if e.Zero || from >= to {
				continue
			}
			end = to
			if !yield(Extent{Off: from, Len: to - from}, nil) {
				return
			}
		}
	}
}
