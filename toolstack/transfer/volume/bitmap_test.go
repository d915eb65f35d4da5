package volume

import (
	"bytes"
	"errors"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/vhd"
)

// walk hands parts of a disk on, and counts how often it is begun and how many are taken.
type walk struct {
	parts         []disk.Extent
	err           error // behind them
	begun, handed int
}

func (w *walk) all() iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		w.begun++
		for _, e := range w.parts {
			if w.handed++; !yield(e, nil) {
				return
			}
		}
		if w.err != nil {
			yield(disk.Extent{}, w.err)
		}
	}
}

// TestBitmaps: blocks have the sectors that a walk tells of, and it is gone once.
func TestBitmaps(t *testing.T) {
	const inBlock = vhd.BlockSize / sector
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		const sectors = 9*inBlock - 100
		w, set := &walk{}, make([]bool, sectors)
		for at := r.Int64N(3 * inBlock); at < sectors; {
			n := min(1+r.Int64N(1<<r.Int64N(14)), sectors-at)
			w.parts = append(w.parts, disk.Extent{Off: at * sector, Len: n * sector})
			for s := at; s < at+n; s++ {
				set[s] = true
			}
			at += n + r.Int64N(3)*r.Int64N(2*inBlock) // some touch
		}
		of, stop := bitmaps(w.all())
		for at := int64(0); at < sectors; at += inBlock {
			here := set[at:min(at+inBlock, sectors)]
			if !slices.Contains(here, true) {
				continue // an image lacks the block
			}
			want := make([]byte, inBlock/8)
			for s, is := range here {
				if is {
					want[s/8] |= 0x80 >> (s % 8)
				}
			}
			got, err := of(disk.Extent{Off: at * sector, Len: int64(len(here)) * sector})
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%v: the block at sector %d is another, %v", w.parts, at, err)
			}
		}
		if stop(); w.begun > 1 || w.handed > len(w.parts) {
			t.Errorf("%d parts were asked for %d times, in %d walks", len(w.parts), w.handed, w.begun)
		}
	}
}

// TestBitmapsAsNeeded: what lies behind a block is not asked for before it, and an error
// is that of the block that needed it.
func TestBitmapsAsNeeded(t *testing.T) {
	failed := errors.New("the disk is gone")
	block := func(n int64) disk.Extent { return disk.Extent{Off: n * vhd.BlockSize, Len: vhd.BlockSize} }
	w := &walk{parts: []disk.Extent{block(0), block(1)}, err: failed}
	of, stop := bitmaps(w.all())
	defer stop()
	for n := range int64(2) {
		if _, err := of(block(n)); err != nil || w.handed != int(n)+1 {
			t.Errorf("block %d: %d parts, %v", n, w.handed, err)
		}
	}
	if _, err := of(block(2)); !errors.Is(err, failed) {
		t.Error(err)
	}
}
