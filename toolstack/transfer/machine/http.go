package machine

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/transfer/coding"
	"cairn/toolstack/transfer/plan"
	"cairn/toolstack/transfer/xva"
	"cairn/toolstack/wire"
)

// call is a stream's request as operations know it.
func call(r *wire.Request, method string) *api.Call {
	return &api.Call{Context: r.Context(), Session: r.Session, Message: api.FindMessage(method), Task: r.Task, Remote: r.RemoteAddr}
}

// serveExport writes a VM, template or snapshot with its disks.
func (m *Manager) serveExport(w http.ResponseWriter, r *wire.Request) error {
	q := r.URL.Query()
	pack, err := compression(q)
	s := scope{without: kinds(q.Get("excluded_device_types"))}
	if err == nil {
		err = truths(q, map[string]*bool{"preserve_power_state": &s.memory, "include_snapshots": &s.snapshots})
	}
	format, ferr := formatOf(q)
	if err == nil {
		err = ferr
	}
	if err == nil && format == formatOVA {
		err = onlyXVA(q, pack, s)
	}
	if err != nil {
		return err
	}
	ref, _, err := db.Find[api.VM](m.cfg.DB.Snapshot(), first(q, "ref", "uuid"))
	if err != nil {
		return err
	}
	release, err := m.hold(r, ref, s, api.VMOperationsExport)
	if err != nil {
		return err
	}
	defer release()
	c, err := collect(m.cfg.DB.Snapshot(), s, []api.VMRef{ref})
	if err != nil {
		return err
	}
	for _, d := range c.disks {
		if err := wire.Away(m.cfg.Disks.Elsewhere(d.vdi.SR)); err != nil {
			return err
		}
	}
	if format == formatOVA {
		return m.sendOVA(w, r, c)
	}
	return m.send(w, r, c, pack)
}

// hold enters an operation on a VM, and on its snapshots where they go along.
func (m *Manager) hold(r *wire.Request, ref api.VMRef, s scope, op api.VMOperations) (release func(), err error) {
	vms, err := family(m.cfg.DB.Snapshot(), s, ref)
	if err != nil {
		return nil, err
	}
	var held []func()
	release = func() {
		for _, f := range held {
			f()
		}
	}
	for _, vm := range vms {
		free, err := m.cfg.VMs.Hold(call(r, "VM.get_record"), vm, op)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, free)
	}
	return release, nil
}

// send streams an archive. The answer begins with its first bytes.
func (m *Manager) send(w http.ResponseWriter, r *wire.Request, c *collection, pack xva.Compression) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	return m.exported(m.export(r.Context(), c, w, pack, api.Sparingly(r.Task)))
}

// serveExportMetadata writes the description of a VM, or of all, without disks.
func (m *Manager) serveExportMetadata(w http.ResponseWriter, r *wire.Request) error {
	q := r.URL.Query()
	all := false
	s := scope{memory: true, snapshots: true, without: kinds(q.Get("excluded_device_types"))}
	if err := truths(q, map[string]*bool{"all": &all, "export_snapshots": &s.snapshots}); err != nil {
		return err
	}
	snap := m.cfg.DB.Snapshot()
	vms := everything(snap)
	if !all {
		ref, _, err := db.Find[api.VM](snap, first(q, "ref", "uuid"))
		if err != nil {
			return err
		}
		release, err := m.hold(r, ref, scope{}, api.VMOperationsMetadataExport)
		if err != nil {
			return err
		}
		defer release()
		vms = []api.VMRef{ref}
	}
	c, err := collect(snap, s, vms)
	if err != nil {
		return err
	}
	c.disks = nil
	return m.send(w, r, c, xva.None)
}

