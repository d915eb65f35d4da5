package volume

import (
	"bytes"
	"errors"
	"io"
	"strconv"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/storage"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/qcow2"
)

// writeQcow2 sends an image without layers.
func writeQcow2(o *outgoing) error {
	m, err := qcow2.NewMap(o.d.Size())
	if err != nil {
		return api.ErrVDITooLarge(o.vdi.String(), strconv.FormatInt(qcow2.MaxSize, 10))
	}
	data := disk.Aligned(disk.All(o, o.d), qcow2.ClusterSize, o.d.Size())
	for e, err := range data {
		if err != nil {
			return err
		}
		for at := e.Off; at < e.End(); at += qcow2.ClusterSize {
			m.Add(at / qcow2.ClusterSize)
		}
	}
	o.begin(m.Length())
	w, err := qcow2.NewWriter(o, m)
	if err != nil {
		return err
	}
	err = disk.Read(o, o.d, data, func(e disk.Extent, b []byte) error {
		for n := e.Off / qcow2.ClusterSize; len(b) > 0; n++ {
			part := b[:min(len(b), qcow2.ClusterSize)]
			if err := w.Cluster(n, part); err != nil {
				return err
			}
			b = b[len(part):]
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.Close()
}

// readQcow2 makes the disk read as an image does. The tables of an image lie anywhere in
// it, so that all of it must have come before any of it can be read: it is put into the
// repository first, for as long as the import lasts.
func readQcow2(in *incoming) error {
	if in.length < 0 {
		return api.ErrImportErrorCannotHandleChunked()
	}
	head := make([]byte, len(qcow2.Magic))
	switch _, err := io.ReadFull(in.body, head); {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return refuse(err)
	case string(head) != qcow2.Magic:
		return refuse(errors.New("not a qcow2 image"))
	}
	in.body = io.MultiReader(bytes.NewReader(head), in.body)
	room, err := in.disks.NewScratch(in, in.sr, in.length)
	if err != nil {
		return err
	}
	defer room.Remove()
	if err := in.spool(room); err != nil {
		return err
	}
	image, err := room.Read(in, client.Qcow2)
	if err != nil {
		return err
	}
	err = in.copy(image)
	if cerr := image.Close(); err == nil {
		err = cerr
	}
	return err
}

// spool takes all of an image, and refuses one that is not whole: QEMU reads what a file
// lacks as zeros.
func (in *incoming) spool(room *storage.Scratch) error {
	d, err := room.Write(in)
	if err != nil {
		return err
	}
	s := disk.NewSink(in, d)
	_, err = s.Copy(in.body, func(int64) {})
	if ferr := s.Finish(); err == nil {
		err = ferr
	}
	if err == nil {
		err = qcow2.Check(d, in.length)
	}
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, qcow2.ErrFormat) {
		return refuse(err)
	}
	return err
}

// copy makes the disk read as another, and as zeros behind that one's end.
func (in *incoming) copy(image disk.Device) error {
	if image.Size() > in.d.Size() {
		return in.tooLarge(image.Size())
	}
	if err := in.sink.Zero(image.Size(), in.d.Size()-image.Size()); err != nil {
		return err
	}
	return disk.Read(in, image, disk.All(in, image), func(e disk.Extent, data []byte) error {
		if e.Zero {
			return in.sink.Zero(e.Off, e.Len)
		}
		return in.sink.Write(data, e.Off)
	})
}
