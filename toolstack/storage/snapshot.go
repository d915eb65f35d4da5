package storage

import (
	"context"
	"errors"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// Live switches the running domain to overlays, all at one instant or none;
// hypervisor.ErrNotFound when it runs no more.
type Live = func(ctx context.Context, overlays map[api.VDIRef]hypervisor.Source) error

// branch is one disk that gets a new layer.
type branch struct {
	vdi  api.VDIRef
	ref  api.VDIRef // of the row that will describe the old layer
	live bool
}

// Snapshot makes a snapshot of each disk, of all at the same instant. With live nil
// nothing may be writing to them; else it is called to switch the running domain,
// for the disks that domains write to themselves: what is written to a disk that
// resets is not part of its snapshot.
func (m *Manager) Snapshot(ctx context.Context, vdis []api.VDIRef, live Live) (map[api.VDIRef]api.VDIRef, error) {
	return m.snapshot(ctx, vdis, func() (Live, error) { return live, nil }, "")
}

// snapshot asks how to switch the domain when the disks are held: until then they
// may be attached.
func (m *Manager) snapshot(ctx context.Context, vdis []api.VDIRef, how func() (Live, error), task string) (map[api.VDIRef]api.VDIRef, error) {
	if len(vdis) == 0 {
		return nil, nil
	}
	at, undo, err := m.holdAll(ctx, vdis, api.VDIOperationsSnapshot, task)
	if err != nil {
		return nil, err
	}
	defer undo()
	live, err := how()
	if err != nil {
		return nil, err
	}
	branches, err := m.branches(ctx, at, vdis, live != nil)
	if err != nil {
		return nil, err
	}
	if err := m.switchOver(ctx, at, branches, live); err != nil {
		return nil, err
	}
	taken, now := map[api.VDIRef]api.VDIRef{}, m.cfg.Now().UTC().Truncate(time.Second)
	err = m.conclude(ctx, at, branches, func(tx *db.Tx, b branch, disk, old *api.VDI) error {
		asSnapshot(b.vdi, disk, old, now)
		if err := passOn(tx, disk, old); err != nil {
			return err
		}
		mark(ctx, old)
		taken[b.vdi] = b.ref
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, b := range branches {
		m.after(ctx, at[b.vdi], b.vdi, b.ref)
	}
	return taken, nil
}

// asSnapshot makes the row of a disk's old layer one of a snapshot.
func asSnapshot(vdi api.VDIRef, disk, old *api.VDI, now time.Time) {
	c := disk.Clone()
	c.UUID, c.Location, c.PhysicalUtilisation = old.UUID, old.Location, old.PhysicalUtilisation
	c.SMConfig = amend(old.SMConfig, layerKey, "")
	c.VBDs, c.Snapshots, c.CrashDumps, c.AllowedOperations, c.CurrentOperations = nil, nil, nil, nil, nil
	c.Managed, c.IsASnapshot, c.SnapshotOf, c.SnapshotTime = true, true, vdi, now
	c.OnBoot, c.CBTEnabled = api.OnBootPersist, false
	*old = *c
}

// holdAll begins an operation on several disks or none.
func (m *Manager) holdAll(ctx context.Context, vdis []api.VDIRef, op api.VDIOperations, task string) (map[api.VDIRef]repository, func(), error) {
	at, held := map[api.VDIRef]repository{}, []func(){}
	undo := func() {
		for _, done := range held {
			done()
		}
	}
	for _, vdi := range vdis {
		r, err := m.reachDisk(vdi, "")
		if err == nil {
			var done func()
			if _, done, err = m.hold(ctx, vdi, op, task); err == nil {
				held = append(held, done)
			}
		}
		if err != nil {
			undo()
			return nil, nil, err
		}
		at[vdi] = r
	}
	return at, undo, nil
}

// branches makes an overlay for each disk or for none.
func (m *Manager) branches(ctx context.Context, at map[api.VDIRef]repository, vdis []api.VDIRef, live bool) ([]branch, error) {
	var all []branch
	for _, vdi := range vdis {
		snap := m.cfg.DB.Snapshot()
		disk, err := db.Get(snap, vdi)
		if err == nil {
			err = stays(snap, vdi, disk, live)
		}
		var ref api.VDIRef
		if err == nil {
			ref, _, err = m.overlay(ctx, at[vdi], vdi)
		}
		if err != nil {
			m.giveUp(ctx, at, all)
			return nil, err
		}
		all = append(all, branch{vdi: vdi, ref: ref, live: live && written(disk)})
	}
	return all, nil
}

func (m *Manager) giveUp(ctx context.Context, at map[api.VDIRef]repository, all []branch) {
	for _, b := range all {
		m.abandon(ctx, at[b.vdi], b.ref)
	}
}

// switchOver makes the domain write to the overlays. One that has ended meanwhile writes
// to nothing, which is as good. An answer that was lost is settled by looking at the domain.
func (m *Manager) switchOver(ctx context.Context, at map[api.VDIRef]repository, all []branch, live Live) error {
	overlays, err := m.prepare(ctx, at, all)
	if err == nil && live != nil && len(overlays) > 0 {
		if err = m.mark(ctx, all, stateSwitching); err == nil {
			if err = live(ctx, overlays); errors.Is(err, hypervisor.ErrNotFound) {
				err = nil
			}
		}
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, m.undoSwitch(ctx, at, all))
}

// prepare activates overlays of disks that are in use.
func (m *Manager) prepare(ctx context.Context, at map[api.VDIRef]repository, all []branch) (map[api.VDIRef]hypervisor.Source, error) {
	overlays := map[api.VDIRef]hypervisor.Source{}
	for _, b := range all {
		snap := m.cfg.DB.Snapshot()
		disk, err := db.Get(snap, b.vdi)
		if err != nil {
			return nil, err
		}
		layer, err := db.Get(snap, b.ref)
		if err != nil {
			return nil, err
		}
		if len(users(disk)) == 0 || disk.OnBoot == api.OnBootReset {
			continue
		}
		r := at[b.vdi]
		if _, err := r.hostd.ActivateVolume(ctx, r.uuid, layer.Location); err != nil {
			return nil, m.placed(r, b.vdi, "snapshot", 0).failed(err)
		}
		if !b.live {
			continue
		}
		layers, err := chain(snap, disk)
		if err != nil {
			return nil, err
		}
		s, err := m.source(ctx, r.hostd, r.uuid, append([]*api.VDI{layer}, layers...))
		if err != nil {
			return nil, m.placed(r, b.vdi, "snapshot", 0).failed(err)
		}
		overlays[b.vdi] = *s
	}
	return overlays, nil
}

// mark writes the state of all live branches in one transaction.
func (m *Manager) mark(ctx context.Context, all []branch, state string) error {
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		for _, b := range all {
			if !b.live {
				continue
			}
			layer, err := db.Edit(tx, b.ref)
			if err != nil {
				return err
			}
			layer.SMConfig = amend(layer.SMConfig, stateKey, state)
		}
		return nil
	})
}

// undoSwitch removes the overlays the domain does not use. Those that it does use
// after all become the disks' top layers: then the snapshot is lost, and nothing
// else.
func (m *Manager) undoSwitch(ctx context.Context, at map[api.VDIRef]repository, all []branch) error {
	ctx, cancel := finishing(ctx)
	defer cancel()
	var failed error
	for _, b := range all {
		layer, err := db.Get(m.cfg.DB.Snapshot(), b.ref)
		switch {
		case err == nil && layer.SMConfig[stateKey] == stateSwitching:
			failed = errors.Join(failed, m.settle(ctx, at[b.vdi], b.vdi))
		case err == nil && layer.SMConfig[stateKey] == "": // settled by who detached the disk
			m.settled(b.ref)
		default:
			m.abandon(ctx, at[b.vdi], b.ref)
		}
	}
	return failed
}

// conclude is the transaction in which disks move to their new layers; then makes
// of each old layer's row what it is to be.
func (m *Manager) conclude(ctx context.Context, at map[api.VDIRef]repository, all []branch, then func(tx *db.Tx, b branch, disk, old *api.VDI) error) error {
	ctx, cancel := finishing(ctx)
	defer cancel()
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		for _, b := range all {
			disk, old, err := rise(tx, b.vdi, b.ref)
			if err != nil {
				return err
			}
			if err := then(tx, b, disk, old); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, m.undoSwitch(ctx, at, all))
	}
	for _, b := range all {
		m.settled(b.ref)
	}
	return nil
}

