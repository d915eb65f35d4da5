// Package volume serves the streams of single disks: /export_raw_vdi and
// /import_raw_vdi.
//
// A stream has its disk for itself, as package storage says, from before the first
// byte until after the last, however it ends. What is zero is not read, not sent where
// a format can leave it out, and not written. What is written over a disk makes it read
// as the image and nothing else, but for a difference, which is written on top of what
// the disk holds. An image is believed as far as it was read: what is wrong at its
// beginning changes nothing, what is wrong later leaves a disk that was written to in
// part, and its task says so.
//
// Clients that do not know how long their stream is claim a petabyte, and hang up or
// wait when they are done: both is the end. A stream without any byte is one that only
// asks whether it may come, and changes nothing.
//
// A Manager may be used by many goroutines; each stream has one, and those that read
// ahead or write behind for it.
package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
	"cairn/toolstack/transfer/archive"
	"cairn/toolstack/transfer/coding"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire"
)

// Disks is what the streams ask of storage.
type Disks interface {
	OpenDisk(ctx context.Context, vdi api.VDIRef, write bool, task string) (*storage.Disk, error)
	Elsewhere(sr api.SRRef) (api.HostRef, bool)
	Create(ctx context.Context, spec storage.CreateSpec) (api.VDIRef, error)
	Destroy(ctx context.Context, vdi api.VDIRef) error
	NewScratch(ctx context.Context, sr api.SRRef, size int64) (*storage.Scratch, error)
}

var _ Disks = (*storage.Manager)(nil)

// Drafts tells disks that are being made from those that are complete. *vm.Manager is
// one; what the methods promise is said there.
type Drafts interface {
	Making(ctx context.Context) (making context.Context, end func())
	Keep(ctx context.Context, vdi api.VDIRef) error
}

var _ Drafts = (*vm.Manager)(nil)

// Config is what a Manager needs.
type Config struct {
	DB     *db.DB
	Disks  Disks
	Drafts Drafts
	Log    *slog.Logger
	Now    func() time.Time
}

// Manager serves the streams.
type Manager struct{ cfg Config }

