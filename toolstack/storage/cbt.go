package storage

import (
	"context"
	"errors"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
	"cairn/toolstack/storage/changes"
)

// registerChanges binds what clients ask of changed blocks.
func (m *Manager) registerChanges(r *api.Registry) {
	api.HandleVDIEnableCBT(r, func(c *api.Call, vdi api.VDIRef) error {
		return m.track(c, vdi, true, operation.TaskKey(c))
	})
	api.HandleVDIDisableCBT(r, func(c *api.Call, vdi api.VDIRef) error {
		return m.track(c, vdi, false, operation.TaskKey(c))
	})
	api.HandleVDIDataDestroy(r, func(c *api.Call, vdi api.VDIRef) error {
		if err := m.notDevice(vdi); err != nil {
			return err
		}
		return m.dataDestroy(c, vdi, operation.TaskKey(c))
	})
	api.HandleVDIListChangedBlocks(r, func(c *api.Call, from, to api.VDIRef) (string, error) {
		changed, err := m.listChanged(c, from, to, operation.TaskKey(c))
		if err != nil {
			return "", err
		}
		return changed.Base64(), nil
	})
}

// track makes changes of a disk known from its next snapshot on, or no longer.
func (m *Manager) track(ctx context.Context, vdi api.VDIRef, on bool, task string) error {
	op := api.VDIOperationsDisableCBT
	if on {
		op = api.VDIOperationsEnableCBT
	}
	at, err := m.reachDisk(vdi, "")
	if err != nil {
		return err
	}
	_, done, err := m.hold(ctx, vdi, op, task)
	if err != nil {
		return err
	}
	defer done()
	var logs []string
	err = db.Modify(ctx, m.cfg.DB, vdi, func(tx *db.Tx, disk *api.VDI) error {
		if disk.CBTEnabled == on {
			return nil
		}
		if !on {
			logs = logsOf(disk)
		}
		return setCBTEnabled(tx, disk, on)
	})
	if err != nil {
		return err
	}
	m.spare(ctx, at, logs...)
	m.poke()
	return nil
}

// dataDestroy lets the bytes of a snapshot go and keeps the record of its changes.
func (m *Manager) dataDestroy(ctx context.Context, vdi api.VDIRef, task string) error {
	at, err := m.reachDisk(vdi, "")
	if err != nil {
		return err
	}
	_, done, err := m.hold(ctx, vdi, api.VDIOperationsDataDestroy, task)
	if err != nil {
		return err
	}
	defer done()
	disk, err := db.Get(m.cfg.DB.Snapshot(), vdi)
	if err != nil || disk.Type == api.VDITypeCBTMetadata {
		return err
	}
	if err := m.keep(ctx, at, vdi); err != nil {
		m.noSpace(ctx, at, err)
		return m.placed(at, vdi, "data_destroy", changes.Bytes(disk.VirtualSize)).failed(err)
	}
	var layer api.VDIRef
	err = db.Modify(ctx, m.cfg.DB, vdi, func(tx *db.Tx, disk *api.VDI) (err error) {
		if _, used := attached(tx, disk); used || len(users(disk)) > 0 {
			return api.ErrVDIInUse(vdi.String(), string(api.VDIOperationsDataDestroy))
		}
		if disk.SMConfig[owedKey] != "" {
			return errMoved
		}
		if layer, _, err = shed(tx, disk); err != nil {
			return err
		}
		disk.Type, disk.Location, disk.PhysicalUtilisation = api.VDITypeCBTMetadata, disk.UUID, 0
		disk.SMConfig = amend(amend(disk.SMConfig, parentKey, ""), formatKey, "")
		return nil
	})
	if err != nil {
		return err
	}
	m.removeGarbage(ctx, at, layer)
	m.after(ctx, at, vdi, layer)
	return nil
}

// unrelated is the error for changes that are not known.
func unrelated(why string) *api.Error {
	return backend(backendUnrelated, "Failed to calculate changed blocks for given VDIs. [opterr="+why+"]")
}

// listTries bounds how often a record is read that moves meanwhile.
const listTries = 5

// listChanged tells what changed in a disk from one of its snapshots to a later one, or
// to what it is now while nobody writes to it.
func (m *Manager) listChanged(ctx context.Context, from, to api.VDIRef, task string) (*changes.Map, error) {
	if from == to {
		return nil, unrelated("Source and target VDI are same")
	}
	at, undo, err := m.holdAll(ctx, []api.VDIRef{from, to}, api.VDIOperationsListChangedBlocks, task)
	if err != nil {
		return nil, err
	}
	defer undo()
	for range listTries {
		var all *changes.Map
		if all, err = m.changed(ctx, at[to], from, to); !errors.Is(err, errMoved) {
			return all, place{sr: at[to].ref, vdi: to, op: string(api.VDIOperationsListChangedBlocks)}.failed(err)
		}
	}
	return nil, api.ErrVDINotAvailable(to.String())
}

// changed joins the changes of all moments from one to another.
func (m *Manager) changed(ctx context.Context, at repository, from, to api.VDIRef) (*changes.Map, error) {
	snap := m.cfg.DB.Snapshot()
	first, err := db.Get(snap, from)
	if err != nil {
		return nil, err
	}
	last, err := db.Get(snap, to)
	if err != nil {
		return nil, err
	}
	if _, used := attached(snap, last); !last.IsASnapshot && (used || len(users(last)) > 0) {
		return nil, api.ErrVDIInUse(to.String(), string(api.VDIOperationsListChangedBlocks))
	}
	path, err := changes.Path(first.UUID, last.UUID, func(moment string) string {
		if disk := byUUID(snap, moment); disk != nil && disk.SR == first.SR {
			return disk.SMConfig[sinceKey]
		}
		return ""
	})
	if err != nil {
		return nil, unrelated("Source and target VDI are unrelated")
	}
	all, err := changes.New(first.VirtualSize)
	for i := 0; err == nil && i < len(path); i++ {
		all, err = m.recorded(ctx, at, snap, byUUID(snap, path[i]), all)
	}
	if err != nil {
		return nil, err
	}
	return all.Resized(last.VirtualSize)
}

// recorded adds the changes of one moment to a map. A record that cannot be read is
// dropped.
func (m *Manager) recorded(ctx context.Context, at repository, snap db.Reader, disk *api.VDI, all *changes.Map) (*changes.Map, error) {
	all, err := m.joined(ctx, at, logsOf(disk), all)
	rows := owed(snap, disk)
	if !disk.IsASnapshot {
		rows[""] = disk
	}
	for _, row := range rows {
		var has *changes.Map
		if err == nil {
			has, err = m.held(ctx, at, row)
		}
		if err == nil {
			all, err = changes.Join(all, has)
		}
	}
	switch {
	case err == nil:
		return all, nil
	case !isLost(err):
		return nil, err
	case !m.sameRecord(snap, disk):
		return nil, errMoved
	}
	if lerr := m.lose(ctx, disk, err); lerr != nil {
		return nil, errors.Join(err, lerr)
	}
	return nil, unrelated("the record of VDI " + disk.UUID + " cannot be read")
}
