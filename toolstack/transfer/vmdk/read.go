package vmdk

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zlib"

	"cairn/toolstack/transfer/disk"
)

// Reader reads an image from front to back. Some grains are read before the first of them
// is inflated, so that as many can be at once as there are processors; while Next does
// not run, nothing does.
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

	slots []*slot
	ready []*slot // grains that Next has not returned
	end   error   // what follows them
}

// slot is a grain that has come.
type slot struct {
	offset  int64
	room    [maxPacked + sector]byte
	packed  []byte
	data    []byte
	space   [GrainSize]byte
	inflate io.ReadCloser
	err     error
}

// maxPacked is how long a deflated grain may be: what cannot be deflated grows by a
// few bytes only.
const maxPacked = GrainSize + GrainSize/8 + sector

// NewReader reads up to the first grain. It refuses with an error of ErrFormat.
func NewReader(r io.Reader) (*Reader, error) {
	v := &Reader{in: bufio.NewReaderSize(r, 256<<10)}
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
	if len(v.ready) == 0 {
		v.gather()
	}
	if len(v.ready) == 0 {
		return 0, nil, v.end
	}
	s := v.ready[0]
	v.ready = v.ready[1:]
	if s.err != nil {
		v.ready, v.end = nil, malformed("the grain at sector %d: %v", s.offset/sector, s.err)
		return 0, nil, v.end
	}
	inside := max(0, min(int64(len(s.data)), v.fit-s.offset))
	if !disk.Blank(s.data[inside:]) {
		v.ready, v.end = nil, ErrTooLarge
		return 0, nil, v.end
	}
	return min(s.offset, v.fit), s.data[:inside], nil
}

// perWorker is how many grains are read for each processor at once.
const perWorker = 4

// gather reads some grains, or up to the end, and inflates them.
func (v *Reader) gather() {
	workers := runtime.GOMAXPROCS(0)
	for n := 0; n < perWorker*workers && v.end == nil; n++ {
		if n == len(v.slots) {
			v.slots = append(v.slots, &slot{})
		}
		if v.end = v.take(v.slots[n]); v.end == nil {
			v.ready = v.slots[:n+1]
		}
	}
	work := make(chan *slot, len(v.ready))
	for _, s := range v.ready {
		work <- s
	}
	close(work)
	var all sync.WaitGroup
	for range min(workers, len(v.ready)) {
		all.Go(func() {
			for s := range work {
				s.err = s.unpack()
			}
		})
	}
	all.Wait()
}

// take reads up to the end of the next grain.
func (v *Reader) take(s *slot) error {
	for !v.ended {
		if v.unmarked() {
			return io.EOF
		}
		m, err := v.sectors(1)
		if err != nil {
			return err
		}
		value, length := binary.LittleEndian.Uint64(m), binary.LittleEndian.Uint32(m[8:])
		if length > 0 {
			return v.grain(s, value, int64(length), m[12:])
		}
		if err := v.skip(binary.LittleEndian.Uint32(m[12:]), value); err != nil {
			return err
		}
	}
	return io.EOF
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
func (v *Reader) grain(s *slot, lba uint64, length int64, begin []byte) error {
	switch {
	case lba%grainSectors != 0 || lba < uint64(v.next) || lba >= uint64(v.size/sector):
		return malformed("a grain at sector %d, %d was the least", lba, v.next)
	case length > maxPacked:
		return malformed("a grain of %d bytes", length)
	}
	s.packed = s.room[:length]
	n := copy(s.packed, begin)
	if more := length - int64(n); more > 0 {
		b := s.room[n : n+int(more+sector-1)/sector*sector]
		if err := v.fill(b); err != nil {
			return err
		}
	}
	v.next, s.offset = int64(lba)+grainSectors, int64(lba)*sector
	s.data = s.space[:min(GrainSize, v.size-s.offset)]
	return nil
}

// unpack inflates to exactly as much as there is room for, and checks the sum.
func (s *slot) unpack() (err error) {
	in := bytes.NewReader(s.packed)
	if s.inflate == nil {
		s.inflate, err = zlib.NewReader(in)
	} else {
		err = s.inflate.(zlib.Resetter).Reset(in, nil)
	}
	if err != nil {
		return err
	}
	n, err := io.ReadFull(s.inflate, s.space[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if n < len(s.data) {
		return fmt.Errorf("it inflates to %d bytes, want %d", n, len(s.data))
	}
	switch _, err := io.ReadFull(s.inflate, make([]byte, 1)); {
	case err == nil:
		return errors.New("it inflates to more than a grain")
	case !errors.Is(err, io.EOF):
		return err
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
