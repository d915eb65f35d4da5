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

// image gives a disk's content, io.EOF after the last of it.
type image func() (at int64, data []byte, err error)

// open begins to read the image of a disk in a member of so many bytes.
func open(d Disk, r io.Reader, length int64) (image, error) {
	switch d.Format {
	case VMDK:
		v, err := vmdk.NewReader(r)
		if err == nil {
			err = v.Fit(d.Capacity)
		}
		return v.Next, err
	case VHD:
		v, err := vhd.NewReader(r, length)
		switch {
		case err != nil:
		case v.Info().Kind == vhd.Differencing:
			err = errBased
		case v.Info().Size > d.Capacity:
			err = errTooLarge
		}
		return func() (int64, []byte, error) {
			e, err := v.Next()
			return e.Offset, e.Data, err
		}, err
	}
	if length > d.Capacity {
		return nil, errTooLarge
	}
	return raw(r), nil
}

// raw is a disk's bytes from the first to the last that are told.
func raw(r io.Reader) image {
	next, buf := int64(0), make([]byte, piece)
	return func() (at int64, data []byte, err error) {
		n, err := io.ReadFull(r, buf)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
		at = next
		next += int64(n)
		return at, buf[:n], err
	}
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
