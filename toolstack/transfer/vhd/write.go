package vhd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Writer writes an image from front to back. Which blocks will come is told first,
// because the table lies before them.
type Writer struct {
	out   io.Writer
	i     Info
	todo  []int64 // numbers of blocks that have not come, ascending
	block []byte  // a bitmap and the block's bytes
}

// BlockSize is the size of a block in bytes.
const BlockSize = blockSize

// Length is how long an image is that brings n blocks.
func Length(i Info, n int) int64 {
	return firstBlock(i) + int64(n)*(blockBitmap+blockSize) + footerSize
}

// firstBlock is where blocks begin: footer, header, paths of the parent, table.
func firstBlock(i Info) int64 { return tableAtOf(i) + roundUp(4*blocks(i.Size)) }

func tableAtOf(i Info) int64 {
	at := int64(footerSize + headerSize)
	if i.Kind == Differencing {
		at += 2 * pathSpace
	}
	return at
}

// pathSpace is kept for each spelling of the parent's name.
const pathSpace = 1024

func roundUp(n int64) int64 { return (n + sector - 1) / sector * sector }

// NewWriter writes all that comes before the disk's bytes. The numbers of the blocks
// to come are ascending.
func NewWriter(out io.Writer, i Info, numbers []int64) (*Writer, error) {
	if err := i.Check(); err != nil {
		return nil, err
	}
	if i.Kind == Fixed {
		return nil, errors.New("a fixed image is not written")
	}
	for n, b := range numbers {
		if b < 0 || b >= blocks(i.Size) || n > 0 && b <= numbers[n-1] {
			return nil, fmt.Errorf("block %d is out of order or beyond %d bytes", b, i.Size)
		}
	}
	w := &Writer{out: out, i: i, todo: numbers, block: make([]byte, blockBitmap+blockSize)}
	if _, err := out.Write(w.head()); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Writer) head() []byte {
	b := appendFooter(make([]byte, 0, firstBlock(w.i)), w.i)
	if w.i.Kind != Differencing {
		return w.table(appendHeader(b, w.i, tableAtOf(w.i), nil))
	}
	at := int64(footerSize + headerSize)
	windows, url := utf16le("./"+w.i.ParentName), []byte("file://./"+w.i.ParentName)
	b = appendHeader(b, w.i, tableAtOf(w.i), []locator{
		{macX, pathSpace / sector, uint32(len(url)), at},
		{w2ku, pathSpace / sector, uint32(len(windows)), at + pathSpace},
	})
	for _, p := range [][]byte{url, windows} {
		b = append(b, p...)
		b = append(b, make([]byte, pathSpace-len(p))...)
	}
	return w.table(b)
}

// utf16le is how paths of Windows are spelled, the other way round than the header's.
func utf16le(s string) []byte {
	b := utf16(s)
	for n := 0; n+1 < len(b); n += 2 {
		b[n], b[n+1] = b[n+1], b[n]
	}
	return b
}

func (w *Writer) table(b []byte) []byte {
	start := len(b)
	for range roundUp(4*blocks(w.i.Size)) / 4 {
		b = binary.BigEndian.AppendUint32(b, unused)
	}
	at := firstBlock(w.i)
	for _, n := range w.todo {
		binary.BigEndian.PutUint32(b[start+int(4*n):], uint32(at/sector))
		at += blockBitmap + blockSize
	}
	return b
}

// Block writes the next block, which must be the next of those announced: data is
// all of it, or up to the disk's end in the last one; bitmap says which sectors the
// image brings, most significant bit first, or is nil for all.
func (w *Writer) Block(number int64, data, bitmap []byte) error {
	if len(w.todo) == 0 || w.todo[0] != number {
		return fmt.Errorf("block %d was not announced to come now", number)
	}
	want := min(blockSize, w.i.Size-number*blockSize)
	if int64(len(data)) != want || bitmap != nil && len(bitmap) != blockBitmap {
		return fmt.Errorf("block %d has %d bytes, want %d", number, len(data), want)
	}
	w.todo = w.todo[1:]
	if bitmap == nil {
		bitmap = full[:]
	}
	copy(w.block, bitmap)
	n := copy(w.block[blockBitmap:], data)
	clear(w.block[blockBitmap+n:])
	_, err := w.out.Write(w.block)
	return err
}

var full = func() (b [blockBitmap]byte) {
	for n := range b {
		b[n] = 0xff
	}
	return b
}()

// Close writes the footer. It fails when something announced did not come.
func (w *Writer) Close() error {
	if len(w.todo) > 0 {
		return fmt.Errorf("the image is not complete: %d blocks are missing", len(w.todo))
	}
	_, err := w.out.Write(appendFooter(nil, w.i))
	return err
}
