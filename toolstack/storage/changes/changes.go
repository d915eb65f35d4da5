// Package changes is what is known of the blocks of a disk that changed between two
// moments: a bit for each 64 KiB, the first block in the most significant bit of the
// first byte, as clients of XenAPI read it.
//
// Invariants:
//   - A map never says less than what it was made of: joined maps say what each does,
//     and of a disk that has grown, all that is new has changed.
//   - What Decode returns is what Encode was given. Anything else, cut short, torn or
//     of another size, is an error and not a map.
//
// Everything here is pure. A Map may be read from many goroutines once nobody marks.
package changes

import (
	"encoding/base64"
	"fmt"
	"math/bits"
)

// Block is what one bit stands for.
const Block = 64 << 10

// MaxSize is the largest disk a map is made for: it takes 32 MiB.
const MaxSize = 16 << 40

// Map says which blocks of a disk have changed.
type Map struct {
	size int64
	bits []byte
}

func blocks(size int64) int64 { return (size + Block - 1) / Block }

// Bytes is how many bytes the bits of a disk take.
func Bytes(size int64) int64 { return (blocks(size) + 7) / 8 }

// New is a map of a disk of which nothing has changed.
func New(size int64) (*Map, error) {
	if size < 0 || size > MaxSize {
		return nil, fmt.Errorf("changes of a disk of %d bytes", size)
	}
	return &Map{size, make([]byte, Bytes(size))}, nil
}

// FromBits is a map with given bits, of which it becomes the owner.
func FromBits(size int64, b []byte) (*Map, error) {
	switch {
	case size < 0 || size > MaxSize:
		return nil, fmt.Errorf("changes of a disk of %d bytes", size)
	case int64(len(b)) != Bytes(size):
		return nil, fmt.Errorf("%d bytes of bits for a disk of %d", len(b), size)
	}
	if rest := blocks(size) % 8; rest > 0 && b[len(b)-1]<<rest != 0 {
		return nil, fmt.Errorf("bits behind the end of a disk of %d bytes", size)
	}
	return &Map{size, b}, nil
}

// Size is the disk's.
func (m *Map) Size() int64 { return m.size }

// Mark says that the blocks with bytes of [off, off+n) have changed. What lies behind
// the end is no block.
func (m *Map) Mark(off, n int64) {
	if n <= 0 || off < 0 || off >= m.size {
		return
	}
	end := m.size
	if n < m.size-off {
		end = off + n
	}
	for i, last := off/Block, (end-1)/Block; i <= last; {
		if i%8 == 0 && last-i >= 7 {
			m.bits[i/8], i = 0xff, i+8
			continue
		}
		m.bits[i/8] |= 0x80 >> (i % 8)
		i++
	}
}

// Has reports whether a block has changed.
func (m *Map) Has(block int64) bool {
	return block >= 0 && block < blocks(m.size) && m.bits[block/8]&(0x80>>(block%8)) != 0
}

// Count is how many blocks have changed.
func (m *Map) Count() (n int) {
	for _, b := range m.bits {
		n += bits.OnesCount8(b)
	}
	return n
}

// Resized is the map of the same disk with another size. What it did not have before
// has changed.
func (m *Map) Resized(size int64) (*Map, error) {
	out, err := New(size)
	if err != nil {
		return nil, err
	}
	copy(out.bits, m.bits)
	if rest := blocks(size) % 8; rest > 0 && size < m.size {
		out.bits[len(out.bits)-1] &= ^byte(0xff >> rest)
	}
	out.Mark(m.size, size-m.size)
	return out, nil
}

// Join is what any of the maps says, for a disk of the larger size.
func Join(a, b *Map) (*Map, error) {
	if a.size < b.size {
		a, b = b, a
	}
	out, err := b.Resized(a.size)
	if err != nil {
		return nil, err
	}
	for i, x := range a.bits {
		out.bits[i] |= x
	}
	return out, nil
}

// Base64 is the bits as clients get them.
func (m *Map) Base64() string { return base64.StdEncoding.EncodeToString(m.bits) }
