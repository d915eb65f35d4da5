package storage

import (
	"context"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Clone makes a disk that reads as another does now, in constant time.
func (m *Manager) Clone(ctx context.Context, vdi api.VDIRef, name string) (api.VDIRef, error) {
	return m.clone(ctx, vdi, name, "")
}

func (m *Manager) clone(ctx context.Context, vdi api.VDIRef, name, task string) (api.VDIRef, error) {
	at, err := m.reachDisk(vdi, "")
	if err != nil {
		return "", err
	}
	_, done, err := m.hold(ctx, vdi, api.VDIOperationsClone, task)
	if err != nil {
		return "", err
	}
	defer done()
	disk, err := db.Get(m.cfg.DB.Snapshot(), vdi)
	if err != nil {
		return "", err
	}
	ref, _, err := m.overlay(ctx, at, vdi)
	if err != nil {
		return "", err
	}
	if disk.IsASnapshot {
		err = m.finish(ctx, ref, func(tx *db.Tx, c *api.VDI) error { return asClone(tx, vdi, c, name) })
	} else {
		err = m.fork(ctx, at, vdi, ref, name)
	}
	if err != nil {
		m.abandon(ctx, at, ref)
		return "", err
	}
	m.after(ctx, at, vdi, ref)
	return ref, nil
}

// fork gives a disk that is written to a new layer beside that of its clone. The
// layer they share is hidden.
func (m *Manager) fork(ctx context.Context, at repository, vdi, clone api.VDIRef, name string) error {
	live, err := m.liveOf(vdi)
	if err != nil {
		return err
	}
	places := map[api.VDIRef]repository{vdi: at}
	all, err := m.branches(ctx, places, []api.VDIRef{vdi}, live != nil)
	if err != nil {
		return err
	}
	if err := m.switchOver(ctx, places, all, live); err != nil {
		return err
	}
	err = m.conclude(ctx, places, all, func(tx *db.Tx, _ branch, _, _ *api.VDI) error {
		c, err := db.Edit(tx, clone) // based on the old layer, as rise has said
		if err != nil {
			return err
		}
		c.Managed, c.SMConfig = true, amend(c.SMConfig, stateKey, "")
		return asClone(tx, vdi, c, name)
	})
	if err == nil {
		m.settled(clone)
		m.after(ctx, at, all[0].ref)
	}
	return err
}

// asClone makes a row that of a clone: a disk of its own.
func asClone(r db.Reader, vdi api.VDIRef, c *api.VDI, name string) error {
	disk, err := db.Get(r, vdi)
	if err != nil {
		return err
	}
	d := disk.Clone()
	if name != "" {
		d.NameLabel = name
	}
	c.NameLabel, c.NameDescription, c.Type = d.NameLabel, d.NameDescription, d.Type
	c.Sharable, c.Tags, c.AllowCaching = d.Sharable && plain(c), d.Tags, d.AllowCaching
	c.OtherConfig, c.XenstoreData = d.OtherConfig, d.XenstoreData
	for key, value := range publicConfig(d.SMConfig) {
		if key != "type" {
			c.SMConfig = amend(c.SMConfig, key, value)
		}
	}
	c.SMConfig = amend(c.SMConfig, layerKey, "")
	c.OnBoot = api.OnBootPersist
	return nil
}

// Copy makes a disk of its own with the content of another, on the same or on
// another repository.
func (m *Manager) Copy(ctx context.Context, vdi api.VDIRef, sr api.SRRef, progress func(float64)) (api.VDIRef, error) {
	return m.copy(ctx, vdi, sr, "", "", progress)
}

func (m *Manager) copy(ctx context.Context, vdi api.VDIRef, sr api.SRRef, into api.VDIRef, task string, progress func(float64)) (api.VDIRef, error) {
	at, err := m.reachDisk(vdi, "")
	if err != nil {
		return "", err
	}
	to, err := m.reach(m.cfg.DB.Snapshot(), sr, at.host)
	if err != nil {
		return "", err
	}
	if err := m.allows(sr, api.StorageOperationsVDICreate); err != nil {
		return "", err
	}
	_, done, err := m.hold(ctx, vdi, api.VDIOperationsCopy, task)
	if err != nil {
		return "", err
	}
	defer done()
	ref, err := m.duplicate(ctx, at, to, vdi, progress)
	if err != nil {
		return "", err
	}
	if into.IsNull() {
		err = m.finish(ctx, ref, func(tx *db.Tx, c *api.VDI) error { return asClone(tx, vdi, c, "") })
	} else {
		err = m.replace(ctx, to, ref, into, task)
	}
	if err != nil {
		m.abandon(ctx, to, ref)
		return "", err
	}
	if !into.IsNull() {
		m.abandon(ctx, to, ref) // has the former content
		ref = into
	}
	m.after(ctx, to, ref)
	return ref, nil
}

// duplicate makes a volume with a disk's content; its row is still an intent.
func (m *Manager) duplicate(ctx context.Context, at, to repository, vdi api.VDIRef, progress func(float64)) (api.VDIRef, error) {
	disk, err := db.Get(m.cfg.DB.Snapshot(), vdi)
	if err != nil {
		return "", err
	}
	c := hide(disk, stateMaking)
	c.NameLabel, c.SR, c.Location = disk.NameLabel, to.ref, c.UUID
	delete(c.SMConfig, parentKey)
	ref, err := m.intend(ctx, c)
	if err != nil {
		return "", err
	}
	err = at.hostd.CopyVolume(ctx, at.uuid, disk.Location, to.uuid, c.Location, progress)
	if err == nil {
		err = m.described(ctx, to, ref, c.Location)
	}
	if err != nil {
		m.abandon(ctx, to, ref)
		m.noSpace(ctx, to, err)
		return "", m.placed(to, vdi, "copy", disk.VirtualSize).failed(err)
	}
	return ref, nil
}

// described writes what a volume turned out to be to its row.
func (m *Manager) described(ctx context.Context, at repository, ref api.VDIRef, name string) error {
	v, err := at.hostd.Volume(ctx, at.uuid, name)
	if err != nil {
		return err
	}
	return db.Modify(ctx, m.cfg.DB, ref, func(_ *db.Tx, c *api.VDI) error {
		c.PhysicalUtilisation, c.VirtualSize = v.Used, v.VirtualSize
		c.SMConfig = amend(c.SMConfig, formatKey, string(v.Format))
		return nil
	})
}

// replace gives a disk the volume of an intent; what it had is garbage afterwards,
// which the row of the intent describes.
func (m *Manager) replace(ctx context.Context, at repository, ref, into api.VDIRef, task string) error {
	_, done, err := m.hold(ctx, into, api.VDIOperationsRevertTo, task)
	if err != nil {
		return err
	}
	defer done()
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, into)
	if err != nil {
		return err
	}
	c, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	switch {
	case disk.SR != at.ref:
		return api.ErrInvalidValue("into_vdi", into.String())
	case disk.VirtualSize < c.VirtualSize:
		return api.ErrVDITooSmall(into.String(), strconv.FormatInt(c.VirtualSize, 10))
	}
	if disk.Sharable && !plain(c) {
		return api.ErrVDIIncompatibleType(into.String(), c.SMConfig[formatKey])
	}
	if err := mayReplace(snap, into, disk); err != nil {
		return err
	}
	if disk.VirtualSize > c.VirtualSize {
		if _, err := at.hostd.ResizeVolume(ctx, at.uuid, c.Location, disk.VirtualSize); err != nil {
			return m.placed(at, into, "copy", disk.VirtualSize).failed(err)
		}
	}
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error { return exchange(tx, into, ref, "") })
}

