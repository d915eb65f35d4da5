package storage

import (
	"context"
	"errors"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/storage/coalesce"
)

// stepKey of a row's sm_config is the step of a coalesce its volume is in.
const stepKey = "cairn:coalesce"

// A running domain writes the disk's top layer into the one below; its guest has
// been stopped for the moment in which the disk moves, or is about to be.
const (
	stepLive    = "live"
	stepStopped = "live-stopped"
)

// moving reports whether a running domain is merging a disk's layers.
func moving(disk *api.VDI) bool {
	step := disk.SMConfig[stepKey]
	return step == stepLive || step == stepStopped
}

// settleCommit: the domain has moved to the layer below, or it still writes to the
// top one. When it is gone the top layer is right: see pivot.
func (m *Manager) settleCommit(ctx context.Context, at repository, vdi api.VDIRef, disk *api.VDI) error {
	path, u, err := m.topOf(ctx, vdi)
	if err != nil {
		return err
	}
	_, below, ok := parent(m.cfg.DB.Snapshot(), disk)
	moved := false
	if ok && path != "" {
		v, err := at.hostd.Volume(ctx, at.uuid, below.Location)
		if err != nil && !absent(err) {
			return err
		}
		moved = err == nil && v.Path == path
	}
	if moved {
		if err := m.activate(ctx, at, below.Location); err != nil {
			return err
		}
	}
	err = m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		if moved {
			return sink(tx, vdi)
		}
		disk, err := db.Edit(tx, vdi)
		if err == nil {
			disk.SMConfig = amend(disk.SMConfig, stepKey, "")
		}
		return err
	})
	if err != nil || u.vm == "" || disk.SMConfig[stepKey] != stepStopped {
		return err
	}
	return m.letGo(ctx, u)
}

// sinking reports whether a disk that no domain has is being merged into the layer below.
func sinking(disk *api.VDI) bool { return disk.SMConfig[stepKey] == string(coalesce.Leaf) }

// forgetLeaf drops the step of a merge that did not come to its end. It need not: the disk
// reads as it did, through its top layer. What has happened to the disk since may forbid
// the step, and one that is recorded keeps its neighbours from merging.
func (m *Manager) forgetLeaf(ctx context.Context, vdi api.VDIRef) error {
	return ignoreGone(db.Modify(ctx, m.cfg.DB, vdi, func(_ *db.Tx, v *api.VDI) error {
		if sinking(v) {
			v.SMConfig = amend(v.SMConfig, stepKey, "")
		}
		return nil
	}))
}

// activate counts a layer as in use by itself, before the one above it is let go.
func (m *Manager) activate(ctx context.Context, at repository, name string) error {
	_, err := at.hostd.ActivateVolume(ctx, at.uuid, name)
	return err
}

// letGo resumes a guest that was stopped while its disk moved.
func (m *Manager) letGo(ctx context.Context, u use) error {
	err := m.cfg.Domains(u.host).Resume(ctx, u.vm)
	if errors.Is(err, hypervisor.ErrNotFound) || errors.Is(err, hypervisor.ErrBadState) {
		return nil
	}
	return err
}

// sink moves a disk or snapshot to the layer below, which holds all its data; the
// row of that layer describes the former volume, and is garbage.
func sink(tx *db.Tx, vdi api.VDIRef) error {
	disk, err := db.Edit(tx, vdi)
	if err != nil {
		return err
	}
	ref, _, ok := parent(tx, disk)
	if !ok {
		return backend(backendVDIUnavailable, "The VDI is not available [opterr=it has no layer below]")
	}
	below, err := db.Edit(tx, ref)
	if err != nil {
		return err
	}
	under, format := below.SMConfig[parentKey], below.SMConfig[formatKey]
	disk.Location, below.Location = below.Location, disk.Location
	disk.PhysicalUtilisation, below.PhysicalUtilisation = below.PhysicalUtilisation, disk.PhysicalUtilisation
	below.SMConfig = amend(amend(amend(below.SMConfig, parentKey, disk.UUID), formatKey, disk.SMConfig[formatKey]), stateKey, stateGarbage)
	disk.SMConfig = amend(amend(amend(disk.SMConfig, parentKey, under), formatKey, format), stepKey, "")
	return nil
}
