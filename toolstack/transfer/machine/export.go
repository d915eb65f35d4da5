package machine

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/ova"
	"cairn/toolstack/transfer/xva"
	"cairn/toolstack/wire"
)

// silence is after how long a client that was sent nothing is sent something: less than
// what others on the way put up with. A disk may be read for hours that holds but zeros,
// or what packs to nothing.
const silence = 5 * time.Second

// client is where an archive goes. It knows when something last went there.
type client struct {
	http.ResponseWriter
	now  func() time.Time
	last atomic.Int64 // packers write behind
}

func (c *client) heard() { c.last.Store(c.now().UnixNano()) }

func (c *client) silent() bool { return c.now().UnixNano()-c.last.Load() >= int64(silence) }

// Write implements io.Writer.
func (c *client) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.heard()
	if err != nil {
		err = wire.ErrClient(err)
	}
	return n, err
}

// exported logs how an export has failed, if it has, and tells a client that has gone from
// what is wrong here.
func (m *Manager) exported(err error) error {
	if errors.Is(err, context.Canceled) {
		err = wire.ErrClient(err)
	}
	if err != nil {
		m.cfg.Log.Warn("export-failed", "err", err)
	}
	return err
}

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
	to       *client
	buf      *bufio.Writer // before it
	out      *xva.Writer   // into buf, once it was begun
	progress func(float64)
	done     int64
	total    int64
}

// export writes an archive of what was collected. The first disk is opened before
// anything is written, so that one that cannot be read is told as an error.
func (m *Manager) export(ctx context.Context, c *collection, w http.ResponseWriter, pack xva.Compression, progress func(float64)) (err error) {
	doc := m.describe(c)
	e := &exporter{m: m, to: &client{ResponseWriter: w, now: m.cfg.Now}, progress: progress, total: 1}
	e.buf = bufio.NewWriterSize(e.to, 64<<10)
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
			if err := e.begin(pack, doc); err != nil {
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
		if err := e.begin(pack, doc); err != nil {
			return err
		}
	}
	if err := e.out.Close(); err != nil {
		return err
	}
	return e.buf.Flush()
}

func (e *exporter) begin(pack xva.Compression, doc *ova.Document) (err error) {
	e.to.heard()
	e.out, err = xva.NewWriter(e.buf, pack, doc.Append(nil))
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
	if e.to.silent() {
		if err := e.alive(); err != nil {
			return err
		}
	}
	return e.out.Chunk(at, data)
}

// alive has a client hear something, and all that was kept back.
func (e *exporter) alive() error {
	if err := e.out.Alive(); err != nil { // which leaves the packer at rest: nobody else has buf
		return err
	}
	if err := e.buf.Flush(); err != nil {
		return err
	}
	if err := http.NewResponseController(e.to.ResponseWriter).Flush(); err != nil {
		return wire.ErrClient(err)
	}
	return nil
}
