package storage

import (
	"context"
	"errors"
	"time"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// registerDisks binds what makes, changes and removes disks.
func (m *Manager) registerDisks(r *api.Registry) {
	api.HandleVDICreate(r, m.createVDI)
	api.HandleVDIDestroy(r, func(c *api.Call, vdi api.VDIRef) error {
		if err := m.notDevice(vdi); err != nil {
			return err
		}
		return m.destroy(c, vdi, operation.TaskKey(c))
	})
	api.HandleVDIClone(r, func(c *api.Call, vdi api.VDIRef, _ map[string]string) (api.VDIRef, error) {
		if err := m.notDevice(vdi); err != nil {
			return "", err
		}
		return m.clone(c, vdi, "", operation.TaskKey(c))
	})
	api.HandleVDISnapshot(r, m.snapshotVDI)
	api.HandleVDIRevert(r, m.revertVDI)
	api.HandleVDICopy(r, m.copyVDI)
	api.HandleVDIResize(r, func(c *api.Call, vdi api.VDIRef, size int64) error {
		return m.resize(c, vdi, size, api.VDIOperationsResize, operation.TaskKey(c))
	})
	api.HandleVDIResizeOnline(r, func(c *api.Call, vdi api.VDIRef, size int64) error {
		return m.resize(c, vdi, size, api.VDIOperationsResizeOnline, operation.TaskKey(c))
	})
	api.HandleVDIForget(r, m.forgetVDI)
	api.HandleVDIIntroduce(r, m.introduceVDI)
	api.HandleVDIUpdate(r, m.updateVDI)
	m.registerChanges(r)
}

// notDevice refuses what cannot be done to a drive or a USB disk.
func (m *Manager) notDevice(vdi api.VDIRef) error {
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return err
	}
	sr, err := db.Get(snap, disk.SR)
	if err != nil {
		return err
	}
	if d, err := driverOf(sr.Type); err == nil && d.blocks {
		return api.ErrVDIIsAPhysicalDevice(vdi.String())
	}
	return nil
}

func (m *Manager) createVDI(c *api.Call, args *api.VDI) (api.VDIRef, error) {
	return m.Create(c, CreateSpec{
		SR: args.SR, Size: args.VirtualSize, Name: args.NameLabel, Description: args.NameDescription,
		Type: args.Type, Sharable: args.Sharable, ReadOnly: args.ReadOnly,
		OtherConfig: args.OtherConfig, XenstoreData: args.XenstoreData, SMConfig: args.SMConfig, Tags: args.Tags,
	})
}

func (m *Manager) snapshotVDI(c *api.Call, vdi api.VDIRef, _ map[string]string) (api.VDIRef, error) {
	if err := m.notDevice(vdi); err != nil {
		return "", err
	}
	live := func() (Live, error) { return m.liveOf(vdi) }
	taken, err := m.snapshot(c, []api.VDIRef{vdi}, live, operation.TaskKey(c))
	return taken[vdi], err
}

// revertVDI makes the disk a snapshot is of read as the snapshot.
func (m *Manager) revertVDI(c *api.Call, snapshot api.VDIRef) error {
	s, err := db.Get(m.cfg.DB.Snapshot(), snapshot)
	if err != nil {
		return err
	}
	if !s.IsASnapshot {
		return api.ErrOperationNotAllowed("the VDI is not a snapshot")
	}
	return m.revert(c, map[api.VDIRef]api.VDIRef{s.SnapshotOf: snapshot}, operation.TaskKey(c))
}

// copyVDI copies to a repository, or into a disk that is there. A base says what
// both have in common already, which saves nothing here.
func (m *Manager) copyVDI(c *api.Call, vdi api.VDIRef, sr api.SRRef, base, into api.VDIRef) (api.VDIRef, error) {
	snap := m.cfg.DB.Snapshot()
	if !base.IsNull() {
		if _, err := db.Get(snap, base); err != nil {
			return "", err
		}
	}
	if !into.IsNull() {
		disk, err := db.Get(snap, into)
		if err != nil {
			return "", err
		}
		sr = disk.SR
	}
	made, err := m.copy(c, vdi, sr, into, operation.TaskKey(c), c.Task.Set)
	if err != nil && errors.Is(context.Cause(c), api.ErrCancelled) {
		err = api.ErrTaskCancelled(c.Task.Ref().String())
	}
	return made, err
}