// New returns a manager.
func New(c Config) *Manager {
	if c.Log == nil {
		c.Log = journal.Discard()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Manager{c}
}

// Handle adds the streams to a server.
func (m *Manager) Handle(s *wire.Server) {
	s.Transfer("GET", "/export_raw_vdi", m.export)
	s.Transfer("PUT", "/import_raw_vdi", m.load)
}

// format is a way to write down a disk's content.
type format struct {
	mime, suffix string
	// differs says that it can hold the difference to a base.
	differs bool
	write   func(*outgoing) error
	read    func(*incoming) error
}

var formats = map[string]format{
	"qcow2": {mime: "application/x-qemu-disk", suffix: "qcow2", write: writeQcow2, read: readQcow2},
	"raw":   {mime: "application/octet-stream", suffix: "raw", write: writeRaw, read: readRaw},
	"tar":   {mime: "application/x-tar", suffix: "tar", write: writeTar, read: readTar},
	"vhd":   {mime: "application/vhd", suffix: "vhd", differs: true, write: writeVHD, read: readVHD},
	"vmdk":  {mime: "application/x-vmdk", suffix: "vmdk", write: writeVMDK, read: readVMDK},
}

// wanted is what a request is about.
type wanted struct {
	format
	vdi, base      api.VDIRef
	disk, baseDisk *api.VDI // their rows
	sr             api.SRRef
}

// parse reads a request's parameters.
func (m *Manager) parse(q url.Values) (w wanted, err error) {
	name, known := cmp.Or(q.Get("format"), "raw"), false
	if w.format, known = formats[name]; !known {
		return w, api.ErrInvalidValue("format", name)
	}
	snap := m.cfg.DB.Snapshot()
	if w.vdi, w.disk, err = db.Find[api.VDI](snap, q.Get("vdi")); err != nil {
		return w, err
	}
	w.sr = w.disk.SR
	if base := q.Get("base"); base != "" && base != api.NullRef {
		if !w.differs {
			return w, api.ErrInvalidValue("format", name)
		}
		w.base, w.baseDisk, err = db.Find[api.VDI](snap, base)
	}
	return w, err
}

// outgoing is an export under way.
type outgoing struct {
	wanted
	context.Context
	d, from *storage.Disk // from is the base, or nil
	w       http.ResponseWriter
	accepts string // the codings that the client can take
	tell    func(done float64)
	now     time.Time

	length, sent int64
}

// export serves /export_raw_vdi.
func (m *Manager) export(w http.ResponseWriter, r *wire.Request) error {
	want, err := m.parse(r.URL.Query())
	if err == nil {
		err = wire.Away(m.cfg.Disks.Elsewhere(want.sr))
	}
	if err != nil {
		return err
	}
	o := &outgoing{wanted: want, Context: r.Context(), w: w, accepts: r.Header.Get("Accept-Encoding"), tell: api.Sparingly(r.Task), now: m.cfg.Now()}
	task := r.Task.Ref().String()
	if o.d, err = m.cfg.Disks.OpenDisk(o, o.vdi, false, task); err != nil {
		return err
	}
	defer m.close(o.d, o.disk)
	if !o.base.IsNull() {
		if o.from, err = m.cfg.Disks.OpenDisk(o, o.base, false, task); err != nil {
			return err
		}
		defer m.close(o.from, o.baseDisk)
	}
	err = o.write(o)
	if errors.Is(err, context.Canceled) { // nobody is there to read it
		err = wire.ErrClient(err)
	}
	return o.d.Failed(err)
}

// close gives a disk back that was read: what goes wrong then harms nobody.
func (m *Manager) close(d *storage.Disk, row *api.VDI) {
	if err := d.Close(); err != nil {
		m.cfg.Log.Warn("disk-close", "vdi", row.UUID, "err", err)
	}
}

// begin sends the head of an answer; its length may not be known, which is -1.
func (o *outgoing) begin(length int64) {
	o.length = length
	h := o.w.Header()
	h.Set("Content-Type", o.mime)
	if length >= 0 {
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s.%s"`, o.disk.UUID, o.suffix))
	o.w.WriteHeader(http.StatusOK)
}

// Write implements io.Writer.
func (o *outgoing) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		return n, wire.ErrClient(err)
	}
	if o.sent += int64(n); o.length > 0 {
		o.progress(o.sent, o.length)
	}
	return n, nil
}

// progress tells how much of a whole is done.
func (o *outgoing) progress(done, whole int64) {
	o.tell(float64(done) / float64(whole))
}

// incoming is an import under way.
type incoming struct {
	wanted
	context.Context
	disks Disks
	d     *storage.Disk
	sink  *disk.Sink
	body  io.Reader
	// length is the body's, or -1 where the client does not know it. One that pretends to
	// know ends his stream by hanging up, or by sending no more.
	length   int64
	pretends bool
	tell     func(done float64)
}

// load serves /import_raw_vdi.
func (m *Manager) load(w http.ResponseWriter, r *wire.Request) error {
	q := r.URL.Query()
	if q.Get("vdi") == "" && q.Get("sr_id") != "" {
		return m.loadNew(w, r)
	}
	want, err := m.parse(q)
	if err == nil && inPieces(q) {
		if want.suffix != "raw" {
			return api.ErrInvalidValue("chunked", q.Get("chunked"))
		}
		want.read = readPieces
	}
	if err == nil {
		err = wire.Away(m.cfg.Disks.Elsewhere(want.sr))
	}
	if err != nil || r.ContentLength == 0 {
		return err
	}
	return m.fill(w, r, want)
}

