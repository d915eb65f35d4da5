package storage

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"syscall"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/nbd"
)

// Disk is a disk's content, lent to a stream. Until it is closed the disk is held by an
// operation: a read one is not written to by anybody, a written one not used.
type Disk struct {
	*nbd.Client
	m      *Manager
	at     repository
	vdi    api.VDIRef
	layers []string // volumes, the top one first
	write  bool
	size   int64 // what it reads as at least
	done   func()
	once   sync.Once
	err    error
}

// OpenDisk lends a disk's content to a stream: to read what is not being written to, or
// to write to what nobody uses. The operation is entered for the task. The context is
// that of the stream: when it ends, reading and writing fails; Close is needed all the
// same.
func (m *Manager) OpenDisk(ctx context.Context, vdi api.VDIRef, write bool, task string) (*Disk, error) {
	if err := m.started(ctx); err != nil {
		return nil, err
	}
	at, err := m.reachDisk(vdi, "")
	if err != nil {
		return nil, err
	}
	op := api.VDIOperationsCopy
	if write {
		op = api.VDIOperationsRevertTo // what the disk holds is replaced
	}
	_, done, err := m.hold(ctx, vdi, op, task)
	if err != nil {
		return nil, err
	}
	d := &Disk{m: m, at: at, vdi: vdi, write: write, done: done}
	if err := d.open(ctx); err != nil {
		done()
		return nil, d.place().failed(d.Failed(err))
	}
	return d, nil
}

// Open is OpenDisk for those who need no more than the bytes, and have no task.
func (m *Manager) Open(ctx context.Context, vdi api.VDIRef, write bool) (disk.Device, error) {
	d, err := m.OpenDisk(ctx, vdi, write, "")
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Disk) open(ctx context.Context) error {
	snap := d.m.cfg.DB.Snapshot()
	row, err := db.Get(snap, d.vdi)
	if err != nil {
		return err
	}
	if d.write {
		if err := mayReplace(snap, d.vdi, row); err != nil {
			return err
		}
	}
	layers, err := chain(snap, row)
	if err != nil {
		return err
	}
	req := client.ExportRequest{Writable: d.write}
	for _, l := range layers[1:] {
		req.Layers = append(req.Layers, l.Location)
	}
	lent, err := d.at.hostd.ExportVolume(ctx, d.at.uuid, row.Location, req)
	if err != nil {
		return err
	}
	d.layers = lent.Layers
	if row.Type == api.VDITypeSuspend && !d.write {
		d.size = row.VirtualSize
	}
	d.Client, err = nbd.New(ctx, lent, "", nbd.Depth)
	return err
}

// mayReplace says whether a disk's content may be written over.
func mayReplace(r db.Reader, vdi api.VDIRef, disk *api.VDI) error {
	switch {
	case disk.ReadOnly || disk.IsASnapshot || len(children(r, disk)) > 0:
		return api.ErrVDIReadonly(vdi.String())
	case len(users(disk)) > 0:
		return api.ErrVDIInUse(vdi.String(), string(api.VDIOperationsRevertTo))
	}
	return nil
}

// Close gives the disk back: what was written to it is complete, or is not.
func (d *Disk) Close() error {
	d.once.Do(func() {
		d.err = d.Failed(d.Client.Close())
		if d.write {
			d.measure()
		}
		d.done()
	})
	return d.err
}

// measure brings the figures of a disk that was written to up to date.
func (d *Disk) measure() {
	ctx, cancel := finishing(context.Background())
	defer cancel()
	if err := d.m.described(ctx, d.at, d.vdi, d.layers[0]); err != nil {
		d.m.cfg.Log.Warn("disk-figures", "vdi", d.vdi, "err", err)
	}
	d.m.after(ctx, d.at, d.vdi)
}

// Failed is what a client is told of an error of the disk.
func (d *Disk) Failed(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		err = &client.Error{Code: client.CodeNoSpace, Message: err.Error()}
	}
	var e *client.Error
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		d.m.noSpace(context.Background(), d.at, err)
		return d.place().failed(err)
	case errors.As(err, &errno) || errors.Is(err, nbd.ErrProtocol) || errors.Is(err, nbd.ErrGone):
		d.m.cfg.Log.Warn("disk-stream-failed", "vdi", d.vdi, "err", err)
		return api.ErrVDIIOError(err.Error())
	}
	return err
}

func (d *Disk) place() place {
	asked := int64(0)
	if d.Client != nil {
		asked = d.Client.Size()
	}
	return d.m.placed(d.at, d.vdi, "stream", asked)
}

// Changed are the parts in which the disk may read otherwise than a base, both being
// open: those that either has in layers that the other has not. They come in order;
// neighbours may touch.
func (d *Disk) Changed(ctx context.Context, base *Disk) iter.Seq2[disk.Extent, error] {
	return disk.Windows(0, d.Size(), func(off, n int64) ([]disk.Extent, error) {
		return d.changed(ctx, base, off, n)
	})
}

func (d *Disk) changed(ctx context.Context, base *Disk, off, n int64) ([]disk.Extent, error) {
	mine, its := own(d.layers, base.layers)
	all, err := d.above(ctx, mine, off, n)
	if err != nil || off >= base.Size() {
		return all, err
	}
	more, err := base.above(ctx, its, off, min(n, base.Size()-off))
	return union(all, more), err
}

// own is how many layers each of two chains has to itself.
func own(a, b []string) (int, int) {
	for i, name := range a {
		if j := slices.Index(b, name); j >= 0 {
			return i, j
		}
	}
	return len(a), len(b)
}

// above are the parts whose bytes are in one of the upper n layers.
func (d *Disk) above(ctx context.Context, layers int, off, n int64) (list []disk.Extent, err error) {
	if !d.Knows(nbd.Depth) {
		return nil, backend(backendVDIUnavailable, "The VDI is not available [opterr=its layers cannot be told apart]")
	}
	has := d.held(off, n)
	var runs []nbd.Status
	if has > 0 {
		runs, err = d.Status(ctx, nbd.Depth, off, has)
	}
	for _, r := range runs {
		if r.Flags > 0 && int(r.Flags) <= layers {
			list = disk.Append(list, disk.Extent{Off: r.Off, Len: r.Len})
		}
	}
	return disk.Append(list, disk.Extent{Off: off + has, Len: n - has}), err
}

// union joins two lists that are in order.
func union(a, b []disk.Extent) (all []disk.Extent) {
	for len(a) > 0 || len(b) > 0 {
		if len(a) == 0 || len(b) > 0 && b[0].Off < a[0].Off {
			a, b = b, a
		}
		e := a[0]
		a = a[1:]
		if last := len(all) - 1; last >= 0 && all[last].End() >= e.Off {
			all[last].Len = max(all[last].End(), e.End()) - all[last].Off
			continue
		}
		all = append(all, e)
	}
	return all
}

// Elsewhere is a host that can reach a repository which no host can that this process
// speaks for.
func (m *Manager) Elsewhere(ref api.SRRef) (api.HostRef, bool) {
	snap := m.cfg.DB.Snapshot()
	if _, err := m.reach(snap, ref, ""); err == nil {
		return "", false
	}
	sr, err := db.Get(snap, ref)
	if err != nil {
		return "", false
	}
	for _, p := range sr.PBDs {
		if pbd, err := db.Get(snap, p); err == nil && pbd.CurrentlyAttached && m.cfg.Hostd(pbd.Host) == nil {
			return pbd.Host, true
		}
	}
	return "", false
}
