package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
)

// Piece is how much a stream reads or writes at once, and ahead how many of them: all
// the memory that a stream takes of a disk.
const (
	Piece = 2 << 20
	ahead = 4
)

// piece is a part of a disk on its way.
type piece struct {
	Extent
	buf  []byte // as large as Piece
	err  error
	done chan struct{}
}

// Read calls f for parts of a disk in the order of the extents, in pieces that it reads
// ahead; data is nil for those that read as zeros, and good until f returns. It ends
// with the first error, or when the context does.
func Read(ctx context.Context, d io.ReaderAt, extents iter.Seq2[Extent, error], f func(e Extent, data []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	free, queue := make(chan []byte, ahead), make(chan *piece, ahead)
	for range ahead {
		free <- nil // made when it is needed
	}
	var reads sync.WaitGroup
	defer reads.Wait()
	defer cancel()
	reads.Go(func() {
		defer close(queue)
		fetch(ctx, d, extents, free, queue, &reads)
	})
	for p := range queue {
		<-p.done
		if p.err == nil {
			p.err = context.Cause(ctx)
		}
		var data []byte
		if !p.Zero && p.err == nil {
			data = p.buf[:p.Len]
		}
		if p.err == nil {
			p.err = f(p.Extent, data)
		}
		if p.err != nil {
			return p.err
		}
		free <- p.buf
	}
	return context.Cause(ctx)
}

// fetch begins to read the pieces that there is room for, in order.
func fetch(ctx context.Context, d io.ReaderAt, extents iter.Seq2[Extent, error], free <-chan []byte, queue chan<- *piece, reads *sync.WaitGroup) {
	send := func(e Extent, err error) bool {
		p := &piece{Extent: e, err: err, done: make(chan struct{})}
		select {
		case p.buf = <-free:
		case <-ctx.Done():
			return false
		}
		queue <- p // there is room: each has a buffer
		if e.Zero || err != nil {
			close(p.done)
			return err == nil
		}
		if p.buf == nil {
			p.buf = make([]byte, Piece)
		}
		reads.Go(func() {
			defer close(p.done)
			_, p.err = d.ReadAt(p.buf[:p.Len], p.Off)
		})
		return true
	}
	for e, err := range extents {
		if err != nil {
			send(Extent{}, err)
			return
		}
		for left := e; left.Len > 0; {
			next := left
			if !left.Zero {
				next.Len = min(Piece-left.Off%Piece, left.Len)
			}
			if !send(next, nil) {
				return
			}
			left.Off, left.Len = next.End(), left.End()-next.End()
		}
	}
}

// Sink writes a stream to a disk: several pieces at once, zeros as holes, and nothing
// where the disk reads as zeros already. What comes must not overlap. It is used by
// one goroutine.
//
// It asks for what it has written to be put onto the medium while more comes, so that
// the end does not have to wait for all of it and little waits in anybody's cache.
type Sink struct {
	ctx  context.Context
	d    Device
	free chan []byte
	all  sync.WaitGroup

	mu        sync.Mutex
	err       error
	unsettled int64 // bytes written since the medium was asked
	settling  bool
}

// settle is how much is written before the medium is asked. Volumes pass the page cache
// by where they can, so that asking brings little forward but their tables, and it keeps
// an image's other writers waiting.
const settle = 128 << 20

// NewSink begins a stream. Finish ends it, whatever went wrong.
func NewSink(ctx context.Context, d Device) *Sink {
	s := &Sink{ctx: ctx, d: d, free: make(chan []byte, ahead)}
	for range ahead {
		s.free <- nil
	}
	return s
}

// fail keeps the first error.
func (s *Sink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

// failed is what went wrong until now.
func (s *Sink) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return context.Cause(s.ctx)
}

// Write takes bytes for a place. That they could not be written may be said later.
func (s *Sink) Write(p []byte, off int64) error {
	if err := Within(off, int64(len(p)), s.d.Size()); err != nil {
		return err
	}
	for len(p) > 0 {
		if err := s.failed(); err != nil {
			return err
		}
		buf := s.buffer()
		n := copy(buf, p)
		s.launch(buf, n, off)
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// buffer waits for one to be free.
func (s *Sink) buffer() []byte {
	buf := <-s.free
	if buf == nil {
		buf = make([]byte, Piece)
	}
	return buf
}

// launch writes the first n bytes of a buffer, which is free again after that.
func (s *Sink) launch(buf []byte, n int, off int64) {
	s.all.Go(func() {
		if err := s.put(buf[:n], off); err != nil {
			s.fail(err)
		}
		s.free <- buf
	})
}

// wrote counts what the device has in its hands, and begins to bring it onto the medium
// when it is much.
func (s *Sink) wrote(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsettled += n; s.unsettled < settle || s.settling {
		return
	}
	s.unsettled, s.settling = 0, true
	s.all.Go(func() {
		err := s.d.Flush()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settling = false
		if s.err == nil {
			s.err = err
		}
	})
}

// grain is what a piece is looked through in for zeros: a cluster of what lies below.
const grain = 64 << 10

// put writes a piece's bytes, and punches holes for zeros.
func (s *Sink) put(p []byte, off int64) error {
	for len(p) > 0 {
		n, empty := run(p, off)
		var err error
		if empty {
			err = s.Zero(off, n)
		} else if _, err = s.d.WriteAt(p[:n], off); err == nil {
			s.wrote(n)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// run is how many bytes from the first on are all of zeros, or all of grains that are
// not.
func run(p []byte, off int64) (n int64, empty bool) {
	for n < int64(len(p)) {
		g := min(grain-(off+n)%grain, int64(len(p))-n)
		zero := Blank(p[n : n+g])
		if n > 0 && zero != empty {
			break
		}
		n, empty = n+g, zero
	}
	return n, empty
}

var zeros [grain]byte

// Blank reports whether bytes are all zero.
func Blank(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// Zero makes a part of the disk read as zeros, where it does not yet.
func (s *Sink) Zero(off, n int64) error {
	for e, err := range Part(s.ctx, s.d, off, n) {
		if err == nil && !e.Zero {
			err = s.d.Zero(e.Off, e.Len)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Finish waits for all that was taken to be written and to be on the medium.
func (s *Sink) Finish() error {
	s.all.Wait()
	if err := s.failed(); err != nil {
		return err
	}
	return s.d.Flush()
}

// Copy writes a stream of bytes to the disk from its beginning until the stream ends,
// and returns how many there were. What does not fit is an error, which is ErrTooLong.
func (s *Sink) Copy(r io.Reader, progress func(written int64)) (n int64, err error) {
	for {
		buf := s.buffer()
		k, err := fill(r, buf[:min(Piece, s.d.Size()-n+1)])
		broken := s.failed()
		if n+int64(k) > s.d.Size() {
			broken = fmt.Errorf("%w of %d bytes", ErrTooLong, s.d.Size())
		}
		if broken != nil {
			s.free <- buf
			return n, broken
		}
		s.launch(buf, k, n)
		n += int64(k)
		progress(n)
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		}
	}
}

// fill is io.ReadFull, but tells a stream that was cut from one that ends.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return n, err
}

// ErrTooLong is a stream that has more bytes than the disk.
var ErrTooLong = errors.New("more than the disk")