// exchange gives a disk the volume of a hidden row, on top of a given parent, and
// makes the row describe what the disk had: garbage, unless others are based on it.
func exchange(tx *db.Tx, vdi, ref api.VDIRef, parentUUID string) error {
	disk, err := db.Edit(tx, vdi)
	if err != nil {
		return err
	}
	if len(users(disk)) > 0 {
		return api.ErrVDIInUse(vdi.String(), "revert")
	}
	row, err := db.Edit(tx, ref)
	if err != nil {
		return err
	}
	if err := untrack(tx, disk); err != nil {
		return err
	}
	state := stateGarbage
	if len(children(tx, disk)) > 0 { // a snapshot, of which there are clones
		state = ""
	}
	if err := adopt(tx, disk, row.UUID); err != nil {
		return err
	}
	below, format := disk.SMConfig[parentKey], disk.SMConfig[formatKey]
	disk.Location, row.Location = row.Location, disk.Location
	disk.PhysicalUtilisation, row.PhysicalUtilisation = row.PhysicalUtilisation, disk.PhysicalUtilisation
	disk.SMConfig = amend(amend(disk.SMConfig, parentKey, parentUUID), formatKey, row.SMConfig[formatKey])
	row.SMConfig = amend(amend(amend(row.SMConfig, parentKey, below), formatKey, format), stateKey, state)
	return nil
}
