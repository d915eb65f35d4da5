package machine

import (
	"bufio"
	"context"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/transfer/archive"
	"cairn/toolstack/transfer/foreign"
	"cairn/toolstack/transfer/ova"
	"cairn/toolstack/transfer/ovf"
	"cairn/toolstack/transfer/vmdk"
	"cairn/toolstack/transfer/xva"
	"cairn/toolstack/wire"
)

// Formats of archives. An import to which none is named sees it by itself.
const (
	formatXVA = "xva"
	formatOVA = "ova"
)

func formatOf(q url.Values) (string, error) {
	switch text := strings.ToLower(q.Get("format")); text {
	case "", formatXVA, formatOVA:
		return text, nil
	default:
		return "", api.ErrInvalidValue("format", clip(text))
	}
}

// contents are the disks of an archive.
type contents interface {
	// Expect says which disks are wanted, and how large they are.
	Expect(sizes map[string]int64)
	// Next is the next run of one of them, io.EOF after the last.
	Next() (archive.Chunk, error)
}

var (
	_ contents = (*xva.Reader)(nil)
	_ contents = (*ovf.Reader)(nil)
)

// open reads what an archive says of itself.
func (m *Manager) open(a *archive.Reader, o order) (contents, *ova.Document, error) {
	if o.format == formatOVA || o.format == "" && !o.Metadata && ovf.Descriptive(a.First()) {
		r, err := ovf.From(a)
		if err != nil {
			return nil, nil, err
		}
		return r, foreign.Document(m.cfg.DB.Snapshot(), r.Descriptor()), nil
	}
	r, err := xva.From(a)
	if err != nil {
		return nil, nil, err
	}
	doc, err := ova.Parse(r.XML())
	return r, doc, err
}

// onlyXVA refuses what an OVA cannot hold.
func onlyXVA(q url.Values, pack xva.Compression, s scope) error {
	for _, asked := range []struct {
		name string
		yes  bool
	}{{"use_compression", pack != xva.None}, {"include_snapshots", s.snapshots}, {"preserve_power_state", s.memory}} {
		if asked.yes {
			return api.ErrInvalidValue(asked.name, q.Get(asked.name))
		}
	}
	return nil
}

// sendOVA streams an OVA. The tar says how long each image is before it begins, and that
// is known only when it is deflated: so each disk is, twice. The first time tells all
// lengths, that of the answer too, before its first byte, and finds what cannot be read.
func (m *Manager) sendOVA(w http.ResponseWriter, r *wire.Request, c *collection) error {
	doc := m.describe(c)
	d, ids := foreign.Describe(doc)
	p := &packer{m: m, progress: api.Sparingly(r.Task), discs: make([]disc, len(ids)), total: 1}
	for i, id := range ids {
		for _, d := range c.disks {
			if doc.Objects[d.at].ID == id {
				p.discs[i] = d
				p.total += 2 * d.vdi.VirtualSize
			}
		}
	}
	err := p.measure(r.Context(), d)
	if err == nil {
		err = p.send(r.Context(), &client{ResponseWriter: w, now: m.cfg.Now}, d)
	}
	return m.exported(err)
}

// packer writes disks as images.
type packer struct {
	m           *Manager
	discs       []disc // in the order of a descriptor's
	progress    func(float64)
	done, total int64
}

// counter counts what is written, and passes it on.
type counter struct {
	io.Writer
	n   int64
	err error
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	if c.err == nil {
		c.err = err
	}
	return n, err
}

// measure tells how long the images will be.
func (p *packer) measure(ctx context.Context, d *ovf.Descriptor) error {
	for i := range p.discs {
		count := &counter{Writer: io.Discard}
		if err := p.image(ctx, p.discs[i], count); err != nil {
			return err
		}
		d.Files[i].Size = count.n
	}
	return nil
}

// send writes the archive.
func (p *packer) send(ctx context.Context, w http.ResponseWriter, d *ovf.Descriptor) error {
	text, err := d.Append(nil)
	if err != nil {
		return err
	}
	base := foreign.FileName(d.Systems[0].Name)
	first := ovf.File{Name: base + ".ovf", Size: int64(len(text))}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(ovf.Length(append([]ovf.File{first}, d.Files...)...), 10))
	w.WriteHeader(http.StatusOK)
	out := bufio.NewWriterSize(w, 64<<10)
	a, err := ovf.NewWriter(out, first.Name, text)
	if err != nil {
		return err
	}
	for i, file := range d.Files {
		if err := a.Begin(file.Name, file.Size); err != nil {
			return err
		}
		count := &counter{Writer: a}
		if err := p.image(ctx, p.discs[i], count); err != nil {
			return err
		}
		if count.n != file.Size {
			return api.ErrVDIIOError("the disk has changed while it was exported")
		}
	}
	if err := a.Close(base + ".mf"); err != nil {
		return err
	}
	return out.Flush()
}

// image writes one.
func (p *packer) image(ctx context.Context, from disc, out *counter) error {
	d, err := p.m.cfg.Disks.Open(ctx, from.ref, false)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.Size() > vmdk.MaxSize {
		return api.ErrVDITooLarge(from.ref.String(), strconv.FormatInt(vmdk.MaxSize, 10))
	}
	err = vmdk.Write(ctx, out, d, crc32.ChecksumIEEE([]byte(from.vdi.UUID)), func(done int64) {
		p.progress(float64(p.done+done) / float64(p.total))
	})
	p.done += d.Size()
	if out.err != nil { // the client's, which is none of the disk
		return out.err
	}
	return told(d, err)
}
