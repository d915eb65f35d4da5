package storage

import (
	"context"
	"errors"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// lock is one disk's entry in current_operations.
type lock struct {
	m    *Manager
	vdi  api.VDIRef
	task string
}

// hold begins an operation on a disk and keeps its tree until done is called.
func (m *Manager) hold(ctx context.Context, vdi api.VDIRef, op api.VDIOperations, task string) (l *lock, done func(), err error) {
	if err := m.mayGrow(vdi, op); err != nil {
		return nil, nil, err
	}
	release, err := m.enter(ctx, vdi)
	if err != nil {
		return nil, nil, err
	}
	if err := m.sizedBefore(ctx, vdi); err != nil {
		release()
		return nil, nil, err
	}
	if task == "" {
		task = api.NewRef[api.Task]().String()
	}
	l = &lock{m, vdi, task}
	err = m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		disk, err := operation.VDI.Begin(tx, vdi, op, task)
		if err == nil && openStep(tx, disk) {
			return api.ErrVDINotAvailable(vdi.String())
		}
		if err == nil {
			err = unclaimed(ctx, tx, disk, op)
		}
		if err == nil && op == api.VDIOperationsCopy && written(disk) {
			return api.ErrVDIInUse(vdi.String(), string(op)) // whatever its drives say after a crash
		}
		return err
	})
	if err != nil {
		release()
		return nil, nil, err
	}
	return l, func() { l.end(ctx); release() }, nil
}

// end leaves current_operations; a disk that is gone has none.
func (l *lock) end(ctx context.Context) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	err := l.m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		if _, err := db.Get(tx, l.vdi); err != nil {
			return nil
		}
		_, err := operation.VDI.End(tx, l.vdi, l.task)
		return err
	})
	if err != nil {
		l.m.cfg.Log.Error("vdi-operation-not-ended", "vdi", l.vdi, "err", err)
	}
}

// Destroy removes a disk. Layers that others are based on stay, hidden.
func (m *Manager) Destroy(ctx context.Context, vdi api.VDIRef) error { return m.destroy(ctx, vdi, "") }

func (m *Manager) destroy(ctx context.Context, vdi api.VDIRef, task string) error {
	at, err := m.reachDisk(vdi, "")
	if err != nil {
		return err
	}
	_, done, err := m.hold(ctx, vdi, api.VDIOperationsDestroy, task)
	if err != nil {
		return err
	}
	defer done()
	logs := m.keepFor(ctx, at, vdi)
	var layer api.VDIRef
	err = m.cfg.DB.Update(ctx, func(tx *db.Tx) (err error) {
		layer, err = m.drop(tx, vdi)
		return err
	})
	if err != nil {
		return err
	}
	m.removeGarbage(ctx, at, layer)
	m.spare(ctx, at, logs...)
	m.after(ctx, at, layer)
	return nil
}

// drop makes a disk's row go, and what refers to it. Its volume becomes a hidden
// layer where others are based on it, else garbage; its row is returned.
func (m *Manager) drop(tx *db.Tx, vdi api.VDIRef) (layer api.VDIRef, err error) {
	disk, err := db.Get(tx, vdi)
	if err != nil {
		return "", err
	}
	if !disk.Managed {
		return "", api.ErrVDINotManaged(vdi.String())
	}
	if len(users(disk)) > 0 {
		return "", api.ErrVDIInUse(vdi.String(), string(api.VDIOperationsDestroy))
	}
	sr, err := db.Get(tx, disk.SR)
	if err != nil {
		return "", err
	}
	if d, err := driverOf(sr.Type); err == nil && d.found {
		return "", api.ErrVDIIsAPhysicalDevice(vdi.String())
	}
	if disk.Type == api.VDITypeCBTMetadata {
		return "", errors.Join(bypass(tx, disk, nil), m.dropRow(tx, vdi, disk))
	}
	ref, row, err := shed(tx, disk)
	if err != nil {
		return "", err
	}
	return ref, errors.Join(bypass(tx, disk, row), m.dropRow(tx, vdi, disk))
}

// shed gives a disk's volume to a hidden row, which is garbage unless others are based
// on it.
func shed(tx *db.Tx, disk *api.VDI) (api.VDIRef, *api.VDI, error) {
	row := hide(disk, stateGarbage)
	if len(children(tx, disk)) > 0 {
		delete(row.SMConfig, stateKey)
	}
	return db.Insert(tx, row), row, adopt(tx, disk, row.UUID)
}

// removeGarbage removes a volume if its row says that it is garbage.
func (m *Manager) removeGarbage(ctx context.Context, at repository, ref api.VDIRef) {
	if row, err := db.Get(m.cfg.DB.Snapshot(), ref); err == nil && row.SMConfig[stateKey] == stateGarbage {
		m.abandon(ctx, at, ref)
	}
}

// dropRow deletes a row and the connections to it.
func (m *Manager) dropRow(tx *db.Tx, vdi api.VDIRef, disk *api.VDI) error {
	for _, ref := range disk.VBDs {
		b, err := db.Get(tx, ref)
		switch {
		case err != nil:
			continue
		case b.Type == api.VBDTypeCD:
			drive, err := db.Edit(tx, ref)
			if err != nil {
				return err
			}
			drive.VDI, drive.Empty = "", true
		default:
			if err := db.Delete(tx, ref); err != nil {
				return err
			}
		}
	}
	return db.Delete(tx, vdi)
}
