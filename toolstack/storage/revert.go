package storage

import (
	"context"
	"errors"
	"maps"
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Revert makes disks that nobody uses read as snapshots of theirs do, which are named
// by the disks: all of them or none.
func (m *Manager) Revert(ctx context.Context, snapshots map[api.VDIRef]api.VDIRef) error {
	return m.revert(ctx, snapshots, "")
}

// goingBack is a disk that reads as its snapshot once it has a new layer on that.
type goingBack struct {
	at       repository
	vdi, ref api.VDIRef
	uuid     string // of the snapshot
	size     int64
}

func (m *Manager) revert(ctx context.Context, snapshots map[api.VDIRef]api.VDIRef, task string) error {
	all, undo, err := m.revertible(ctx, snapshots, task)
	defer undo()
	if err == nil {
		err = m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
			for _, b := range all {
				if err := b.goBack(tx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, b := range all {
		if row, gerr := db.Get(m.cfg.DB.Snapshot(), b.ref); gerr == nil && row.SMConfig[stateKey] != "" {
			m.abandon(ctx, b.at, b.ref) // what was made, or what it has replaced
		}
		m.settled(b.ref)
		m.after(ctx, b.at, b.vdi, b.ref)
	}
	return err
}

// revertible holds disks and snapshots and makes the new layers. What it has made and
// what it holds it tells also with an error.
func (m *Manager) revertible(ctx context.Context, snapshots map[api.VDIRef]api.VDIRef, task string) (all []goingBack, undo func(), err error) {
	var held []func()
	undo = func() {
		for _, done := range slices.Backward(held) {
			done()
		}
	}
	vdis := slices.Sorted(maps.Keys(snapshots))
	for _, vdi := range vdis {
		for ref, op := range map[api.VDIRef]api.VDIOperations{snapshots[vdi]: api.VDIOperationsRevertFrom, vdi: api.VDIOperationsRevertTo} {
			_, done, err := m.hold(ctx, ref, op, task)
			if err != nil {
				return nil, undo, err
			}
			held = append(held, done)
		}
	}
	for _, vdi := range vdis {
		b, err := m.layerToRevert(ctx, vdi, snapshots[vdi])
		if b.ref != "" {
			all = append(all, b)
		}
		if err != nil {
			return all, undo, err
		}
	}
	return all, undo, nil
}

func (m *Manager) layerToRevert(ctx context.Context, vdi, snapshot api.VDIRef) (b goingBack, err error) {
	snap := m.cfg.DB.Snapshot()
	s, err := db.Get(snap, snapshot)
	if err != nil {
		return b, err
	}
	if disk, err := db.Get(snap, vdi); err != nil || disk.SR != s.SR {
		return b, errors.Join(err, api.ErrInvalidValue("snapshot", snapshot.String()))
	}
	b.vdi, b.uuid, b.size = vdi, s.UUID, s.VirtualSize
	if b.at, err = m.reachDisk(vdi, ""); err != nil {
		return b, err
	}
	b.ref, _, err = m.overlay(ctx, b.at, snapshot)
	return b, err
}

func (b goingBack) goBack(tx *db.Tx) error {
	if err := exchange(tx, b.vdi, b.ref, b.uuid); err != nil {
		return err
	}
	disk, err := db.Edit(tx, b.vdi)
	if err == nil {
		disk.VirtualSize = b.size
	}
	return err
}
