package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zlib"

	"cairn/toolstack/transfer/disk"
)

// level is how hard grains are deflated: at 1 the fast coder of the library is within
// a tenth of zlib's default size.
const level = 1

// Writer writes an image from front to back; grains are deflated by as many
// goroutines as there are processors.
type Writer struct {
	out  io.Writer
	size int64
	next int64 // the lowest grain that may come
	at   uint64

	free    chan *job // at rest
	work    chan *job
	flights []*job // in the order of their grains

	run    int64 // the one under way: 512 grains
	table  [tableGrains]uint32
	filled bool
	dir    []uint32
	err    error
}

// job is a grain on its way; packed is how it stands in the image.
type job struct {
	grain  int64
	data   [GrainSize]byte
	packed bytes.Buffer
	done   chan error
}

// NewWriter writes all that comes before the first grain. cid is any number: it tells
// this content from others.
func NewWriter(out io.Writer, size int64, cid uint32) (*Writer, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	workers := runtime.GOMAXPROCS(0)
	w := &Writer{
		out: out, size: size, dir: make([]uint32, tables(size)),
		free: make(chan *job, 4*workers), work: make(chan *job, 4*workers),
	}
	for range 4 * workers {
		w.free <- &job{done: make(chan error, 1)}
	}
	head := make([]byte, overhead*sector)
	copy(head, header(size, atEnd))
	copy(head[descriptorAt*sector:], descriptor(size, cid))
	if w.write(head); w.err != nil {
		return nil, w.err
	}
	for range workers {
		go pack(w.work)
	}
	return w, nil
}

// pack deflates grains until there are no more. The coder is many times a grain large:
// there is one a processor, not one a grain.
func pack(work <-chan *job) {
	z, err := zlib.NewWriterLevel(nil, level)
	for j := range work {
		if err == nil {
			j.done <- j.pack(z)
		} else {
			j.done <- err
		}
	}
}

// grainHead is what stands before a grain: where it belongs, and how long it is.
const grainHead = 12

func (j *job) pack(z *zlib.Writer) error {
	j.packed.Reset()
	j.packed.Write(zeros[:grainHead])
	z.Reset(&j.packed)
	_, err := z.Write(j.data[:])
	err = errors.Join(err, z.Close())
	length := j.packed.Len() - grainHead
	j.packed.Write(zeros[:-j.packed.Len()&(sector-1)])
	head := j.packed.Bytes()
	binary.LittleEndian.PutUint64(head, uint64(j.grain)*grainSectors)
	binary.LittleEndian.PutUint32(head[8:], uint32(length))
	return err
}

var zeros [sector]byte

// Grain writes the next one; grains come in ascending order, and those left out are
// zero. One that is all zero is left out. The last one of a disk may be short. data
// may be used again when Grain returns.
func (w *Writer) Grain(offset int64, data []byte) error {
	if offset%GrainSize != 0 || offset/GrainSize < w.next || int64(len(data)) != min(GrainSize, w.size-offset) {
		return fmt.Errorf("a grain of %d bytes at %d does not come now", len(data), offset)
	}
	w.next = offset/GrainSize + 1
	if w.err != nil || disk.Blank(data) {
		return w.err
	}
	for len(w.free) == 0 && w.err == nil {
		w.land()
	}
	j := <-w.free
	j.grain = offset / GrainSize
	clear(j.data[copy(j.data[:], data):])
	w.flights = append(w.flights, j)
	w.work <- j
	return w.err
}

// Write writes the image of a disk, and tells how far it has come. Its error is that of
// the disk or of out.
func Write(ctx context.Context, out io.Writer, d disk.Device, cid uint32, tell func(done int64)) (err error) {
	w, err := NewWriter(out, d.Size(), cid)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := w.Close(); err == nil {
			err = cerr
		}
	}()
	return disk.Read(ctx, d, disk.Aligned(disk.All(ctx, d), GrainSize, d.Size()), func(e disk.Extent, data []byte) error {
		tell(e.End())
		return w.Run(e.Off, data)
	})
}

// Run writes grains that follow each other.
func (w *Writer) Run(offset int64, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), GrainSize)
		if err := w.Grain(offset, data[:n]); err != nil {
			return err
		}
		offset, data = offset+GrainSize, data[n:]
	}
	return nil
}

// land writes the first of those on their way.
func (w *Writer) land() {
	j := w.flights[0]
	w.flights = w.flights[1:]
	if err := <-j.done; w.err == nil {
		w.err = err
	}
	w.begin(j.grain / tableGrains)
	w.table[j.grain%tableGrains], w.filled = uint32(w.at), true
	w.write(j.packed.Bytes())
	w.free <- j
}

// begin ends the table of the run under way when the next grain is of another one.
func (w *Writer) begin(run int64) {
	if w.filled && w.run != run {
		w.endTable()
	}
	w.run = run
}

func (w *Writer) endTable() {
	b := marker(grainTable, tableSize/sector)
	w.dir[w.run] = uint32(w.at) + 1
	for _, at := range w.table {
		b = binary.LittleEndian.AppendUint32(b, at)
	}
	w.write(b)
	w.table, w.filled = [tableGrains]uint32{}, false
}

// Close writes what is left and ends the goroutines. It must be called, and once.
func (w *Writer) Close() error {
	for len(w.flights) > 0 {
		w.land()
	}
	close(w.work)
	if w.filled {
		w.endTable()
	}
	entries := (4*len(w.dir) + sector - 1) / sector
	b := marker(directory, uint64(entries))
	gd := w.at + 1
	for _, at := range w.dir {
		b = binary.LittleEndian.AppendUint32(b, at)
	}
	b = append(b, make([]byte, -len(b)&(sector-1))...)
	b = append(b, marker(footer, 1)...)
	b = append(b, header(w.size, gd)...)
	w.write(append(b, make([]byte, sector)...))
	return w.err
}

// write counts sectors. After the first error nothing goes out any more.
func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	if w.at+uint64(len(b)/sector) > 1<<32-1 {
		w.err = fmt.Errorf("a VMDK of more than 2 TiB of data cannot be written")
		return
	}
	_, w.err = w.out.Write(b)
	w.at += uint64(len(b) / sector)
}
