package machine

import (
	"context"
	"io"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/ova"
	"cairn/toolstack/transfer/xva"
)

// silence is how long nothing may be written while a disk is read: less than what
// others on the way put up with.
const silence = 5 * time.Second

// describe is what a collection's ova.xml says.
func (m *Manager) describe(c *collection) *ova.Document {
	date := m.cfg.Now().UTC().Format(api.TimeLayout)
	h := m.self()
	v := h.SoftwareVersion
	return &ova.Document{
		Version: ova.Current(h.Hostname, date, v["product_brand"], v["product_version"], v["build_number"]),
		Objects: ova.Number(c.named),
	}
}

// exporter writes the disks of an archive.
type exporter struct {
	m        *Manager
	out      *xva.Writer
	last     time.Time // when something was written
	progress func(float64)
	done     int64
	total    int64
}

// export writes an archive of what was collected. The first disk is opened before
// anything is written, so that one that cannot be read is told as an error.
func (m *Manager) export(ctx context.Context, c *collection, out io.Writer, pack xva.Compression, progress func(float64)) (err error) {
	doc := m.describe(c)
	e := &exporter{m: m, progress: progress, total: 1}
	for _, d := range c.disks {
		e.total += d.vdi.VirtualSize
	}
	var device disk.Device
	defer func() {
		if device != nil {
			device.Close()
		}
		if err != nil && e.out != nil {
			e.out.Abandon()
		}
	}()
	for i, d := range c.disks {
		if device, err = m.cfg.Disks.Open(ctx, d.ref, false); err != nil {
			return err
		}
		if i == 0 {
			if err := e.begin(out, pack, doc); err != nil {
				return err
			}
		}
		if err := e.disk(ctx, doc.Objects[d.at].ID, d.vdi.VirtualSize, device); err != nil {
			return err
		}
		device.Close()
		device = nil
	}
	if e.out == nil {
		if err := e.begin(out, pack, doc); err != nil {
			return err
		}
	}
	return e.out.Close()
}

func (e *exporter) begin(out io.Writer, pack xva.Compression, doc *ova.Document) (err error) {
	e.last = e.m.cfg.Now()
	e.out, err = xva.NewWriter(out, pack, doc.Append(nil))
	return err
}

// disk writes the chunks of one that are not all zero.
func (e *exporter) disk(ctx context.Context, folder string, size int64, d disk.Device) error {
	if err := e.out.Disk(folder, size); err != nil {
		return err
	}
	var lost error // of the client, which is none of the disk
	err := disk.Read(ctx, d, disk.Aligned(disk.Part(ctx, d, 0, size), xva.ChunkSize, size), func(x disk.Extent, data []byte) error {
		for at := int64(0); at < x.Len && lost == nil; at += xva.ChunkSize {
			lost = e.chunk(x.Off+at, data[at:min(at+xva.ChunkSize, x.Len)])
		}
		e.progress(float64(e.done+x.End()) / float64(e.total))
		return lost
	})
	e.done += size
	if lost != nil {
		return lost
	}
	return told(d, err)
}

func (e *exporter) chunk(at int64, data []byte) error {
	if now := e.m.cfg.Now(); now.Sub(e.last) >= silence {
		if err := e.out.Alive(); err != nil {
			return err
		}
	}
	err := e.out.Chunk(at, data)
	e.last = e.m.cfg.Now()
	return err
}