// fill writes the body to a disk.
func (m *Manager) fill(w http.ResponseWriter, r *wire.Request, want wanted) (err error) {
	ctx, cancel := wire.Lasting(r.Context())
	defer cancel(nil)
	in := &incoming{wanted: want, Context: ctx, disks: m.cfg.Disks, body: body{r.Body}, length: r.ContentLength, tell: api.Sparingly(r.Task)}
	if in.length >= wire.Pretended {
		in.length, in.pretends = -1, true
	}
	if in.d, err = m.cfg.Disks.OpenDisk(in, in.vdi, true, r.Task.Ref().String()); err != nil {
		return err
	}
	if in.pretends { // whoever does not know when it ends wants to know that it may begin
		w.Header().Set("Connection", "close") // who knows what else it holds
		w.WriteHeader(http.StatusOK)
		if ferr := http.NewResponseController(w).Flush(); ferr != nil {
			err = wire.ErrClient(ferr)
		}
	}
	in.sink = disk.NewSink(in, in.d)
	if err == nil {
		err = in.read(in)
	}
	if ferr := in.sink.Finish(); err == nil {
		err = ferr
	}
	err = in.d.Failed(err)
	if cerr := in.d.Close(); err == nil {
		err = cerr
	}
	return err
}

// loadNew makes a disk of the size of what comes, which must be known.
func (m *Manager) loadNew(w http.ResponseWriter, r *wire.Request) error {
	q := r.URL.Query()
	sr, _, err := db.Find[api.SR](m.cfg.DB.Snapshot(), q.Get("sr_id"))
	if err != nil {
		return err
	}
	if name := q.Get("format"); name != "" && name != "raw" || inPieces(q) {
		return api.ErrInvalidValue("format", name) // its size is not that of the stream
	}
	switch err := wire.Away(m.cfg.Disks.Elsewhere(sr)); {
	case err != nil || r.ContentLength == 0:
		return err
	case r.ContentLength < 0 || r.ContentLength >= wire.Pretended:
		return api.ErrImportErrorCannotHandleChunked()
	}
	making, end := m.cfg.Drafts.Making(r.Context())
	defer end()
	vdi, err := m.cfg.Disks.Create(making, storage.CreateSpec{SR: sr, Size: r.ContentLength, Name: "Imported VDI"})
	if err != nil {
		return err
	}
	row, err := db.Get(m.cfg.DB.Snapshot(), vdi)
	if err == nil {
		err = m.fill(w, r, wanted{format: formats["raw"], vdi: vdi, disk: row, sr: sr})
	}
	if err == nil {
		err = m.cfg.Drafts.Keep(r.Context(), vdi)
	}
	if err != nil { // of a disk that is half there nobody knows
		return errors.Join(err, m.cfg.Disks.Destroy(context.WithoutCancel(r.Context()), vdi))
	}
	r.Result = api.StringResult(vdi.String())
	return nil
}

// body tells how a stream failed without the network's numbers.
type body struct{ io.Reader }

// Read implements io.Reader.
func (b body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	return n, told(err)
}

// ReadHoles is what disk.ReadHoles asks for.
func (b body) ReadHoles(p []byte) (int, error) {
	n, err := disk.ReadHoles(b.Reader, p)
	return n, told(err)
}

func told(err error) error {
	var hole disk.Hole
	switch {
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &hole):
		return err
	case errors.Is(err, coding.ErrFormat):
		return refuse(err)
	}
	return wire.ErrClient(err)
}

// progress tells how much of a stream has come where the server cannot, because nobody
// knows how long it is.
func (in *incoming) progress(part float64) {
	if in.length < 0 {
		in.tell(part)
	}
}

// tooLarge is an image of a disk that is larger than the one that is there.
func (in *incoming) tooLarge(size int64) error {
	return api.ErrVDITooSmall(in.vdi.String(), strconv.FormatInt(size, 10))
}

// refuse is an image that is not one, or one that was cut off. That its client has gone
// is no fault of it.
func refuse(err error) error {
	var known *api.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, archive.ErrShort):
		return api.ErrVDIIOError("the stream was cut off")
	case errors.Is(err, archive.ErrChecksum):
		return api.ErrImportErrorSomeChecksumsFailed()
	}
	return api.ErrImportError(err.Error())
}
