package qemuimg

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
)

// tracked is a qcow2 image of a number of clusters, of which some have an entry.
func tracked(size uint64, entries map[int]uint64) []byte {
	b := image{version: 3, size: size}.bytes()
	tables := map[int]uint64{}
	b = append(b, make([]byte, 2*ClusterSize-len(b))...)
	be := binary.BigEndian
	need := (size + perTable*ClusterSize - 1) / (perTable * ClusterSize)
	be.PutUint32(b[l1SizeAt:], uint32(need))
	be.PutUint64(b[l1OffsetAt:], ClusterSize)
	for i, e := range entries {
		t := i / perTable
		if tables[t] == 0 {
			tables[t] = uint64(len(b))
			be.PutUint64(b[ClusterSize+t*entrySize:], tables[t]|1<<63)
			b = append(b, make([]byte, ClusterSize)...)
		}
		be.PutUint64(b[tables[t]+uint64(i%perTable*entrySize):], e)
	}
	return b
}

func allocated(b []byte) (string, error) {
	var out string
	_, err := Allocated(context.Background(), bytes.NewReader(b), func(off, n int64) {
		out += fmt.Sprintf("%d+%d ", off/ClusterSize, (n+ClusterSize-1)/ClusterSize)
	})
	return out, err
}

func TestAllocated(t *testing.T) {
	const data = 1<<63 | 5*ClusterSize
	for _, tt := range []struct {
		name    string
		size    uint64
		entries map[int]uint64
		want    string
	}{
		{"nothing", 10 << 20, nil, ""},
		{"no disk", 0, nil, ""},
		{"data", 10 << 20, map[int]uint64{1: data, 2: data, 5: data}, "1+2 5+1 "},
		{"zeros, with and without a cluster", 10 << 20, map[int]uint64{3: zeroFlag, 4: data | zeroFlag}, "3+2 "},
		{"compressed", 10 << 20, map[int]uint64{7: compressed | 0x1234}, "7+1 "},
		{"the last, which is not whole", 10<<20 + 512, map[int]uint64{160: data}, "160+1 "},
		{"behind the end", 10 << 20, map[int]uint64{160: data}, ""},
		{"two tables", 1 << 30, map[int]uint64{perTable - 1: data, perTable: data, 2*perTable - 1: data}, fmt.Sprintf("%d+1 %d+1 %d+1 ", perTable-1, perTable, 2*perTable-1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tracked(tt.size, tt.entries)
			got, err := allocated(b)
			if err != nil || got != tt.want {
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestNotAllocated(t *testing.T) {
	sound := tracked(1<<30, map[int]uint64{0: 1, perTable: 1})
	put := func(at int, v uint64) []byte {
		b := bytes.Clone(sound)
		binary.BigEndian.PutUint64(b[at:], v)
		return b
	}
	for name, b := range map[string][]byte{
		"empty": nil, "cut in the header": sound[:80], "cut in the first table": sound[:ClusterSize+4], "cut in a second": sound[:3*ClusterSize],
		"a table in the middle of a cluster": put(ClusterSize, 512), "behind the end": put(ClusterSize, 1<<40),
		"a first table behind the end": put(l1OffsetAt, 1<<40), "far behind": put(l1OffsetAt, 1<<63|ClusterSize), "too few entries": put(l1SizeAt-4, 1),
	} {
		if got, err := allocated(b); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, b := range map[string][]byte{"extended entries": put(72, featExtended), "other clusters": put(16, 9), "too large": put(24, MaxTracked+1)} {
		if _, err := allocated(b); !errors.Is(err, ErrOtherLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Allocated(ctx, bytes.NewReader(sound), func(int64, int64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzAllocated(f *testing.F) {
	f.Add(tracked(10<<20, map[int]uint64{1: 1})[:ClusterSize+8], uint64(1), uint64(2*ClusterSize))
	f.Add(tracked(1<<40, nil)[:2000], uint64(zeroFlag), uint64(ClusterSize))
	f.Fuzz(func(t *testing.T, head []byte, entry, table uint64) {
		b := append(head[:min(len(head), ClusterSize)], make([]byte, 4*ClusterSize-min(len(head), ClusterSize))...)
		binary.BigEndian.PutUint64(b[ClusterSize:], table)
		for i := 2 * ClusterSize; i < len(b); i += entrySize {
			binary.BigEndian.PutUint64(b[i:], entry*uint64(i))
		}
		end := int64(0)
		size, err := Allocated(t.Context(), bytes.NewReader(b), func(off, n int64) {
			if off < end || n <= 0 {
				t.Fatalf("%d bytes at %d after %d", n, off, end)
			}
			end = off + n
		})
		if err == nil && end > size {
			t.Errorf("byte %d of %d", end, size)
		}
	})
}
