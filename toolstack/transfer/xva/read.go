package xva

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

// window bounds what unpacking zstd takes.
const window = 128 << 20

// Reader reads an archive from front to back.
type Reader struct {
	src   *source
	tar   *tar.Reader
	close func()
	xml   []byte
	sizes map[string]int64 // of disks, by folder
	done  map[string]bool  // disks that were passed

	disk string
	next int64 // the least chunk of disk that may come
	buf  []byte
}

// NewReader reads up to and with ova.xml. It refuses with an error of ErrFormat.
func NewReader(r io.Reader) (*Reader, error) {
	v := &Reader{src: &source{Reader: r}, close: func() {}, done: map[string]bool{}, buf: make([]byte, ChunkSize)}
	plain, err := v.unpack(bufio.NewReaderSize(v.src, 256<<10))
	if err != nil {
		return nil, err
	}
	v.tar = tar.NewReader(plain)
	if err := v.readXML(); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// Close ends the goroutines of an unpacker.
func (v *Reader) Close() { v.close() }

func (v *Reader) unpack(in *bufio.Reader) (io.Reader, error) {
	magic, err := in.Peek(4)
	switch {
	case err != nil:
		return nil, notEOF(v.broken(err))
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(window), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, err
		}
		v.close = z.Close
		return z, nil
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := pgzip.NewReaderN(in, ChunkSize, 4)
		if err != nil {
			return nil, notEOF(v.broken(err))
		}
		v.close = func() { z.Close() }
		return z, nil
	}
	return in, nil
}

func (v *Reader) readXML() error {
	h, err := v.member()
	if err != nil {
		return notEOF(err)
	}
	switch {
	case h.Name != xmlName:
		return &UnexpectedError{h.Name}
	case h.Size > MaxXML:
		return malformed("%s has %d bytes", xmlName, h.Size)
	}
	v.xml, err = io.ReadAll(v.tar)
	return v.broken(err)
}

// XML is ova.xml, once: the reader does not keep it.
func (v *Reader) XML() []byte {
	xml := v.xml
	v.xml = nil
	return xml
}

// Expect says which disks there are, by folder, and how many bytes each has. Without
// it no chunk passes.
func (v *Reader) Expect(sizes map[string]int64) { v.sizes = sizes }

// Chunk is a run of a disk's bytes.
type Chunk struct {
	Disk   string // the folder
	Offset int64
	Data   []byte // good until the next one is read
}

// Next returns the next chunk with a right checksum, io.EOF after the last. Disks come
// one after another, offsets of one ascend; what is left out is zero.
func (v *Reader) Next() (Chunk, error) {
	for {
		h, err := v.member()
		if errors.Is(err, io.EOF) && !v.whole() {
			err = ErrShort
		}
		if err != nil {
			return Chunk{}, err
		}
		disk, number, suffix, err := splitName(h.Name)
		if err != nil {
			return Chunk{}, err
		}
		if suffix != "" {
			return Chunk{}, malformed("a checksum %q without its chunk", h.Name)
		}
		c, err := v.chunk(h, disk, number)
		if err != nil || len(c.Data) > 0 {
			return c, err
		}
	}
}

// chunk reads one and its checksum. A chunk without bytes only keeps the connection
// alive.
func (v *Reader) chunk(h *tar.Header, disk string, number int64) (c Chunk, err error) {
	if err := v.place(disk, number, h.Size); err != nil {
		return c, err
	}
	c = Chunk{disk, number * ChunkSize, v.buf[:h.Size]}
	if _, err := io.ReadFull(v.tar, c.Data); err != nil {
		return c, notEOF(v.broken(err))
	}
	s, err := v.member()
	if err != nil {
		return c, notEOF(err)
	}
	suffix, ok := strings.CutPrefix(s.Name, h.Name)
	if !ok || suffix != suffixXXH && suffix != suffixSHA1 || s.Size > 64 {
		return c, malformed("%q follows the chunk %q, not its checksum", s.Name, h.Name)
	}
	want, err := io.ReadAll(v.tar)
	if err != nil {
		return c, notEOF(v.broken(err))
	}
	if got := sumOf(c.Data, suffix); !strings.EqualFold(got, string(want)) {
		return c, fmt.Errorf("%w: that of %q is %s, and %.40q is told", ErrChecksum, h.Name, got, want)
	}
	return c, nil
}

// place refuses a chunk that belongs nowhere, or elsewhere.
func (v *Reader) place(disk string, number, length int64) error {
	size, known := v.sizes[disk]
	switch {
	case !known:
		return malformed("%.80q is none of its disks", disk)
	case v.done[disk]:
		return malformed("the disk %q comes a second time", disk)
	case disk != v.disk && !v.whole():
		return ErrShort
	case disk != v.disk:
		v.done[v.disk] = true
		v.disk, v.next = disk, 0
	}
	switch {
	case number < v.next || number >= chunks(size):
		return malformed("chunk %d of %q: the least that may come is %d, there are %d", number, disk, v.next, chunks(size))
	case length != 0 && length != min(ChunkSize, size-number*ChunkSize):
		return malformed("chunk %d of %q has %d bytes", number, disk, length)
	case length != 0:
		v.next = number + 1
	}
	return nil
}

// whole reports whether the disk under way has had its last chunk.
func (v *Reader) whole() bool { return v.disk == "" || v.next == chunks(v.sizes[v.disk]) }

// member is the next regular one.
func (v *Reader) member() (*tar.Header, error) {
	h, err := v.tar.Next()
	if err != nil {
		return nil, v.broken(err)
	}
	if h.Typeflag != tar.TypeReg || h.Size < 0 {
		return nil, malformed("%.80q is no regular member", h.Name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return nil, malformed("%.80q is sparse", h.Name)
		}
	}
	return h, nil
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

// broken tells what is wrong with the archive from what is wrong with its source:
// unpackers and tar have errors of many kinds, and all are the archive's.
func (v *Reader) broken(err error) error {
	v.src.mu.Lock()
	from := v.src.err
	v.src.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case from != nil && !errors.Is(from, io.EOF) && !errors.Is(from, io.ErrUnexpectedEOF):
		return from
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return ErrShort
	}
	return fmt.Errorf("%w: %w", ErrFormat, err)
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrShort
	}
	return err
}
