package storage

import (
	"context"
	"errors"
	"fmt"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

func hasCode(err error, code string) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == code
}

// absent says that what was asked for is not there.
func absent(err error) bool { return hasCode(err, client.CodeNotFound) }

// finishing is a context for what must come to its end although the caller has
// gone.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
}

// intend records a volume that is about to be made, as a hidden row.
func (m *Manager) intend(ctx context.Context, r *api.VDI) (ref api.VDIRef, err error) {
	r.Managed, r.SMConfig = false, amend(r.SMConfig, stateKey, stateMaking)
	mark(ctx, r)
	err = m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		ref = db.Insert(tx, r)
		m.busy(ref, true)
		return nil
	})
	return ref, err
}

// busy marks rows that this process is making, which a sweep has to leave alone.
func (m *Manager) busy(ref api.VDIRef, yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.making[ref] = true; !yes {
		delete(m.making, ref)
	}
}

func (m *Manager) isBusy(ref api.VDIRef) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.making[ref]
}

// overlay makes a new, empty layer on a disk's volume: a hidden row that is still
// an intent. The caller makes something of it in a transaction, or gives it up
// with abandon.
func (m *Manager) overlay(ctx context.Context, at repository, vdi api.VDIRef) (api.VDIRef, *api.VDI, error) {
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return "", nil, err
	}
	if err := deep(snap, disk); err != nil {
		return "", nil, err
	}
	layer := hide(disk, stateMaking)
	layer.Location, layer.PhysicalUtilisation = api.NewUUID(), 0
	layer.SMConfig[parentKey], layer.SMConfig[formatKey] = disk.UUID, string(client.Qcow2)
	ref, err := m.intend(ctx, layer)
	if err != nil {
		return "", nil, err
	}
	v, err := at.hostd.CreateVolume(ctx, at.uuid, layer.Location, client.VolumeSpec{
		Size: disk.VirtualSize, Format: client.Qcow2, Backing: disk.Location, Note: makingNote,
	})
	if err != nil {
		m.abandon(ctx, at, ref)
		m.noSpace(ctx, at, err)
		return "", nil, m.placed(at, vdi, "snapshot", disk.VirtualSize).failed(err)
	}
	layer.PhysicalUtilisation = v.Used
	return ref, layer, nil
}

func (m *Manager) placed(at repository, vdi api.VDIRef, op string, asked int64) place {
	p := place{sr: at.ref, vdi: vdi, op: op, asked: asked}
	if sr, err := db.Get(m.cfg.DB.Snapshot(), at.ref); err == nil {
		p.remain = max(0, sr.PhysicalSize-sr.PhysicalUtilisation)
	}
	return p
}

// abandon removes volumes that were made, or not, and will not be used. What
// cannot be removed now is removed when the repository is looked at again.
func (m *Manager) abandon(ctx context.Context, at repository, refs ...api.VDIRef) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	if err := m.sweep(ctx, at, refs...); err != nil {
		m.cfg.Log.Warn("volume-left", "repository", at.uuid, "err", err)
		m.poke()
	}
}

// settled says that an intent has become a volume with a purpose.
func (m *Manager) settled(refs ...api.VDIRef) {
	for _, ref := range refs {
		m.busy(ref, false)
	}
}

// sweep removes volumes whose rows are intents or garbage, and then the rows. It
// looks at the row again, and never removes anything else.
func (m *Manager) sweep(ctx context.Context, at repository, refs ...api.VDIRef) error {
	var failed error
	for _, ref := range refs {
		m.busy(ref, false)
		disk, err := db.Get(m.cfg.DB.Snapshot(), ref)
		if err != nil {
			continue
		}
		state := disk.SMConfig[stateKey]
		if disk.Managed || state != stateMaking && state != stateGarbage && state != stateScratch {
			failed = errors.Join(failed, fmt.Errorf("volume %s of %s is no garbage", disk.Location, at))
			continue
		}
		if _, err := at.hostd.DeactivateVolume(ctx, at.uuid, disk.Location); err != nil && !absent(err) {
			failed = errors.Join(failed, err)
			continue
		}
		if err := at.hostd.DeleteVolume(ctx, at.uuid, disk.Location); err != nil && !absent(err) {
			failed = errors.Join(failed, err)
			continue
		}
		failed = errors.Join(failed, m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
			return ignoreGone(db.Delete(tx, ref))
		}))
	}
	return failed
}

func isCode(err error, code string) bool {
	var known *api.Error
	return errors.As(err, &known) && known.Code == code
}

func ignoreGone(err error) error {
	if isCode(err, api.CodeHandleInvalid) {
		return nil
	}
	return err
}

// garbage are the rows of a repository whose volumes are to be removed: said so,
// or left by a process that is no more.
func (m *Manager) garbage(r db.Reader, sr api.SRRef) (refs []api.VDIRef) {
	for ref, v := range disks(r, sr) {
		if v.Managed {
			continue
		}
		switch v.SMConfig[stateKey] {
		case stateGarbage:
			refs = append(refs, ref)
		case stateMaking:
			if !m.isBusy(ref) {
				refs = append(refs, ref)
			}
		case stateScratch:
			if disk := byUUID(r, v.SMConfig[diskKey]); disk == nil || len(users(disk)) == 0 {
				refs = append(refs, ref)
			}
		}
	}
	return refs
}

func byUUID(r db.Reader, uuid string) *api.VDI {
	ref, err := db.ByUUID[api.VDI](r, uuid)
	if err != nil {
		return nil
	}
	disk, err := db.Get(r, ref)
	if err != nil {
		return nil
	}
	return disk
}
