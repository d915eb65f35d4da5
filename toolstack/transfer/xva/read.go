package xva

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"

	"cairn/toolstack/transfer/archive"
)

// Reader reads an archive from front to back.
type Reader struct {
	from  *archive.Reader
	xml   []byte
	sizes map[string]int64 // of disks, by folder
	done  map[string]bool  // disks that were passed
	// most is how large the disk may be of an archive without a description, which
	// is as large as its last chunk says.
	most int64

	disk string
	next int64 // the least chunk of disk that may come
	buf  []byte
}

// From reads up to and with the ova.xml of an archive that was opened, and is closed by
// whoever did. It refuses with an error of archive.ErrFormat.
func From(a *archive.Reader) (*Reader, error) {
	v := &Reader{from: a, done: map[string]bool{}, buf: make([]byte, ChunkSize)}
	return v, v.readXML()
}

// NewDiskReader reads an archive of one disk, of at most so many bytes, without a
// description. It is closed in the end.
func NewDiskReader(r io.Reader, most int64) (*Reader, error) {
	from, err := archive.Open(r)
	if err != nil {
		return nil, err
	}
	return &Reader{from: from, done: map[string]bool{}, most: most, buf: make([]byte, ChunkSize)}, nil
}

// Close closes the archive.
func (v *Reader) Close() { v.from.Close() }

// Finish is the archive's, after the last chunk.
func (v *Reader) Finish() error { return v.from.Finish() }

func (v *Reader) readXML() error {
	h, err := v.from.Next()
	if err != nil {
		return archive.NotEOF(err)
	}
	switch {
	case h.Name != xmlName:
		return &archive.UnexpectedError{Want: xmlName, Found: h.Name}
	case h.Size > MaxXML:
		return archive.Malformed("%s has %d bytes", xmlName, h.Size)
	}
	v.xml, err = io.ReadAll(v.from)
	return err
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

// Next returns the next chunk with a right checksum, io.EOF after the last; its Disk is
// the folder. Disks come one after another, offsets of one ascend; what is left out is
// zero.
func (v *Reader) Next() (archive.Chunk, error) {
	for {
		h, err := v.from.Next()
		if errors.Is(err, io.EOF) && !v.whole() {
			err = archive.ErrShort
		}
		if err != nil {
			return archive.Chunk{}, err
		}
		disk, number, suffix, err := splitName(h.Name)
		if err != nil {
			return archive.Chunk{}, err
		}
		if suffix != "" {
			return archive.Chunk{}, archive.Malformed("a checksum %q without its chunk", h.Name)
		}
		c, err := v.chunk(h, disk, number)
		if err != nil || len(c.Data) > 0 {
			return c, err
		}
	}
}

// chunk reads one and its checksum. A chunk without bytes only keeps the connection
// alive.
func (v *Reader) chunk(h *tar.Header, disk string, number int64) (c archive.Chunk, err error) {
	if err := v.place(disk, number, h.Size); err != nil {
		return c, err
	}
	c = archive.Chunk{Disk: disk, Offset: number * ChunkSize, Data: v.buf[:h.Size]}
	if _, err := io.ReadFull(v.from, c.Data); err != nil {
		return c, archive.NotEOF(v.from.Failed(err))
	}
	s, err := v.from.Next()
	if err != nil {
		return c, archive.NotEOF(err)
	}
	suffix, ok := strings.CutPrefix(s.Name, h.Name)
	if !ok || suffix != suffixXXH && suffix != suffixSHA1 || s.Size > 64 {
		return c, archive.Malformed("%q follows the chunk %q, not its checksum", s.Name, h.Name)
	}
	want, err := io.ReadAll(v.from)
	if err != nil {
		return c, archive.NotEOF(v.from.Failed(err))
	}
	if got := sumOf(c.Data, suffix); !strings.EqualFold(got, string(want)) {
		return c, fmt.Errorf("%w: that of %q is %s, and %.40q is told", archive.ErrChecksum, h.Name, got, want)
	}
	return c, nil
}

// place refuses a chunk that belongs nowhere, or elsewhere.
func (v *Reader) place(disk string, number, length int64) error {
	if v.sizes == nil && v.most > 0 {
		v.sizes = map[string]int64{disk: v.most}
	}
	size, known := v.sizes[disk]
	switch {
	case !known:
		return archive.Malformed("%.80q is none of its disks", disk)
	case v.done[disk]:
		return archive.Malformed("the disk %q comes a second time", disk)
	case v.disk != "" && disk != v.disk && !v.whole():
		return archive.ErrShort
	case disk != v.disk:
		v.done[v.disk] = true
		v.disk, v.next = disk, 0
	}
	switch {
	case v.most > 0 && number >= chunks(size) && v.next < chunks(size):
		return ErrTooLarge
	case number < v.next || number >= chunks(size):
		return archive.Malformed("chunk %d of %q: the least that may come is %d, there are %d", number, disk, v.next, chunks(size))
	case length > ChunkSize || v.most == 0 && length != 0 && length != min(ChunkSize, size-number*ChunkSize):
		return archive.Malformed("chunk %d of %q has %d bytes", number, disk, length)
	case length > size-number*ChunkSize:
		return ErrTooLarge
	case length != 0 && length < ChunkSize:
		v.next = chunks(size) // the last one
	case length != 0:
		v.next = number + 1
	}
	return nil
}

// whole reports whether the disk under way has had its last chunk. Of one that nobody
// has described this is known by how the archive ends.
func (v *Reader) whole() bool {
	if v.most > 0 {
		return v.disk != "" && (v.next == chunks(v.most) || v.from.Marked())
	}
	return v.disk == "" || v.next == chunks(v.sizes[v.disk])
}
