package storage

import (
	"context"
	"errors"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// undoTimeout bounds cleaning up after a caller that has gone.
const undoTimeout = 30 * time.Second

// Attach makes a disk usable on a host and describes it to the hypervisor. Doing it
// again for the same host and mode is a success; VDI_IN_USE when somebody else has
// the disk and it cannot be shared.
func (m *Manager) Attach(ctx context.Context, host api.HostRef, vdi api.VDIRef, writable bool) (*hypervisor.Source, error) {
	if err := m.started(ctx); err != nil {
		return nil, err
	}
	at, err := m.reachDisk(vdi, host)
	if err != nil {
		return nil, err
	}
	release, err := m.enter(ctx, vdi)
	if err != nil {
		return nil, err
	}
	defer release()
	fresh, err := m.record(ctx, host, vdi, writable)
	if err != nil {
		return nil, err
	}
	s, err := m.open(ctx, at, host, vdi, writable)
	if err != nil && fresh {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		err = errors.Join(err, m.close(ctx, at, host, vdi))
	}
	if err != nil {
		return nil, place{sr: at.ref, vdi: vdi, op: "attach"}.failed(err)
	}
	return s, nil
}

func (m *Manager) reachDisk(vdi api.VDIRef, host api.HostRef) (repository, error) {
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return repository{}, err
	}
	return m.reach(snap, disk.SR, host)
}

// record enters a host as the user of a disk; fresh is false when it is already.
func (m *Manager) record(ctx context.Context, host api.HostRef, vdi api.VDIRef, writable bool) (fresh bool, err error) {
	mode := readOnly
	if writable {
		mode = readWrite
	}
	err = db.Modify(ctx, m.cfg.DB, vdi, func(tx *db.Tx, disk *api.VDI) error {
		key := hostKey + string(host)
		was := disk.SMConfig[key]
		for task, op := range disk.CurrentOperations {
			if op != api.VDIOperationsCopy || writable {
				return api.ErrOtherOperationInProgress("VDI", vdi.String(), string(op), task)
			}
		}
		if err := mayAttach(tx, vdi, disk, host, writable); err != nil {
			return err
		}
		if err := opens(tx, disk, writable); err != nil {
			return err
		}
		if was == mode || was == readWrite {
			return nil
		}
		fresh = was == ""
		disk.SMConfig = amend(disk.SMConfig, key, mode)
		return nil
	})
	return fresh, err
}

// mayAttach says whether one more host may use a disk.
func mayAttach(r db.Reader, vdi api.VDIRef, disk *api.VDI, host api.HostRef, writable bool) error {
	switch {
	case disk.Type == api.VDITypeCBTMetadata:
		return api.ErrVDIIncompatibleType(vdi.String(), string(disk.Type))
	case disk.Missing:
		return api.ErrVDIMissing(disk.SR.String(), vdi.String())
	case !disk.Managed || disk.SMConfig[stateKey] != "":
		return api.ErrVDINotManaged(vdi.String())
	case disk.Sharable && !plain(disk):
		return api.ErrVDIIncompatibleType(vdi.String(), disk.SMConfig[formatKey])
	case writable && (disk.ReadOnly || disk.IsASnapshot):
		return api.ErrVDIReadonly(vdi.String())
	case openStep(r, disk):
		return api.ErrVDINotAvailable(vdi.String())
	}
	if writable && disk.OnBoot != api.OnBootReset && len(children(r, disk)) > 0 {
		return api.ErrVDIReadonly(vdi.String()) // others are based on it
	}
	for other, mode := range users(disk) {
		same := other == host && mode == readWrite == writable
		if !same && !disk.Sharable && (writable || mode == readWrite) {
			return api.ErrVDIInUse(vdi.String(), "attach")
		}
	}
	return nil
}

// open activates a disk's volume, or a scratch layer on it.
func (m *Manager) open(ctx context.Context, at repository, host api.HostRef, vdi api.VDIRef, writable bool) (*hypervisor.Source, error) {
	disk, err := db.Get(m.cfg.DB.Snapshot(), vdi)
	if err != nil {
		return nil, err
	}
	if writable && disk.OnBoot == api.OnBootReset {
		if disk, err = m.scratch(ctx, at, vdi); err != nil {
			return nil, err
		}
	}
	layers, err := chain(m.cfg.DB.Snapshot(), disk)
	if err != nil {
		return nil, err
	}
	if _, err := at.hostd.ActivateVolume(ctx, at.uuid, disk.Location); err != nil {
		return nil, err
	}
	return m.source(ctx, at.hostd, at.uuid, layers)
}