// errOvertaken is a step that somebody else has settled: the domain had ended.
var errOvertaken = errors.New("the disk has moved to its new layer already")

// rise moves a disk to the overlay a hidden row describes; the row describes the
// old layer from then on.
func rise(tx *db.Tx, vdi, ref api.VDIRef) (disk, old *api.VDI, err error) {
	if disk, err = db.Edit(tx, vdi); err != nil {
		return nil, nil, err
	}
	if old, err = db.Edit(tx, ref); err != nil {
		return nil, nil, err
	}
	if state := old.SMConfig[stateKey]; old.SMConfig[parentKey] != disk.UUID || state != stateMaking && state != stateSwitching {
		return nil, nil, errOvertaken
	}
	if err := adopt(tx, disk, old.UUID); err != nil { // its scratch layer, and old itself
		return nil, nil, err
	}
	below, format := disk.SMConfig[parentKey], disk.SMConfig[formatKey]
	disk.Location, old.Location = old.Location, disk.Location
	disk.PhysicalUtilisation, old.PhysicalUtilisation = old.PhysicalUtilisation, disk.PhysicalUtilisation
	disk.SMConfig = amend(amend(disk.SMConfig, parentKey, old.UUID), formatKey, old.SMConfig[formatKey])
	old.SMConfig = amend(amend(amend(old.SMConfig, parentKey, below), formatKey, format), stateKey, "")
	old.VirtualSize = disk.VirtualSize
	owe(disk, old)
	return disk, old, nil
}
