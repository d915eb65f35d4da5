package coding

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"

	"cairn/toolstack/transfer/disk"
)

// ErrFormat is a stream that is no zstd that can be read.
var ErrFormat = errors.New("not zstd that can be read")

// window bounds what unpacking takes: what RFC 8878 asks of every decoder.
const window = 8 << 20

// Reader reads a stream.
type Reader struct {
	src    *source
	other  *zstd.Decoder // of a stream that no Writer made
	begun  bool
	err    error
	ending bool // the block is the last one
	fill   bool // it repeats a byte
	with   byte
	left   int64 // of the block
	size   int64 // of what it holds; -1 where that is not known
	sum    int64 // of all blocks
}

// source remembers that it failed, which is no fault of what was read.
type source struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// NewReader reads a stream that has not begun.
func NewReader(r io.Reader) *Reader { return &Reader{src: &source{r: r}, size: -1} }

// Size is how many bytes a stream says it holds, if a Writer made it; else -1. It reads
// the beginning of the stream. What is wrong with that the next read says.
func (r *Reader) Size() int64 {
	r.start()
	return r.size
}

// Close ends what unpacks; what is read from stays open.
func (r *Reader) Close() error {
	if r.other != nil {
		r.other.Close()
	}
	return nil
}

// Body is what a body in the coding holds, in place of that.
type Body struct {
	*Reader
	body io.Closer
}

// NewBody reads a body that has not begun.
func NewBody(body io.ReadCloser) Body { return Body{NewReader(body), body} }

// Close closes the body, too.
func (b Body) Close() error { return errors.Join(b.Reader.Close(), b.body.Close()) }

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if err := r.ahead(); err != nil || len(p) == 0 {
		return 0, err
	}
	switch {
	case r.other != nil:
		n, err := r.other.Read(p)
		return n, r.broken(err)
	case r.fill:
		p = p[:min(int64(len(p)), r.left)]
		for i := range p {
			p[i] = r.with
		}
		r.left -= int64(len(p))
		return len(p), nil
	}
	n, err := r.src.Read(p[:min(int64(len(p)), r.left)])
	if r.left -= int64(n); r.left > 0 || err != io.EOF {
		return n, r.broken(cut(err))
	}
	return n, nil // more is asked for when it is wanted
}

// longest is the most that is told of at once, so that no sum of blocks overflows.
const longest = 1 << 40

// ReadHoles is Read, but tells of zeros that were not sent by a disk.Hole for an error.
func (r *Reader) ReadHoles(p []byte) (int, error) {
	hole := int64(0)
	for hole < longest {
		err := r.ahead()
		if hole > 0 && (err != nil || !r.fill || r.with != 0) {
			break // an error comes again
		}
		if err != nil {
			return 0, err
		}
		if !r.fill || r.with != 0 {
			return r.Read(p)
		}
		hole, r.left = hole+r.left, 0
	}
	return 0, disk.Hole(hole)
}

// ahead reads up to the next byte of a block.
func (r *Reader) ahead() error {
	r.start()
	for r.err == nil && r.other == nil && r.left == 0 {
		r.err = r.next()
	}
	return r.err
}

func (r *Reader) start() {
	if !r.begun {
		r.begun = true
		r.err = r.open()
	}
}

// open finds out what kind of stream it is.
func (r *Reader) open() (err error) {
	head := make([]byte, len(kind)+8)
	n, err := io.ReadFull(r.src, head)
	ours := bytes.HasPrefix(head[:n], kind)
	switch {
	case r.src.err != nil:
		return r.src.err
	case err == nil && ours:
		size := binary.LittleEndian.Uint64(head[len(kind):])
		if size > math.MaxInt64 {
			return fmt.Errorf("%w: %d bytes", ErrFormat, size)
		}
		r.size = int64(size)
		return nil
	case ours || n > 0 && bytes.HasPrefix(kind, head[:n]):
		return io.ErrUnexpectedEOF
	}
	r.other, err = zstd.NewReader(io.MultiReader(bytes.NewReader(head[:n]), r.src),
		zstd.WithDecoderMaxWindow(window), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
	return err
}

// next reads the head of a block, or the stream's end.
func (r *Reader) next() error {
	if r.ending {
		return r.end()
	}
	var head [4]byte
	if _, err := io.ReadFull(r.src, head[:3]); err != nil {
		return r.broken(cut(err))
	}
	h := int64(head[0]) | int64(head[1])<<8 | int64(head[2])<<16
	r.ending, r.left = h&last != 0, h>>3
	r.sum += r.left
	switch what := h & kinds; {
	case r.left > block || what != stored && what != repeated || r.sum > r.size:
		return fmt.Errorf("%w: block %06x", ErrFormat, h)
	case what == stored:
		r.fill = false
		return nil
	}
	_, err := io.ReadFull(r.src, head[3:])
	r.fill, r.with = true, head[3]
	return r.broken(cut(err))
}

// end makes sure that nothing follows.
func (r *Reader) end() error {
	switch _, err := io.ReadFull(r.src, make([]byte, 1)); {
	case r.sum != r.size:
		return fmt.Errorf("%w: it holds %d bytes of %d", ErrFormat, r.sum, r.size)
	case err == nil:
		return fmt.Errorf("%w: bytes behind its end", ErrFormat)
	case err == io.EOF:
		return io.EOF
	default:
		return r.broken(err)
	}
}

// cut is the end of a source where it may not be.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// broken is an error by whose fault it is.
func (r *Reader) broken(err error) error {
	switch {
	case err == nil:
		return nil
	case r.src.err != nil: // whatever is made of it, such as an end between two frames
		return r.src.err
	case err == io.EOF:
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrFormat, err)
}