// Detach gives a disk back. One that is not attached there is a success.
func (m *Manager) Detach(ctx context.Context, host api.HostRef, vdi api.VDIRef) error {
	disk, err := db.Get(m.cfg.DB.Snapshot(), vdi)
	if err != nil || disk.SMConfig[hostKey+string(host)] == "" {
		return nil // gone, or not attached
	}
	if err := m.started(ctx); err != nil {
		return err
	}
	at, err := m.reachDisk(vdi, host)
	if isCode(err, api.CodeSRNotAttached) {
		return m.forgetUser(ctx, host, vdi) // nothing is active there
	}
	if err != nil {
		return err
	}
	release, err := m.enter(ctx, vdi)
	if err != nil {
		return err
	}
	defer release()
	if err := m.settle(ctx, at, vdi); err != nil {
		return err
	}
	return place{sr: at.ref, vdi: vdi, op: "detach"}.failed(m.close(ctx, at, host, vdi))
}

// forgetUser drops the record of a host that uses a disk. A scratch layer nobody
// uses is garbage from then on.
func (m *Manager) forgetUser(ctx context.Context, host api.HostRef, vdi api.VDIRef) error {
	return ignoreGone(db.Modify(ctx, m.cfg.DB, vdi, func(tx *db.Tx, disk *api.VDI) error {
		if openStep(tx, disk) {
			return api.ErrVDINotAvailable(vdi.String())
		}
		disk.SMConfig = amend(disk.SMConfig, hostKey+string(host), "")
		return nil
	}))
}

// close deactivates a disk and then forgets the user. What was written to a scratch
// layer is forgotten with it.
func (m *Manager) close(ctx context.Context, at repository, host api.HostRef, vdi api.VDIRef) error {
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return nil
	}
	location := disk.Location
	scratch, s := scratchOf(snap, disk)
	if s != nil {
		location = s.Location
	}
	if _, err := at.hostd.DeactivateVolume(ctx, at.uuid, location); err != nil && !absent(err) {
		return err
	}
	m.deactivateBelow(ctx, at, vdi)
	err = m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		disk, err := db.Edit(tx, vdi)
		if err != nil {
			return nil
		}
		disk.SMConfig = amend(disk.SMConfig, hostKey+string(host), "")
		if s == nil {
			return nil
		}
		layer, err := db.Edit(tx, scratch)
		if err != nil {
			return err
		}
		layer.SMConfig = amend(layer.SMConfig, stateKey, stateGarbage)
		return nil
	})
	if err == nil && s != nil {
		err = m.sweep(ctx, at, scratch)
	}
	m.poke()
	return err
}

// deactivateBelow lets go of layers that were a disk's top one when they were
// activated, and that no other attached disk is based on.
func (m *Manager) deactivateBelow(ctx context.Context, at repository, vdi api.VDIRef) {
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return
	}
	needed := map[string]bool{}
	for ref, other := range disks(snap, at.ref) {
		if ref == vdi || len(users(other)) == 0 {
			continue
		}
		if layers, err := chain(snap, other); err == nil {
			for _, l := range layers {
				needed[l.UUID] = true
			}
		}
	}
	layers, err := chain(snap, disk)
	if err != nil {
		return
	}
	for _, l := range layers {
		if needed[l.UUID] {
			continue
		}
		if _, err := at.hostd.DeactivateVolume(ctx, at.uuid, l.Location); err != nil && !absent(err) {
			m.cfg.Log.Warn("layer-active", "repository", at.uuid, "volume", l.Location, "err", err)
		}
	}
}

// scratchOf is the layer that takes what is written to a disk that resets.
func scratchOf(r db.Reader, disk *api.VDI) (api.VDIRef, *api.VDI) {
	for ref, v := range disks(r, disk.SR) {
		if v.SMConfig[stateKey] == stateScratch && v.SMConfig[diskKey] == disk.UUID {
			return ref, v
		}
	}
	return "", nil
}

// scratch makes that layer, or finds it.
func (m *Manager) scratch(ctx context.Context, at repository, vdi api.VDIRef) (*api.VDI, error) {
	disk, err := db.Get(m.cfg.DB.Snapshot(), vdi)
	if err != nil {
		return nil, err
	}
	if _, s := scratchOf(m.cfg.DB.Snapshot(), disk); s != nil {
		return s, nil
	}
	ref, layer, err := m.overlay(ctx, at, vdi)
	if err != nil {
		return nil, err
	}
	err = db.Modify(ctx, m.cfg.DB, ref, func(_ *db.Tx, s *api.VDI) error {
		s.SMConfig = amend(amend(s.SMConfig, stateKey, stateScratch), diskKey, disk.UUID)
		layer = s.Clone()
		return nil
	})
	return layer, err
}
