package storage

import (
	"context"
	"errors"
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// use is a disk of a running domain.
type use struct {
	host   api.HostRef
	ref    api.VMRef
	vm, id string // uuids of the VM and of the VBD
}

// usesOf are the domains that may have a disk: those of VMs that are said to run.
func usesOf(r db.Reader, disk *api.VDI) (all []use) {
	for _, ref := range disk.VBDs {
		b, err := db.Get(r, ref)
		if err != nil {
			continue
		}
		vm, err := db.Get(r, b.VM)
		if err != nil || vm.ResidentOn.IsNull() {
			continue
		}
		all = append(all, use{vm.ResidentOn, b.VM, vm.UUID, b.UUID})
	}
	return all
}

// written reports whether what is written to a disk goes to its own top layer.
func written(disk *api.VDI) bool {
	for _, mode := range users(disk) {
		if mode == readWrite {
			return disk.OnBoot != api.OnBootReset
		}
	}
	return false
}

type ownerKey struct{}

// OnBehalf returns a context for the operation of a VM that has the VM's devices
// reserved for a domain to come: what it does to the disks in between is safe.
func OnBehalf(ctx context.Context, task string) context.Context {
	return context.WithValue(ctx, ownerKey{}, task)
}

// claim is an operation that is about to give a disk to a domain: which layer that
// will open may be decided already.
type claim struct {
	ref  api.VBDRef
	task string
	op   api.VBDOperations
}

func claims(r db.Reader, disk *api.VDI) []claim {
	return claimsBy(r, disk, api.VBDOperationsAttach, api.VBDOperationsPlug, api.VBDOperationsInsert)
}

// claimsBy are the drives that do something of these to a disk.
func claimsBy(r db.Reader, disk *api.VDI, ops ...api.VBDOperations) (all []claim) {
	for _, ref := range disk.VBDs {
		v, err := db.Get(r, ref)
		if err != nil {
			continue
		}
		for task, op := range v.CurrentOperations {
			if slices.Contains(ops, op) {
				all = append(all, claim{ref, task, op})
			}
		}
	}
	return all
}

// unclaimed refuses to move a disk that somebody else's domain is about to get or to
// lose.
func unclaimed(ctx context.Context, r db.Reader, disk *api.VDI, op api.VDIOperations) error {
	switch op {
	case api.VDIOperationsSnapshot, api.VDIOperationsClone, api.VDIOperationsResizeOnline:
	default:
		return nil // the table has asked for more
	}
	leaving := claimsBy(r, disk, api.VBDOperationsUnplug, api.VBDOperationsUnplugForce)
	for _, c := range append(leaving, claims(r, disk)...) {
		if c.task != ctx.Value(ownerKey{}) {
			return api.ErrOtherOperationInProgress("VBD", c.ref.String(), string(c.op), c.task)
		}
	}
	return nil
}

// stays refuses to move a disk to another layer under somebody who would go on
// writing to the old one: live is whether one domain is told. A disk that is
// reserved by the operation itself has no domain yet.
func stays(r db.Reader, vdi api.VDIRef, disk *api.VDI, live bool) error {
	if !written(disk) {
		return nil
	}
	holders := 0
	for _, ref := range disk.VBDs {
		v, err := db.Get(r, ref)
		if err == nil && v.Mode == api.VBDModeRW && (v.CurrentlyAttached || len(v.CurrentOperations) > 0) {
			holders++
		}
	}
	if holders > 1 || !live && len(claims(r, disk)) == 0 {
		return api.ErrVDIInUse(vdi.String(), string(api.VDIOperationsSnapshot))
	}
	return nil
}

// liveOf switches the one domain that has a disk attached; nil when none has.
func (m *Manager) liveOf(vdi api.VDIRef) (Live, error) {
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return nil, err
	}
	if !written(disk) {
		return nil, nil
	}
	uses := usesOf(snap, disk)
	if len(uses) != 1 || m.cfg.Domains(uses[0].host) == nil {
		return nil, api.ErrVDIInUse(vdi.String(), "snapshot")
	}
	return func(ctx context.Context, overlays map[api.VDIRef]hypervisor.Source) error {
		return m.cfg.Domains(uses[0].host).Snapshot(ctx, uses[0].vm, []hypervisor.Overlay{{ID: uses[0].id, Source: overlays[vdi]}})
	}, nil
}

