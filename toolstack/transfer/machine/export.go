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
	return &ova.Document{
		Version: ova.Current(m.cfg.Hostname(), date, m.cfg.Brand, m.cfg.Product, m.cfg.Build),
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
	buf      []byte
}

// export writes an archive of what was collected. The first disk is opened before
// anything is written, so that one that cannot be read is told as an error.
func (m *Manager) export(ctx context.Context, c *collection, out io.Writer, pack xva.Compression, progress func(float64)) error {
	doc := m.describe(c)
	e := &exporter{m: m, progress: progress, buf: make([]byte, xva.ChunkSize), total: 1}
	for _, d := range c.disks {
		e.total += d.vdi.VirtualSize
	}
	var device disk.Device
	defer func() {
		if device != nil {
			device.Close()
		}
	}()
	for i, d := range c.disks {
		var err error
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
	next := int64(0) // what was written up to
	for x, err := range disk.Part(ctx, d, 0, min(size, d.Size())) {
		if err != nil {
			return err
		}
		if x.Zero {
			continue
		}
		for at := max(next, x.Off/xva.ChunkSize*xva.ChunkSize); at < x.End(); at += xva.ChunkSize {
			if err := e.chunk(ctx, d, at, size); err != nil {
				return err
			}
			next = at + xva.ChunkSize
			e.progress(float64(e.done+at) / float64(e.total))
		}
	}
	e.done += size
	return context.Cause(ctx)
}

func (e *exporter) chunk(ctx context.Context, d disk.Device, at, size int64) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	b := e.buf[:min(xva.ChunkSize, size-at)]
	if _, err := d.ReadAt(b, at); err != nil {
		return err
	}
	if now := e.m.cfg.Now(); now.Sub(e.last) >= silence {
		if err := e.out.Alive(); err != nil {
			return err
		}
		e.last = now
	}
	return e.out.Chunk(at, b)
}
