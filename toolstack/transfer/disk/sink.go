package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

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
// A stream that tells of holes is asked for them.
func (s *Sink) Copy(r io.Reader, progress func(written int64)) (n int64, err error) {
	for {
		buf := s.buffer()
		k, err := fill(r, buf[:min(Piece, s.d.Size()-n+1)])
		var hole Hole
		if errors.As(err, &hole) {
			err = nil
		}
		broken := s.failed()
		if int64(k)+int64(hole) > s.d.Size()-n {
			broken = fmt.Errorf("%w of %d bytes", ErrTooLong, s.d.Size())
		}
		if broken != nil {
			s.free <- buf
			return n, broken
		}
		s.launch(buf, k, n)
		n += int64(k)
		s.skip(n, int64(hole))
		n += int64(hole)
		progress(n)
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		}
	}
}

// skip makes a part of the disk read as zeros, while more comes.
func (s *Sink) skip(off, n int64) {
	if n == 0 {
		return
	}
	buf := s.buffer() // so that not more is under way at once than of bytes
	s.all.Go(func() {
		if err := s.Zero(off, n); err != nil {
			s.fail(err)
		}
		s.free <- buf
	})
}

// Hole is an error that is none: so many zeros come next, and are not in the stream.
type Hole int64

// Error implements error.
func (h Hole) Error() string { return fmt.Sprintf("a hole of %d bytes", int64(h)) }

// ReadHoles reads from what may tell of holes by a Hole, or else as ever.
func ReadHoles(r io.Reader, p []byte) (int, error) {
	if h, ok := r.(interface{ ReadHoles(p []byte) (int, error) }); ok {
		return h.ReadHoles(p)
	}
	return r.Read(p)
}

// fill is io.ReadFull, but tells a stream that was cut from one that ends.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = ReadHoles(r, buf[n:])
		n += k
	}
	return n, err
}

// ErrTooLong is a stream that has more bytes than the disk.
var ErrTooLong = errors.New("more than the disk")
