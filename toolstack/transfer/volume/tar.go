package volume

import (
	"errors"
	"io"

	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/xva"
)

// folder is where the chunks of the one disk of an archive lie.
const folder = "vdi"

// writeTar sends the chunks of which an XVA is made, with their checksums. How many
// there are that are not zero is known only when all were read.
func writeTar(o *outgoing) error {
	o.begin(-1)
	w, err := xva.NewDiskWriter(o, folder, o.d.Size())
	if err != nil {
		return err
	}
	err = disk.Read(o, o.d, disk.Aligned(disk.All(o, o.d), xva.ChunkSize, o.d.Size()), func(e disk.Extent, data []byte) error {
		o.progress(e.End(), o.d.Size())
		return w.Run(e.Off, data)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

// readTar makes the disk read as chunks say, and as zeros where there are none. Nothing
// of a chunk with a wrong checksum is written.
func readTar(in *incoming) error {
	r, err := xva.NewDiskReader(in.body, in.d.Size())
	if err != nil {
		return refuse(err)
	}
	defer r.Close()
	for begun := false; ; begun = true {
		c, err := r.Next()
		switch {
		case errors.Is(err, io.EOF) && in.pretends:
			return nil // nobody knows whether the client sends any more
		case errors.Is(err, io.EOF):
			if err := r.Finish(); err != nil {
				return refuse(err)
			}
			return nil
		case errors.Is(err, xva.ErrTooLarge):
			return in.tooLarge(in.d.Size() + 1)
		case err != nil:
			return refuse(err)
		}
		if !begun {
			err = in.sink.Zero(0, in.d.Size())
		}
		if err == nil {
			err = in.sink.Write(c.Data, c.Offset)
		}
		if err != nil {
			return err
		}
		in.progress(float64(c.Offset) / float64(in.d.Size()))
	}
}
