// Package disktest has a disk in memory for tests of what streams disks, and a test of
// what every disk keeps.
package disktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"cairn/toolstack/transfer/disk"
)

// Block is the granularity of holes.
const Block = 64 << 10

// Memory is a sparse disk in memory. Fields are set before it is used.
type Memory struct {
	// Fail, if set, is asked before each call: "read", "write", "zero", "flush" or
	// "extents" at a place.
	Fail func(what string, off int64) error
	// ReadOnly refuses writes.
	ReadOnly bool

	mu      sync.Mutex
	size    int64
	blocks  map[int64][]byte
	flushed int
	closed  bool
}

// New returns a disk of zeros. Its size may be far more than memory.
func New(size int64) *Memory { return &Memory{size: size, blocks: map[int64][]byte{}} }

// Of returns a disk with these bytes; what is zero in it is a hole.
func Of(b []byte) *Memory {
	m := New(int64(len(b)))
	for at := 0; at < len(b); at += Block {
		part := b[at:min(at+Block, len(b))]
		if !disk.Blank(part) {
			m.blocks[int64(at)/Block] = append(make([]byte, 0, Block), part...)[:Block]
		}
	}
	return m
}

// Bytes is the whole disk.
func (m *Memory) Bytes() []byte {
	b := make([]byte, m.size)
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, block := range m.blocks {
		copy(b[n*Block:], block)
	}
	return b
}

// Held is how many bytes are not holes.
func (m *Memory) Held() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.blocks)) * Block
}

// Flushed is how often Flush was called after the last change.
func (m *Memory) Flushed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flushed
}

// Closed tells whether Close was called.
func (m *Memory) Closed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

// Size implements disk.Device.
func (m *Memory) Size() int64 { return m.size }

// may tells whether a call may go on; it needs m.mu.
func (m *Memory) may(what string, off, n int64) error {
	if m.closed {
		return errors.New("the disk is closed")
	}
	if m.Fail != nil {
		if err := m.Fail(what, off); err != nil {
			return err
		}
	}
	if m.ReadOnly && (what == "write" || what == "zero") {
		return errors.New("the disk is read-only")
	}
	return disk.Within(off, n, m.size)
}

// each calls f for the part of each block that [off, off+n) touches.
func each(off, n int64, f func(block, from, to, at int64)) {
	for at := int64(0); at < n; {
		block, from := (off+at)/Block, (off+at)%Block
		to := min(Block, from+n-at)
		f(block, from, to, at)
		at += to - from
	}
}

// ReadAt implements disk.Device; like a file it reads what is left before the end.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off > m.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), m.size-off)
	if err := m.may("read", off, n); err != nil {
		return 0, err
	}
	each(off, n, func(block, from, to, at int64) {
		if b, ok := m.blocks[block]; ok {
			copy(p[at:], b[from:to])
		} else {
			clear(p[at : at+to-from])
		}
	})
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// WriteAt implements disk.Device.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.may("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	m.flushed = 0
	each(off, int64(len(p)), func(block, from, to, at int64) {
		if m.blocks[block] == nil {
			m.blocks[block] = make([]byte, Block)
		}
		copy(m.blocks[block][from:to], p[at:])
	})
	return len(p), nil
}

// Zero implements disk.Device.
func (m *Memory) Zero(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.may("zero", off, n); err != nil {
		return err
	}
	m.flushed = 0
	for block, b := range m.blocks {
		start := block * Block
		from, to := max(off, start)-start, min(off+n, start+Block, m.size)-start
		switch {
		case from >= to:
		case from == 0 && to == min(Block, m.size-start):
			delete(m.blocks, block)
		default:
			clear(b[from:to])
		}
	}
	return nil
}

// Extents implements disk.Device.
func (m *Memory) Extents(ctx context.Context, off, n int64) (list []disk.Extent, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(context.Cause(ctx), m.may("extents", off, n)); err != nil {
		return nil, err
	}
	var held []int64
	for block := range m.blocks {
		if start := block * Block; start < off+n && start+Block > off {
			held = append(held, start)
		}
	}
	slices.Sort(held)
	at := off
	for _, start := range held {
		from, to := max(start, off), min(start+Block, off+n)
		list = disk.Append(list, disk.Extent{Off: at, Len: from - at, Zero: true})
		list = disk.Append(list, disk.Extent{Off: from, Len: to - from})
		at = to
	}
	list = disk.Append(list, disk.Extent{Off: at, Len: off + n - at, Zero: true})
	return list, nil
}

// Flush implements disk.Device.
func (m *Memory) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.may("flush", 0, 0); err != nil {
		return err
	}
	m.flushed++
	return nil
}

// Close implements disk.Device.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("the disk is closed already")
	}
	m.closed = true
	return nil
}

// String names it in errors.
func (m *Memory) String() string { return fmt.Sprintf("a disk of %d bytes in memory", m.size) }
