package disktest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"cairn/toolstack/transfer/disk"
)

// Keeps tests what every disk keeps, on one of zeros that may be written.
func Keeps(t *testing.T, d disk.Device) {
	t.Helper()
	k := &keeper{t: t, d: d, want: make([]byte, d.Size())}
	r := rand.New(rand.NewPCG(uint64(d.Size()), 7))
	for range 60 {
		k.step(r)
	}
	k.compare()
	k.edges()
	k.together()
	if err := d.Flush(); err != nil {
		t.Errorf("flush: %v", err)
	}
}

type keeper struct {
	t    *testing.T
	d    disk.Device
	want []byte
}

func (k *keeper) step(r *rand.Rand) {
	off := r.Int64N(k.d.Size())
	n := min(1+r.Int64N(3*Block), k.d.Size()-off)
	if r.IntN(3) == 0 {
		clear(k.want[off : off+n])
		if err := k.d.Zero(off, n); err != nil {
			k.t.Fatalf("zero %d at %d: %v", n, off, err)
		}
		return
	}
	for i := range n {
		k.want[off+i] = byte(r.Uint32())
	}
	if _, err := k.d.WriteAt(k.want[off:off+n], off); err != nil {
		k.t.Fatalf("write %d at %d: %v", n, off, err)
	}
}

// compare reads all, and what is no zero extent.
func (k *keeper) compare() {
	k.t.Helper()
	got := make([]byte, len(k.want))
	if _, err := k.d.ReadAt(got, 0); err != nil || !bytes.Equal(got, k.want) {
		k.t.Errorf("the disk reads as something else: %v", err)
	}
	clear(got)
	next := int64(0)
	for e, err := range disk.All(k.t.Context(), k.d) {
		if err != nil || e.Off != next || e.Len <= 0 {
			k.t.Fatalf("extent %+v after %d: %v", e, next, err)
		}
		next = e.End()
		if !e.Zero {
			copy(got[e.Off:next], k.want[e.Off:next])
		}
	}
	if next != k.d.Size() || !bytes.Equal(got, k.want) {
		k.t.Errorf("the extents end at %d and hide data", next)
	}
}

func (k *keeper) edges() {
	size := k.d.Size()
	one := make([]byte, 1)
	if n, err := k.d.ReadAt(one, size); n != 0 || err == nil {
		k.t.Errorf("the byte behind the end reads: %v", err)
	}
	if _, err := k.d.WriteAt(one, size); err == nil {
		k.t.Error("the byte behind the end was written")
	}
	if k.d.Zero(size, 1) == nil || k.d.Zero(-1, 1) == nil {
		k.t.Error("bytes outside were zeroed")
	}
	if _, err := k.d.Extents(k.t.Context(), size, 1); err == nil {
		k.t.Error("there are extents behind the end")
	}
	gone, cancel := context.WithCancel(k.t.Context())
	cancel()
	if _, err := k.d.Extents(gone, 0, size); err == nil {
		k.t.Error("extents are told to one who has gone")
	}
}

// together reads and writes parts from many goroutines.
func (k *keeper) together() {
	var all sync.WaitGroup
	part := k.d.Size() / 8
	for i := range int64(8) {
		all.Go(func() {
			b := bytes.Repeat([]byte{byte(i + 1)}, int(part))
			copy(k.want[i*part:], b)
			if _, err := k.d.WriteAt(b, i*part); err != nil {
				k.t.Errorf("write: %v", err)
			}
			if _, err := k.d.ReadAt(b, i*part); err != nil || b[0] != byte(i+1) || b[part-1] != byte(i+1) {
				k.t.Errorf("read: %v", err)
			}
		})
	}
	all.Wait()
	k.compare()
}
