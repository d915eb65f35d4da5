package volume

import (
	"bytes"
	"errors"
	"io"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/vmdk"
)

// writeVMDK sends a stream-optimised image. How long it gets is known only when all of
// it is deflated.
func writeVMDK(o *outgoing) (err error) {
	if o.d.Size() > vmdk.MaxSize {
		return api.ErrVDITooLarge(o.vdi.String(), strconv.FormatInt(vmdk.MaxSize, 10))
	}
	o.begin(-1)
	w, err := vmdk.NewWriter(o, o.d.Size(), uint32(o.now.Unix()))
	if err != nil {
		return err
	}
	defer func() {
		if cerr := w.Close(); err == nil {
			err = cerr
		}
	}()
	return disk.Read(o, o.d, aligned(disk.All(o, o.d), vmdk.GrainSize, o.d.Size()), func(e disk.Extent, data []byte) error {
		for at := e.Off; len(data) > 0; at += vmdk.GrainSize {
			n := min(len(data), vmdk.GrainSize)
			if err := w.Grain(at, data[:n]); err != nil {
				return err
			}
			data = data[n:]
		}
		o.progress(e.End(), o.d.Size())
		return nil
	})
}

// readVMDK makes the disk read as an image does. An image is as large as its grains, so
// that it may reach beyond the disk's end with zeros.
func readVMDK(in *incoming) error {
	r, err := vmdk.NewReader(in.body)
	if err != nil {
		return refuse(err)
	}
	if in.length < 0 {
		r.Endless()
	}
	size := in.d.Size()
	if r.Size() >= size+vmdk.GrainSize {
		return api.ErrVDITooSmall(in.vdi.String(), strconv.FormatInt(r.Size(), 10))
	}
	if err := in.sink.Zero(0, size); err != nil {
		return err
	}
	for {
		off, data, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return refuse(err)
		}
		if over := off + int64(len(data)) - size; over > 0 {
			inside := max(0, int64(len(data))-over)
			if !bytes.Equal(data[inside:], zeros[:int64(len(data))-inside]) {
				return api.ErrVDITooSmall(in.vdi.String(), strconv.FormatInt(r.Size(), 10))
			}
			data = data[:inside]
		}
		if err := in.sink.Write(data, min(off, size)); err != nil {
			return err
		}
		in.progress(float64(off) / float64(size))
	}
}
