package vhd

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Reader reads an image from front to back.
type Reader struct {
	in *bufio.Reader
	at int64 // bytes taken from in
	// length is that of the stream, or negative where nobody knows it.
	length int64
	i      Info
	buf    []byte

	// Of dynamic and differencing images: the blocks in the order they come, and
	// what is left of the one under way.
	todo   []place
	rest   []Extent
	number int64 // blocks seen

	// Of fixed images: where the disk's next bytes lie.
	next int64
}

// place is where a block lies.
type place struct{ block, at int64 }

// chunk is how much of a fixed image is handed out at once.
const chunk = 1 << 20

// NewReader reads what comes before the disk's bytes. length is that of the whole
// stream, or -1 where nobody knows: a fixed image cannot be told from noise then, for
// it says what it is in its last bytes. It refuses with an error of ErrFormat.
func NewReader(r io.Reader, length int64) (*Reader, error) {
	v := &Reader{in: bufio.NewReaderSize(r, 64<<10), length: length}
	head, err := v.in.Peek(8)
	if err != nil {
		v.at = int64(len(head))
		return nil, v.short(err)
	}
	if string(head) != footerCookie {
		return v, v.openFixed()
	}
	return v, v.openSparse()
}

// Info is what the image says of itself; of a fixed one its size alone, until the
// last extent was read.
func (v *Reader) Info() Info { return v.i }

// Blocks is how many blocks of 2 MiB the image brings, of how many the disk has. A
// fixed image brings all.
func (v *Reader) Blocks() (brings, has int64) {
	if v.i.Kind == Fixed {
		return blocks(v.i.Size), blocks(v.i.Size)
	}
	return v.number, blocks(v.i.Size)
}

// others are files of which nobody means that they are a disk's bytes, by what they begin
// with. A fixed image says what it is in its end, when all of it has been written.
var others = []struct {
	at          int
	magic, kind string
}{
	{0, "QFI\xfb", "a qcow2 image"},
	{0, "KDMV", "a VMDK image"},
	{0, "# Disk DescriptorFile", "the description of VMDK images"},
	{0, "vhdxfile", "a VHDX image"},
	{0, "<<< ", "a VDI image"},
	{0, "\x1f\x8b\x08", "packed by gzip"},
	{0, "\x28\xb5\x2f\xfd", "packed by zstd"},
	{0, "\xfd7zXZ\x00", "packed by xz"},
	{0, "PK\x03\x04", "a ZIP archive"},
	{257, "ustar", "a tar archive"},
}

// foreign refuses what is a file of another kind.
func (v *Reader) foreign() error {
	head, err := v.in.Peek(257 + len("ustar"))
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	for _, o := range others {
		if len(head) > o.at && bytes.HasPrefix(head[o.at:], []byte(o.magic)) {
			return malformed("it is %s", o.kind)
		}
	}
	return nil
}

// openFixed: the disk's bytes come first.
func (v *Reader) openFixed() error {
	if err := v.foreign(); err != nil {
		return err
	}
	if v.length < 0 {
		return malformed("it does not begin with a footer, and a fixed image needs its length told")
	}
	v.i = Info{Kind: Fixed, Size: v.length - footerSize}
	if err := v.i.Check(); err != nil {
		return malformed("%v", err)
	}
	v.buf = make([]byte, min(chunk, v.i.Size))
	return nil
}

func (v *Reader) openSparse() error {
	f, err := v.take(footerSize)
	if err != nil {
		return err
	}
	i, header, err := parseFooter(f)
	if err != nil {
		return err
	}
	if i.Kind == Fixed {
		return malformed("a fixed image does not begin with its footer")
	}
	h, err := v.takeAt(header, headerSize)
	if err != nil {
		return err
	}
	table, err := parseHeader(h, &i)
	if err != nil {
		return err
	}
	b, err := v.takeAt(table, 4*blocks(i.Size))
	if err != nil {
		return err
	}
	v.i = i
	if err := v.plan(b); err != nil {
		return err
	}
	v.buf = make([]byte, blockBitmap+blockSize)
	return nil
}