// serveImport makes VMs of an archive.
func (m *Manager) serveImport(w http.ResponseWriter, r *wire.Request) error {
	q := r.URL.Query()
	o := order{progress: api.Sparingly(r.Task), endless: r.ContentLength >= wire.Pretended}
	err := truths(q, map[string]*bool{"restore": &o.Restore, "force": &o.Force})
	if err == nil {
		o.format, err = formatOf(q)
	}
	if err != nil {
		return err
	}
	if text := first(q, "sr_id", "sr_uuid", "sr"); text != "" && text != api.NullRef {
		sr, _, err := db.Find[api.SR](m.cfg.DB.Snapshot(), text)
		if err != nil {
			return err
		}
		o.SR = sr
	}
	where := o.SR
	for _, pool := range db.All[api.Pool](m.cfg.DB.Snapshot()) {
		if where.IsNull() {
			where = pool.DefaultSR
		}
	}
	if err := wire.Away(m.cfg.Disks.Elsewhere(where)); err != nil {
		return err
	}
	return m.serveOrder(w, r, o)
}

// serveImportMetadata makes VMs of a description, around disks that are here.
func (m *Manager) serveImportMetadata(w http.ResponseWriter, r *wire.Request) error {
	q := r.URL.Query()
	o := order{progress: api.Sparingly(r.Task), endless: r.ContentLength >= wire.Pretended, Options: plan.Options{Metadata: true, Disks: map[string]string{}}}
	if err := truths(q, map[string]*bool{"restore": &o.Restore, "force": &o.Force, "dry_run": &o.dryRun}); err != nil {
		return err
	}
	for name, values := range q {
		if uuid, ok := strings.CutPrefix(name, "vdi:"); ok {
			o.Disks[uuid] = values[0]
		}
	}
	return m.serveOrder(w, r, o)
}

func (m *Manager) serveOrder(w http.ResponseWriter, r *wire.Request, o order) error {
	ctx, cancel := wire.Lasting(r.Context())
	defer cancel(nil)
	refs, err := m.receive(ctx, m.greet(w, body{r.Body}), o)
	if err == nil {
		r.Result = references(refs)
	}
	return err
}

// body is what a client sends: when it goes away, that is the end.
type body struct{ io.Reader }

// Read implements io.Reader.
func (b body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case errors.Is(err, coding.ErrFormat):
		return n, api.ErrImportError(err.Error())
	}
	return n, io.ErrUnexpectedEOF
}

// references are the result of an import.
type references []api.VMRef

// AppendValue implements api.Result.
func (list references) AppendValue(b []byte, e api.Encoding) []byte {
	b = api.OpenArray(b, e)
	for _, ref := range list {
		b = api.AppendRef(api.Next(b, e), e, string(ref))
	}
	return api.CloseArray(b, e)
}

// greet begins the answer to a client that sends nothing: some send no body before they
// see it. Others learn by the status how it went.
func (m *Manager) greet(w http.ResponseWriter, body io.Reader) io.Reader {
	in := bufio.NewReaderSize(body, 64<<10)
	begun := make(chan struct{})
	go func() {
		defer close(begun)
		_, _ = in.Peek(1) // the next read has its error, too
	}()
	silent := time.NewTimer(m.cfg.Patience)
	defer silent.Stop()
	select {
	case <-begun:
		return in
	case <-silent.C:
	}
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // a client that is gone sends nothing either
	<-begun
	return in
}

// download opens what a URL names.
func download(ctx context.Context, from string) (io.ReadCloser, error) {
	u, err := url.Parse(from)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, api.ErrInvalidValue("url", clip(from))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, api.ErrInvalidValue("url", clip(from))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, api.ErrImportError(err.Error())
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, api.ErrImportError("the server answers " + resp.Status)
	}
	return resp.Body, nil
}

// importFrom serves VM.import.
func (m *Manager) importFrom(c *api.Call, from string, sr api.SRRef, restore, force bool) ([]api.VMRef, error) {
	in, err := m.cfg.Get(c, from)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	refs, err := m.receive(c, in, order{Options: plan.Options{SR: sr, Restore: restore, Force: force}, progress: api.Sparingly(c.Task)})
	if err != nil && errors.Is(context.Cause(c), api.ErrCancelled) {
		err = api.ErrTaskCancelled(c.Task.Ref().String())
	}
	return refs, err
}
