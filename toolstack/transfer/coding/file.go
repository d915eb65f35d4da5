package coding

import (
	"cmp"
	"io"
	"os"
)

// File is a file as a stream, without its holes. It is read or, which is faster, written
// to something, and not closed.
type File struct {
	f     *os.File
	off   int64
	data  int64 // where the next bytes are known to lie, if not before off
	size  int64
	buf   []byte
	ready []byte // not read yet
	begun bool
	ended bool
}

// blocks are gathered before they are sent.
const blocks = 16

// NewFile is a file's stream, from its beginning, of as many bytes as it has now. One that
// is made shorter meanwhile is io.ErrUnexpectedEOF.
func NewFile(f *os.File) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &File{f: f, data: -1, size: info.Size(), buf: make([]byte, 0, blocks*(3+block))}, nil
}

// Read implements io.Reader.
func (s *File) Read(p []byte) (int, error) {
	if len(s.ready) == 0 {
		var err error
		if s.ready, err = s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.ready)
	s.ready = s.ready[n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (s *File) WriteTo(w io.Writer) (n int64, err error) {
	for {
		b, err := s.next()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		k, err := w.Write(b)
		if n += int64(k); err != nil {
			return n, err
		}
	}
}

// next makes some of the stream, which is good until the next time.
func (s *File) next() ([]byte, error) {
	if s.ended {
		return nil, io.EOF
	}
	b := s.buf[:0]
	if !s.begun {
		s.begun = true
		return append(b, begin(s.size)...), nil
	}
	for len(b) <= cap(b)-3-block && s.off < s.size {
		if s.data < s.off {
			var err error
			if s.data, err = nextData(s.f, s.off, s.size); err != nil {
				return nil, err
			}
		}
		if n := min(s.data-s.off, block); n > 0 {
			b = append(b, 0, 0, 0, 0)
			putHead(b[len(b)-4:], repeated, int(n))
			s.off += n
			continue
		}
		n := int(min(block, s.size-s.off))
		head := len(b)
		b = b[:head+3+n]
		putHead(b[head:], stored, n)
		if _, err := s.f.ReadAt(b[head+3:], s.off); err != nil {
			return nil, cut(err) // it was made shorter
		}
		s.off += int64(n)
	}
	if s.off == s.size && len(b) <= cap(b)-3 {
		if info, err := s.f.Stat(); err != nil || info.Size() < s.size {
			return nil, cmp.Or(err, io.ErrUnexpectedEOF) // what is behind its end looks like a hole
		}
		b = append(b, 0, 0, 0)
		putHead(b[len(b)-3:], stored|last, 0)
		s.ended = true
	}
	return b, nil
}
