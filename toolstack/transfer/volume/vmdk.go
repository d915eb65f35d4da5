package volume

import (
	"errors"
	"io"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/transfer/vmdk"
)

// writeVMDK sends a stream-optimised image. How long it gets is known only when all of
// it is deflated.
func writeVMDK(o *outgoing) error {
	if o.d.Size() > vmdk.MaxSize {
		return api.ErrVDITooLarge(o.vdi.String(), strconv.FormatInt(vmdk.MaxSize, 10))
	}
	o.begin(-1)
	return vmdk.Write(o, o, o.d, uint32(o.now.Unix()), func(done int64) { o.progress(done, o.d.Size()) })
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
	if err := r.Fit(in.d.Size()); err != nil {
		return in.tooLarge(r.Size())
	}
	if err := in.sink.Zero(0, in.d.Size()); err != nil {
		return err
	}
	for {
		off, data, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, vmdk.ErrTooLarge):
			return in.tooLarge(r.Size())
		case err != nil:
			return refuse(err)
		}
		if err := in.sink.Write(data, off); err != nil {
			return err
		}
		in.progress(float64(off) / float64(in.d.Size()))
	}
}