// topOf is the path a domain writes a disk to; "" when no domain has the disk.
func (m *Manager) topOf(ctx context.Context, vdi api.VDIRef) (string, use, error) {
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return "", use{}, err
	}
	for _, u := range usesOf(snap, disk) {
		d := m.cfg.Domains(u.host)
		if d == nil {
			continue
		}
		// A switch that was given up may be under way: what the domain has before it is over
		// says nothing.
		var hardware hypervisor.Hardware
		err := d.Settled(ctx, u.vm)
		if err == nil {
			hardware, err = d.Hardware(ctx, u.vm)
		}
		if errors.Is(err, hypervisor.ErrNotFound) {
			continue
		}
		if err != nil {
			return "", use{}, err
		}
		if has, yes := hardware.Disk(u.id); yes && has.Source != nil {
			return has.Source.Path, u, nil
		}
	}
	return "", use{}, nil
}

// openStep reports whether a running domain was being switched when this was last
// heard of.
func openStep(r db.Reader, disk *api.VDI) bool {
	if moving(disk) {
		return true
	}
	_, layer := switchingOf(r, disk)
	return layer != nil
}

func switchingOf(r db.Reader, disk *api.VDI) (api.VDIRef, *api.VDI) {
	for ref, v := range children(r, disk) {
		if v.SMConfig[stateKey] == stateSwitching {
			return ref, v
		}
	}
	return "", nil
}

// openSteps are the disks of a repository with an open step.
func openSteps(r db.Reader, sr api.SRRef) map[string]bool {
	open := map[string]bool{}
	for _, v := range disks(r, sr) {
		if v.SMConfig[stateKey] == stateSwitching {
			open[v.SMConfig[parentKey]] = true
		}
		if moving(v) || sinking(v) || unsized(v) {
			open[v.UUID] = true
		}
	}
	return open
}

// settle ends an open step of a disk by looking at what the domain has, or forgets one
// that need not be finished. A disk without an open step is left alone.
func (m *Manager) settle(ctx context.Context, at repository, vdi api.VDIRef) error {
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return ignoreGone(err)
	}
	if ref, layer := switchingOf(snap, disk); layer != nil {
		return m.settleSwitch(ctx, at, vdi, ref, layer)
	}
	switch {
	case moving(disk):
		return m.settleCommit(ctx, at, vdi, disk)
	case sinking(disk):
		return m.forgetLeaf(ctx, vdi)
	case unsized(disk):
		return m.settleSize(ctx, at, vdi)
	}
	return nil
}

// settleSwitch: a domain that is gone may have written to the overlay. Read through
// it the disk is right in any case, so then the overlay stays.
func (m *Manager) settleSwitch(ctx context.Context, at repository, vdi, ref api.VDIRef, layer *api.VDI) error {
	path, _, err := m.topOf(ctx, vdi)
	if err != nil {
		return err
	}
	v, err := at.hostd.Volume(ctx, at.uuid, layer.Location)
	if err != nil && !absent(err) {
		return err
	}
	if absent(err) || path != "" && path != v.Path {
		m.cfg.Log.Info("snapshot-undone", "vdi", vdi)
		if err := db.Modify(ctx, m.cfg.DB, ref, func(_ *db.Tx, r *api.VDI) error {
			r.SMConfig = amend(r.SMConfig, stateKey, stateGarbage)
			return nil
		}); err != nil {
			return err
		}
		return m.sweep(ctx, at, ref)
	}
	m.cfg.Log.Info("snapshot-half-done", "vdi", vdi, "layer", layer.Location)
	err = m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		_, _, err := rise(tx, vdi, ref)
		return err
	})
	if err == nil {
		m.settled(ref)
		m.poke()
	}
	return err
}
