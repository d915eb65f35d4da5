package volume

import (
	"errors"
	"io"

	"cairn/toolstack/transfer/coding"
	"cairn/toolstack/transfer/disk"
)

// zeros are sent for what a disk does not have.
var zeros [256 << 10]byte

// writeRaw sends the disk's bytes as they are, without its zeros to who can take that.
func writeRaw(o *outgoing) error {
	if coding.Accepted(o.accepts) {
		return o.writeCoded()
	}
	o.begin(o.d.Size())
	return disk.Read(o, o.d, disk.All(o, o.d), func(e disk.Extent, data []byte) error {
		if data != nil {
			_, err := o.Write(data)
			return err
		}
		for left := e.Len; left > 0; {
			n, err := o.Write(zeros[:min(left, int64(len(zeros)))])
			if err != nil {
				return err
			}
			left -= int64(n)
		}
		return nil
	})
}

// writeCoded sends the disk's bytes in a coding that leaves its zeros out.
func (o *outgoing) writeCoded() error {
	o.w.Header().Set("Content-Encoding", coding.Name)
	o.begin(-1)
	w, size := coding.NewWriter(o, o.d.Size()), float64(o.d.Size())
	err := disk.Read(o, o.d, disk.All(o, o.d), func(e disk.Extent, data []byte) (err error) {
		if data != nil {
			_, err = w.Write(data)
		} else {
			err = w.Zero(e.Len)
		}
		o.tell(float64(e.End()) / size)
		return err
	})
	if err != nil {
		return err
	}
	return w.Close()
}

// readRaw writes what comes to the disk's beginning; what is behind it stays as it is.
func readRaw(in *incoming) error {
	size, stream := in.d.Size(), in.body
	switch {
	case in.length > size:
		return in.tooLarge(in.length)
	case in.pretends:
		stream = io.LimitReader(stream, size) // more is not waited for
	}
	_, err := in.sink.Copy(stream, func(n int64) { in.progress(float64(n) / float64(size)) })
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) && in.pretends:
		return nil // he has hung up, which is how he says that this was all
	case errors.Is(err, io.ErrUnexpectedEOF):
		return refuse(err)
	case errors.Is(err, disk.ErrTooLong):
		return in.tooLarge(size + 1)
	}
	return err
}
