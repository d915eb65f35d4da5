package xva

import (
	"archive/tar"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"

	"cairn/toolstack/transfer/disk"
)

// Compression is how an archive is packed as a whole.
type Compression string

const (
	None Compression = ""
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// Writer writes an archive from front to back.
type Writer struct {
	tar  *tar.Writer
	pack io.WriteCloser // nil without
	gate *gate          // below pack
	disk string
	size int64
	next int64
}

// NewWriter writes ova.xml.
func NewWriter(out io.Writer, c Compression, xml []byte) (*Writer, error) {
	w, err := newWriter(out, c)
	if err != nil {
		return nil, err
	}
	return w, w.member(xmlName, xml)
}

// NewDiskWriter begins an archive of one disk without a description.
func NewDiskWriter(out io.Writer, folder string, size int64) (*Writer, error) {
	w, err := newWriter(out, None)
	if err != nil {
		return nil, err
	}
	return w, w.Disk(folder, size)
}

func newWriter(out io.Writer, c Compression) (*Writer, error) {
	w := &Writer{gate: &gate{out: out}}
	switch c {
	case None:
	case Gzip:
		w.pack = pgzip.NewWriter(w.gate)
	case Zstd:
		z, err := zstd.NewWriter(w.gate, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, err
		}
		w.pack = z
	default:
		return nil, fmt.Errorf("there is no compression %q", string(c))
	}
	if w.pack != nil {
		out = w.pack
	}
	w.tar = tar.NewWriter(out)
	return w, nil
}

// gate keeps packers, which write behind, from what they write to when that is over.
type gate struct {
	mu  sync.Mutex
	out io.Writer // nil once it is shut
}

// Write implements io.Writer.
func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.out == nil {
		return 0, io.ErrClosedPipe
	}
	return g.out.Write(p)
}

// Abandon gives up an archive that was not closed: nothing is written any more, and no
// packer is left running.
func (w *Writer) Abandon() {
	w.gate.mu.Lock()
	w.gate.out = nil
	w.gate.mu.Unlock()
	if z, ok := w.pack.(*pgzip.Writer); ok {
		_ = z.Flush() // fails, and has its goroutine at rest
		z.Reset(io.Discard)
		return
	}
	if w.pack != nil {
		_ = w.pack.Close()
	}
}

func (w *Writer) member(name string, b []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(b)), Mode: 0o600, Format: tar.FormatUSTAR}
	if err := w.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.tar.Write(b)
	return err
}

// Disk begins the next disk, in a folder of its own.
func (w *Writer) Disk(folder string, size int64) error {
	if err := w.ended(); err != nil {
		return err
	}
	w.disk, w.size, w.next = folder, size, 0
	return nil
}

// Chunk writes the next one of the disk begun last; offsets ascend. The first and the
// last are always written, others only when they are not all zero.
func (w *Writer) Chunk(offset int64, data []byte) error {
	number := offset / ChunkSize
	if offset%ChunkSize != 0 || number < w.next || int64(len(data)) != min(ChunkSize, w.size-offset) {
		return fmt.Errorf("%d bytes at %d of %s do not come now", len(data), offset, w.disk)
	}
	if w.next == 0 && number > 0 {
		if err := w.put(0, make([]byte, min(ChunkSize, w.size))); err != nil {
			return err
		}
	}
	w.next = number + 1
	if number != 0 && number != chunks(w.size)-1 && disk.Blank(data) {
		return nil
	}
	return w.put(number, data)
}

// Run writes chunks that follow each other.
func (w *Writer) Run(offset int64, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), ChunkSize)
		if err := w.Chunk(offset, data[:n]); err != nil {
			return err
		}
		offset, data = offset+ChunkSize, data[n:]
	}
	return nil
}

func (w *Writer) put(number int64, data []byte) error {
	name := chunkName(w.disk, number)
	if err := w.member(name, data); err != nil {
		return err
	}
	return w.member(name+suffixXXH, []byte(sumOf(data, suffixXXH)))
}

// Alive writes a member without bytes, for whoever on the way gives up on silence. It
// is for pauses of 5 s and more. After it no packer has anything left to write.
func (w *Writer) Alive() error {
	if err := w.put(w.next, nil); err != nil || w.pack == nil {
		return err
	}
	if f, ok := w.pack.(interface{ Flush() error }); ok {
		return f.Flush()
	}
	return nil
}

// ended writes the last chunk of the disk under way, if it was zero.
func (w *Writer) ended() error {
	if last := chunks(w.size) - 1; w.disk != "" && w.next <= last {
		return w.Chunk(last*ChunkSize, make([]byte, w.size-last*ChunkSize))
	}
	return nil
}

// Close ends the archive.
func (w *Writer) Close() error {
	if err := w.ended(); err != nil {
		return err
	}
	if err := w.tar.Close(); err != nil || w.pack == nil {
		return err
	}
	return w.pack.Close()
}
