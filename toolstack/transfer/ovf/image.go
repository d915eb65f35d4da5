package ovf

import (
	"errors"
	"io"

	"cairn/toolstack/transfer/archive"
	"cairn/toolstack/transfer/vhd"
	"cairn/toolstack/transfer/vmdk"
)

// piece is how much of a raw image is handed out at once.
const piece = 1 << 20

// image is a disk's content on its way.
type image interface {
	disk() string
	next() (archive.Chunk, error) // io.EOF after the last
}

// open begins to read the image of a disk in a member of so many bytes.
func open(d Disk, r io.Reader, length int64) (image, error) {
	switch d.Format {
	case VMDK:
		v, err := vmdk.NewReader(r)
		if err == nil {
			err = v.Fit(d.Capacity)
		}
		return sparse{d, v}, err
	case VHD:
		v, err := vhd.NewReader(r, length)
		switch {
		case err != nil:
		case v.Info().Kind == vhd.Differencing:
			err = errBased
		case v.Info().Size > d.Capacity:
			err = errTooLarge
		}
		return dynamic{d, v}, err
	}
	if length > d.Capacity {
		return nil, errTooLarge
	}
	return &raw{Disk: d, r: r, buf: make([]byte, piece)}, nil
}

// What is wrong with images that are whole.
var (
	errTooLarge = errors.New("it is larger than is said")
	errBased    = errors.New("it is based on another image")
)

// wrong is an error of an image as one of the archive.
func (v *Reader) wrong(err error) error {
	for _, of := range []error{vmdk.ErrTooLarge, vmdk.ErrFormat, vhd.ErrFormat, errTooLarge, errBased} {
		if errors.Is(err, of) {
			return archive.Malformed("%.80q: %v", v.name, err)
		}
	}
	return err
}

// sparse is a VMDK.
type sparse struct {
	Disk
	r *vmdk.Reader
}

func (s sparse) disk() string { return s.ID }

func (s sparse) next() (archive.Chunk, error) {
	at, data, err := s.r.Next()
	return archive.Chunk{Disk: s.ID, Offset: at, Data: data}, err
}

// dynamic is a VHD.
type dynamic struct {
	Disk
	r *vhd.Reader
}

func (d dynamic) disk() string { return d.ID }

func (d dynamic) next() (archive.Chunk, error) {
	e, err := d.r.Next()
	return archive.Chunk{Disk: d.ID, Offset: e.Offset, Data: e.Data}, err
}

// raw is a disk's bytes from the first to the last that are told.
type raw struct {
	Disk
	r   io.Reader
	at  int64
	buf []byte
}

func (d *raw) disk() string { return d.ID }

func (d *raw) next() (archive.Chunk, error) {
	n, err := io.ReadFull(d.r, d.buf)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	c := archive.Chunk{Disk: d.ID, Offset: d.at, Data: d.buf[:n]}
	d.at += int64(n)
	return c, err
}
