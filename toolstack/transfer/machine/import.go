package machine

import (
	"context"
	"errors"
	"io"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/network"
	"cairn/toolstack/storage"
	"cairn/toolstack/transfer/archive"
	"cairn/toolstack/transfer/ova"
	"cairn/toolstack/transfer/plan"
	"cairn/toolstack/vm"
)

// order is an import as it was asked for.
type order struct {
	plan.Options
	format   string // "" where the archive is to tell
	dryRun   bool
	endless  bool // its client does not say where it ends
	progress func(float64)
}

// receive imports an archive. With an error nothing is left of it.
func (m *Manager) receive(ctx context.Context, in io.Reader, o order) ([]api.VMRef, error) {
	refs, err := m.take(ctx, in, o)
	if err != nil {
		err = refusal(err)
		m.cfg.Log.Warn("import-failed", "err", err)
		return nil, err
	}
	for _, ref := range refs {
		m.cfg.Log.Info("vm-imported", "vm", ref)
	}
	return refs, nil
}

func (m *Manager) take(ctx context.Context, in io.Reader, o order) ([]api.VMRef, error) {
	a, err := archive.Open(in)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	r, doc, err := m.open(a, o)
	if err != nil {
		return nil, err
	}
	o.Brand = m.self().SoftwareVersion["product_brand"]
	p, err := plan.New(m.cfg.DB.Snapshot(), doc, o.Options)
	if err != nil {
		return nil, err
	}
	for _, one := range p.VMs {
		if err := vm.CheckSizes(one.Record); err != nil {
			return nil, err
		}
	}
	if o.dryRun || len(p.VMs) == 0 {
		return nil, nil
	}
	making, end := m.cfg.VMs.Making(ctx)
	defer end()
	disks, err := m.disks(making, r, p, o)
	if err == nil && !o.endless {
		err = finish(a, o)
	}
	if err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return m.arrive(ctx, p, disks)
}

// finish asks for the checksum at an archive's end. With a description that is all that is
// wanted of an archive, that of its disks stays unread, and what is behind them.
func finish(a *archive.Reader, o order) error {
	if o.Metadata {
		if _, err := a.Next(); !errors.Is(err, io.EOF) {
			return err
		}
	}
	return a.Finish()
}

// disks are those of a plan, by their places in it: made now, or here already.
func (m *Manager) disks(ctx context.Context, r contents, p *plan.Plan, o order) ([]api.VDIRef, error) {
	refs := make([]api.VDIRef, len(p.Disks))
	if o.Metadata {
		for i, d := range p.Disks {
			refs[i] = d.Here
		}
		return refs, nil
	}
	f := &filler{m: m, p: p, made: refs, places: map[string]int{}, progress: o.progress}
	return refs, f.fill(ctx, r)
}

// arrive writes what was planned around disks that are complete.
func (m *Manager) arrive(ctx context.Context, p *plan.Plan, disks []api.VDIRef) ([]api.VMRef, error) {
	list := make([]vm.Arrival, len(p.VMs))
	for i, from := range p.VMs {
		a := vm.Arrival{VM: from.Record, VTPMs: from.TPMs, Replaces: from.Replaces, Of: from.Of, Parent: from.Parent}
		for _, d := range from.Drives {
			if d.Disk != plan.None {
				d.Record.VDI = disks[d.Disk]
			}
			a.VBDs = append(a.VBDs, d.Record)
		}
		for _, n := range from.NICs {
			a.VIFs = append(a.VIFs, n.Record)
		}
		if from.Memory != plan.None {
			a.Memory = disks[from.Memory]
		}
		list[i] = a
	}
	refs, err := m.cfg.VMs.Arrive(ctx, func(tx *db.Tx) error { return before(tx, p, disks) }, list)
	if err != nil {
		return nil, err
	}
	var proper []api.VMRef
	for i, ref := range refs {
		if p.VMs[i].Of == plan.None {
			proper = append(proper, ref)
		}
	}
	return proper, nil
}

// before writes what VMs that arrive need, if they still can.
func before(tx *db.Tx, p *plan.Plan, disks []api.VDIRef) error {
	if err := p.Settle(tx); err != nil {
		return err
	}
	networks := make([]api.NetworkRef, len(p.Networks))
	for i, n := range p.Networks {
		networks[i] = n.Here
		if !n.Here.IsNull() {
			continue
		}
		ref, err := network.Insert(tx, n.Record)
		if err != nil {
			return err
		}
		networks[i] = ref
	}
	for _, one := range p.VMs {
		for _, n := range one.NICs {
			if n.Network != plan.None {
				n.Record.Network = networks[n.Network]
			}
		}
	}
	for i, d := range p.Disks {
		if !d.Here.IsNull() {
			continue
		}
		var of api.VDIRef
		if d.Of != plan.None {
			of = disks[d.Of]
		}
		if err := storage.Arrived(tx, disks[i], d.Record, d.Of != plan.None, of); err != nil {
			return err
		}
	}
	return nil
}

// refusal is the error a client gets for what is wrong with an archive.
func refusal(err error) error {
	var known *api.Error
	var other *archive.UnexpectedError
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &other):
		return api.ErrImportErrorUnexpectedFile(other.Want, clip(other.Found))
	case errors.Is(err, archive.ErrChecksum):
		return api.ErrImportErrorSomeChecksumsFailed()
	case errors.Is(err, archive.ErrShort):
		return api.ErrImportErrorPrematureEof()
	case errors.Is(err, archive.ErrFormat), errors.Is(err, ova.ErrFormat):
		return api.ErrImportError(err.Error())
	}
	return err
}

// clip shortens what somebody else has written.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
