package vmdk

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
)

// Reader reads an image from front to back.
type Reader struct {
	in      *bufio.Reader
	at      int64
	size    int64
	fit     int64 // how much of it there is room for
	next    int64 // the lowest sector that may come
	ended   bool
	endless bool
	// tablesFirst: they are where the header says, and not at the end.
	tablesFirst bool
	inflate     io.ReadCloser
	packed      []byte
	data        [GrainSize]byte
}

// maxPacked is how long a deflated grain may be: what cannot be deflated grows by a
// few bytes only.
const maxPacked = GrainSize + GrainSize/8 + sector

// NewReader reads up to the first grain. It refuses with an error of ErrFormat.
func NewReader(r io.Reader) (*Reader, error) {
	v := &Reader{in: bufio.NewReaderSize(r, 256<<10), packed: make([]byte, maxPacked+sector)}
	h, err := v.sectors(1)
	if err != nil {
		return nil, err
	}
	size, text, length, err := parseHeader(h)
	if err != nil {
		return nil, err
	}
	v.size, v.fit, v.tablesFirst = size, size, binary.LittleEndian.Uint64(h[directoryAt:]) != atEnd
	first := int64(binary.LittleEndian.Uint64(h[overheadAt:])) * sector
	if first < sector || first > maxOverhead || length > 0 && (text < sector || text+length > first) {
		return nil, malformed("grains begin at %d, the descriptor at %d", first, text)
	}
	head := make([]byte, first-sector)
	if err := v.fill(head); err != nil {
		return nil, err
	}
	if length == 0 {
		return v, nil
	}
	return v, checkDescriptor(head[text-sector : text-sector+length])
}

// maxOverhead is how far the first grain may lie from the beginning.
const maxOverhead = 1 << 20

// Size is that of the disk in bytes. It is rounded up to a grain by most writers:
// only an OVF says how large the disk is.
func (v *Reader) Size() int64 { return v.size }

// Fit says how large the disk really is. What its last grain has behind that is zero and
// is not handed out, or is ErrTooLarge.
func (v *Reader) Fit(size int64) error {
	if v.size >= size+GrainSize {
		return ErrTooLarge
	}
	v.fit = min(size, v.size)
	return nil
}

// Next returns the next grain that is not all zero, io.EOF after the last; its bytes
// are good until the next call. Offsets ascend.
func (v *Reader) Next() (offset int64, data []byte, err error) {
	for !v.ended {
		if v.unmarked() {
			return 0, nil, io.EOF
		}
		m, err := v.sectors(1)
		if err != nil {
			return 0, nil, err
		}
		value, length := binary.LittleEndian.Uint64(m), binary.LittleEndian.Uint32(m[8:])
		if length > 0 {
			return v.grain(value, int64(length), m[12:])
		}
		if err := v.skip(binary.LittleEndian.Uint32(m[12:]), value); err != nil {
			return 0, nil, err
		}
	}
	return 0, nil, io.EOF
}

// skip passes over what is of no use when one reads from the front.
func (v *Reader) skip(kind uint32, sectors uint64) error {
	limit := map[uint32]uint64{grainTable: tableSize / sector, directory: uint64(4*tables(v.size)/sector + 1), footer: 1}
	switch {
	case kind == endOfStream:
		v.ended = true
		return v.rest()
	case sectors > limit[kind]:
		return malformed("a marker of kind %d with %d sectors at %d", kind, sectors, v.at)
	}
	_, err := v.sectors(int64(sectors))
	return err
}

// unmarked tells whether the image ends here without saying so, as those of QEMU do,
// whose tables lie in front of the grains.
func (v *Reader) unmarked() bool {
	if !v.tablesFirst {
		return false
	}
	_, err := v.in.Peek(1)
	return errors.Is(err, io.EOF)
}

// Endless says that nobody knows how long the stream is, so that nothing is waited for
// once the image has ended.
func (v *Reader) Endless() { v.endless = true }

// rest is what follows the end: nothing, or some padding.
func (v *Reader) rest() error {
	if v.endless {
		return nil
	}
	n, err := io.CopyN(io.Discard, v.in, maxOverhead+1)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return malformed("%d bytes and more follow its end", n)
}

// grain reads one, whose first bytes stand in the marker's sector.
func (v *Reader) grain(lba uint64, length int64, begin []byte) (int64, []byte, error) {
	switch {
	case lba%grainSectors != 0 || lba < uint64(v.next) || lba >= uint64(v.size/sector):
		return 0, nil, malformed("a grain at sector %d, %d was the least", lba, v.next)
	case length > maxPacked:
		return 0, nil, malformed("a grain of %d bytes", length)
	}
	packed := v.packed[:length]
	n := copy(packed, begin)
	if more := length - int64(n); more > 0 {
		b := v.packed[n : n+int(more+sector-1)/sector*sector]
		if err := v.fill(b); err != nil {
			return 0, nil, err
		}
	}
	v.next = int64(lba) + grainSectors
	offset := int64(lba) * sector
	data := v.data[:min(GrainSize, v.size-offset)]
	if err := v.unpack(packed, data); err != nil {
		return 0, nil, malformed("the grain at sector %d: %v", lba, err)
	}
	inside := max(0, min(int64(len(data)), v.fit-offset))
	if !zero(data[inside:]) {
		return 0, nil, ErrTooLarge
	}
	return min(offset, v.fit), data[:inside], nil
}

// unpack inflates to exactly as much as there is room for, and checks the sum.
func (v *Reader) unpack(packed, data []byte) (err error) {
	in := bytes.NewReader(packed)
	if v.inflate == nil {
		v.inflate, err = zlib.NewReader(in)
	} else {
		err = v.inflate.(zlib.Resetter).Reset(in, nil)
	}
	if err != nil {
		return err
	}
	n, err := io.ReadFull(v.inflate, v.data[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if n < len(data) {
		return fmt.Errorf("it inflates to %d bytes, want %d", n, len(data))
	}
	if more, err := v.inflate.Read(make([]byte, 1)); more > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("it inflates to more than a grain (%w)", errors.Join(err))
	}
	return nil
}

func (v *Reader) sectors(n int64) ([]byte, error) {
	b := make([]byte, n*sector)
	return b, v.fill(b)
}

func (v *Reader) fill(b []byte) error {
	n, err := io.ReadFull(v.in, b)
	v.at += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed("it ends after %d bytes", v.at)
	}
	return err
}