// plan puts the blocks in the order in which they come.
func (v *Reader) plan(table []byte) error {
	for n := range int64(len(table) / 4) {
		if s := binary.BigEndian.Uint32(table[4*n:]); s != unused {
			v.todo = append(v.todo, place{n, int64(s) * sector})
		}
	}
	slices.SortFunc(v.todo, func(a, b place) int { return cmp.Compare(a.at, b.at) })
	end := v.at
	for _, p := range v.todo {
		if p.at < end {
			return malformed("block %d lies at %d, where something else is", p.block, p.at)
		}
		end = p.at + blockBitmap + blockSize
	}
	if v.length >= 0 && end > v.length {
		return malformed("it ends after %d bytes, and its last block after %d", v.length, end)
	}
	v.number = int64(len(v.todo))
	return nil
}

// Next returns the next bytes of the disk that the image brings, io.EOF after the
// last. What it leaves out is zero in a dynamic image and the parent's in a
// differencing one. Extents of one image never overlap; they come in the image's
// order, which need not be the disk's.
func (v *Reader) Next() (Extent, error) {
	if v.i.Kind == Fixed {
		return v.nextFixed()
	}
	for len(v.rest) == 0 {
		if len(v.todo) == 0 {
			return Extent{}, v.finish()
		}
		if err := v.block(v.todo[0]); err != nil {
			return Extent{}, err
		}
		v.todo = v.todo[1:]
	}
	e := v.rest[0]
	v.rest = v.rest[1:]
	return e, nil
}

func (v *Reader) nextFixed() (Extent, error) {
	if v.next == v.i.Size {
		f, err := v.take(footerSize)
		if err != nil {
			return Extent{}, err
		}
		i, _, err := parseFooter(f)
		if err != nil {
			return Extent{}, err
		}
		if i.Kind != Fixed || i.Size != v.i.Size {
			return Extent{}, malformed("the footer is that of %d bytes, kind %d", i.Size, i.Kind)
		}
		v.i = i
		v.next++ // past the end
	}
	if v.next > v.i.Size {
		return Extent{}, v.finish()
	}
	b := v.buf[:min(int64(len(v.buf)), v.i.Size-v.next)]
	if err := v.fill(b); err != nil {
		return Extent{}, err
	}
	e := Extent{v.next, b}
	v.next += int64(len(b))
	return e, nil
}

// block reads one and cuts it into runs of sectors that are there. The last one of a
// disk may reach beyond its end.
func (v *Reader) block(p place) error {
	if err := v.skipTo(p.at); err != nil {
		return err
	}
	if err := v.fill(v.buf); err != nil {
		return err
	}
	bitmap, data := v.buf[:blockBitmap], v.buf[blockBitmap:]
	start := p.block * blockSize
	sectors := int(min(blockSize, v.i.Size-start) / sector)
	return runs(bitmap, func(from, to int) error {
		if to = min(to, sectors); from < to {
			v.rest = append(v.rest, Extent{start + int64(from)*sector, data[from*sector : to*sector]})
		}
		return nil
	})
}

// finish reads what follows the last byte of the disk: the footer, which may have
// things before it, and nothing else of ours. It is bounded by a block: some writers
// leave a hole there. Of a stream whose length nobody knows no more than a footer is
// waited for: it may be kept open.
func (v *Reader) finish() error {
	if f, err := v.in.Peek(footerSize); v.length < 0 && err == nil && string(f[:len(footerCookie)]) == footerCookie {
		return io.EOF
	}
	n, err := io.CopyN(io.Discard, v.in, blockSize+1)
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return err
	}
	return malformed("%d bytes and more follow the disk's last", n)
}

// take reads n bytes; they are good until the next call.
func (v *Reader) take(n int64) ([]byte, error) {
	b := make([]byte, n)
	return b, v.fill(b)
}

func (v *Reader) takeAt(at, n int64) ([]byte, error) {
	if err := v.skipTo(at); err != nil {
		return nil, err
	}
	return v.take(n)
}

// headLimit is how far the table may lie from the beginning: parents' paths come
// before it.
const headLimit = 1 << 20

func (v *Reader) skipTo(at int64) error {
	switch {
	case at < v.at:
		return malformed("something lies at %d, behind what was read", at)
	case v.i.Size == 0 && at > headLimit:
		return malformed("something of its head lies at %d", at)
	}
	n, err := io.CopyN(io.Discard, v.in, at-v.at)
	v.at += n
	return v.short(err)
}

func (v *Reader) fill(b []byte) error {
	n, err := io.ReadFull(v.in, b)
	v.at += int64(n)
	return v.short(err)
}

func (v *Reader) short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends after %d bytes", ErrFormat, v.at)
	}
	return err
}
