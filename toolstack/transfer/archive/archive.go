// Package archive reads the members of a tar that comes as a stream, plain or packed
// with gzip or zstd, which it sees by itself: what VMs and disks travel in. What the
// members are is the affair of others (packages xva and ovf).
//
// What is kept: only regular members pass, and no sparse ones, whose bytes are not in
// the archive; a name or a size is told as it stands and believed by nobody here. What
// is wrong with the archive is told from what is wrong with its source: the first is an
// ErrFormat, or ErrShort where it was cut off, the second the source's own error. What
// holds checksums of its own is not whole before Finish has said so. Memory
// is bounded by the packer's window.
//
// A Reader is used by one goroutine.
package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// window bounds what unpacking zstd takes: what RFC 8878 asks of every decoder, and
	// all levels up to 19 keep to.
	window = 8 << 20
	// padding is how much may follow the end of a packed archive.
	padding = 64 << 20
)

// ErrFormat is what is not an archive that is understood, or one that contradicts
// itself; ErrShort is one that was cut off.
var (
	ErrFormat = errors.New("not an archive that can be read")
	ErrShort  = fmt.Errorf("%w: it ends too early", ErrFormat)
	// ErrChecksum is one that says so itself.
	ErrChecksum = fmt.Errorf("%w: a checksum is wrong", ErrFormat)
)

// UnexpectedError is an archive that begins with another member than it should; it is
// an ErrFormat, too.
type UnexpectedError struct{ Want, Found string }

// Error implements error.
func (e *UnexpectedError) Error() string {
	return fmt.Sprintf("%v: it begins with %.80q", ErrFormat, e.Found)
}

// Unwrap makes it an ErrFormat.
func (e *UnexpectedError) Unwrap() error { return ErrFormat }

// Malformed is an ErrFormat that says what is wrong.
func Malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Chunk is a run of a disk's bytes.
type Chunk struct {
	Disk   string // as the archive's description names it
	Offset int64
	Data   []byte // good until the next one is read
}

// Reader reads an archive from front to back.
type Reader struct {
	src   *source
	plain *source // what is unpacked
	tar   *tar.Reader
	// marked is whether the last member was followed by a mark.
	marked bool
	packed bool
	close  func()
	first  *tar.Header // until it was taken
}

// Open reads up to the first member's name. It refuses with an error of ErrFormat.
func Open(r io.Reader) (*Reader, error) {
	v := &Reader{src: &source{Reader: r}, close: func() {}}
	plain, err := v.unpack(bufio.NewReaderSize(v.src, 256<<10))
	if err != nil {
		return nil, err
	}
	v.plain = &source{Reader: plain}
	_, bare := plain.(*bufio.Reader)
	v.packed = !bare
	v.tar = tar.NewReader(v.plain)
	if v.first, err = v.member(); err != nil {
		v.Close()
		return nil, NotEOF(err)
	}
	return v, nil
}

// Close ends the goroutines of an unpacker.
func (v *Reader) Close() { v.close() }

func (v *Reader) unpack(in *bufio.Reader) (io.Reader, error) {
	magic, err := in.Peek(4)
	switch {
	case err != nil:
		return nil, NotEOF(v.Failed(err))
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(window), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, err
		}
		v.close = z.Close
		return z, nil
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(in) // not pgzip's, which takes an archive without its trailer for whole
		if err != nil {
			return nil, NotEOF(v.Failed(err))
		}
		return z, nil
	}
	return in, nil
}

// First is the name of the first member, until that was taken.
func (v *Reader) First() string { return v.first.Name }

// Next is the next member, io.EOF after the last.
func (v *Reader) Next() (*tar.Header, error) {
	if h := v.first; h != nil {
		v.first = nil
		return h, nil
	}
	return v.member()
}

// member is the next regular one.
func (v *Reader) member() (*tar.Header, error) {
	h, err := v.tar.Next()
	switch {
	case errors.Is(err, io.EOF) && v.plain.ended() == nil:
		v.marked = true
		return nil, io.EOF // whatever has become of the source meanwhile
	case err != nil:
		return nil, v.Failed(err)
	}
	if h.Typeflag != tar.TypeReg || h.Size < 0 {
		return nil, Malformed("%.80q is no regular member", h.Name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return nil, Malformed("%.80q is sparse", h.Name)
		}
	}
	return h, nil
}

// Read implements io.Reader for the present member; its errors are those of Failed.
func (v *Reader) Read(p []byte) (int, error) {
	n, err := v.tar.Read(p)
	if errors.Is(err, io.EOF) {
		return n, io.EOF // the member's, whatever has become of the source meanwhile
	}
	return n, v.Failed(err)
}

// Marked reports, after the last member, whether the archive says itself that this was
// the end.
func (v *Reader) Marked() bool { return v.marked }

// Finish reads, after the last member, up to the end of what was packed: there stands a
// checksum of it all. Of an archive that is not packed it reads nothing.
func (v *Reader) Finish() error {
	if !v.packed {
		return nil
	}
	_, err := io.CopyN(io.Discard, v.plain, padding+1)
	switch {
	case err == nil:
		return Malformed("more than %d bytes follow its end", padding)
	case errors.Is(err, io.EOF):
		return nil
	}
	return NotEOF(v.Failed(err))
}

// source knows its own error from those of what is read from it.
type source struct {
	io.Reader
	mu  sync.Mutex // unpackers read ahead
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

func (s *source) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Failed tells what is wrong with the archive from what is wrong with its source:
// unpackers and tar have errors of many kinds, and all are the archive's.
func (v *Reader) Failed(err error) error {
	from := v.src.ended()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrFormat):
		return err
	case from != nil && !errors.Is(from, io.EOF) && !errors.Is(from, io.ErrUnexpectedEOF):
		return from
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return ErrShort
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, zstd.ErrCRCMismatch):
		return fmt.Errorf("%w: %w", ErrChecksum, err)
	}
	return fmt.Errorf("%w: %w", ErrFormat, err)
}

// NotEOF is an end where there must not be one.
func NotEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrShort
	}
	return err
}