// forgetVDI drops the row and leaves the volume.
func (m *Manager) forgetVDI(c *api.Call, vdi api.VDIRef) error {
	return m.cfg.DB.Update(c, func(tx *db.Tx) error {
		disk, err := db.Get(tx, vdi)
		if err != nil {
			return err
		}
		if err := operation.VDI.Check(tx, vdi, disk, api.VDIOperationsForget); err != nil {
			return err
		}
		if len(users(disk)) > 0 || len(above(tx, disk)) > 0 {
			return api.ErrVDIInUse(vdi.String(), string(api.VDIOperationsForget))
		}
		return errors.Join(bypass(tx, disk, nil), m.dropRow(tx, vdi, disk))
	})
}

// introduceVDI makes a row for a volume that has none.
func (m *Manager) introduceVDI(c *api.Call, uuid, label, description string, ref api.SRRef, kind api.VDIType, sharable, readOnly bool,
	otherConfig map[string]string, location string, xenstoreData, smConfig map[string]string, managed bool, _, _ int64,
	metadataOf api.PoolRef, isSnapshot bool, snapshotTime time.Time, snapshotOf api.VDIRef,
) (api.VDIRef, error) {
	at, err := m.reach(m.cfg.DB.Snapshot(), ref, "")
	if err != nil {
		return "", err
	}
	if err := m.allows(ref, api.StorageOperationsVDIIntroduce); err != nil {
		return "", err
	}
	v, err := at.hostd.Volume(c, at.uuid, location)
	if absent(err) {
		return "", api.ErrVDILocationMissing(ref.String(), location)
	}
	if err != nil {
		return "", place{sr: ref}.failed(err)
	}
	if sharable && (v.Format != client.Raw || v.Backing != "") {
		return "", api.ErrVDIIncompatibleType(location, string(v.Format))
	}
	r := api.NewVDI()
	r.UUID, r.NameLabel, r.NameDescription, r.SR, r.Type = uuid, label, description, ref, kind
	r.Sharable, r.ReadOnly, r.OtherConfig, r.Location, r.XenstoreData = sharable, readOnly, otherConfig, location, xenstoreData
	r.SMConfig, r.Managed, r.MetadataOfPool = publicConfig(smConfig), managed, metadataOf
	r.VirtualSize, r.PhysicalUtilisation = v.VirtualSize, v.Used
	r.IsASnapshot, r.SnapshotTime, r.SnapshotOf = isSnapshot, snapshotTime, snapshotOf
	r.SMConfig[formatKey] = string(v.Format)
	r.OnBoot = api.OnBootPersist
	var made api.VDIRef
	err = m.cfg.DB.Update(c, func(tx *db.Tx) error {
		if byUUID(tx, uuid) != nil {
			return api.ErrUUIDInvalid("VDI", uuid)
		}
		for _, other := range disks(tx, ref) {
			if other.Location == location {
				return api.ErrLocationNotUnique(ref.String(), location)
			}
			if v.Backing != "" && other.Location == v.Backing {
				r.SMConfig[parentKey] = other.UUID
			}
		}
		if v.Backing != "" && r.SMConfig[parentKey] == "" {
			return backend(backendVDIUnavailable, "The VDI is not available [opterr=its layer below, "+v.Backing+", is not known]")
		}
		made = db.Insert(tx, r)
		return nil
	})
	if err != nil {
		return "", err
	}
	m.after(c, at, made)
	return made, nil
}

// updateVDI reads a disk's figures from its volume.
func (m *Manager) updateVDI(c *api.Call, vdi api.VDIRef) error {
	at, err := m.reachDisk(vdi, "")
	if err != nil {
		return err
	}
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return err
	}
	if err := operation.VDI.Check(snap, vdi, disk, api.VDIOperationsUpdate); err != nil {
		return err
	}
	if disk.Type == api.VDITypeCBTMetadata {
		return nil // it has no volume
	}
	v, err := at.hostd.Volume(c, at.uuid, disk.Location)
	if err != nil {
		return place{sr: at.ref, vdi: vdi, op: "update"}.failed(err)
	}
	return db.Modify(c, m.cfg.DB, vdi, func(_ *db.Tx, d *api.VDI) error {
		if d.Location == v.Name {
			d.PhysicalUtilisation = v.Used
			d.VirtualSize = max(d.VirtualSize, v.VirtualSize)
		}
		return nil
	})
}
