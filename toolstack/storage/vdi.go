package storage

import (
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// registerVDI binds the settings of disks. Those from set_missing on are for
// storage drivers, which report what they found.
func (m *Manager) registerVDI(r *api.Registry) {
	api.HandleVDISetNameLabel(r, set(m, func(_ *db.Tx, r *api.VDI, value string) error { r.NameLabel = value; return nil }))
	api.HandleVDISetNameDescription(r, set(m, func(_ *db.Tx, r *api.VDI, value string) error { r.NameDescription = value; return nil }))
	api.HandleVDISetReadOnly(r, m.idle(func(r *api.VDI, value bool) { r.ReadOnly = value }))
	api.HandleVDISetSharable(r, m.idle(func(r *api.VDI, value bool) { r.Sharable = value }, mayShare))
	api.HandleVDISetAllowCaching(r, m.idle(func(r *api.VDI, value bool) { r.AllowCaching = value }))
	api.HandleVDISetOnBoot(r, m.setOnBoot)

	api.HandleVDISetMissing(r, set(m, func(_ *db.Tx, r *api.VDI, value bool) error { r.Missing = value; return nil }))
	api.HandleVDISetManaged(r, set(m, func(_ *db.Tx, r *api.VDI, value bool) error { r.Managed = value; return nil }))
	api.HandleVDISetVirtualSize(r, set(m, size("virtual_size", func(r *api.VDI) *int64 { return &r.VirtualSize })))
	api.HandleVDISetPhysicalUtilisation(r, set(m, size("physical_utilisation", func(r *api.VDI) *int64 { return &r.PhysicalUtilisation })))
	api.HandleVDISetIsASnapshot(r, set(m, func(_ *db.Tx, r *api.VDI, value bool) error { r.IsASnapshot = value; return nil }))
	api.HandleVDISetSnapshotOf(r, set(m, setSnapshotOf))
	api.HandleVDISetSnapshotTime(r, set(m, func(_ *db.Tx, r *api.VDI, value time.Time) error { r.SnapshotTime = value; return nil }))
	api.HandleVDISetMetadataOfPool(r, set(m, setMetadataOfPool))
	api.HandleVDISetCBTEnabled(r, set(m, setCBTEnabled))
}

// attached finds a VM that uses a disk now.
func attached(r db.Reader, disk *api.VDI) (api.VBDRef, bool) {
	for _, ref := range disk.VBDs {
		if v, err := db.Get(r, ref); err == nil && v.CurrentlyAttached {
			return ref, true
		}
	}
	return "", false
}

// unused refuses a change to a disk that somebody uses, is about to use, or works on.
func unused(c *api.Call, tx *db.Tx, ref api.VDIRef, r *api.VDI) error {
	for task, op := range r.CurrentOperations {
		return api.ErrOtherOperationInProgress("VDI", ref.String(), string(op), task)
	}
	_, busy := attached(tx, r)
	if busy || len(claims(tx, r)) > 0 || len(users(r)) > 0 || operation.HoldsMemory(tx, ref, r) {
		return api.ErrVDIInUse(ref.String(), c.Message.Name())
	}
	return nil
}

// idle sets what may not change under a running VM; each of may can forbid it.
func (m *Manager) idle(put func(*api.VDI, bool), may ...func(db.Reader, api.VDIRef, *api.VDI, bool) error) func(*api.Call, api.VDIRef, bool) error {
	return func(c *api.Call, ref api.VDIRef, value bool) error {
		return db.Modify(c, m.cfg.DB, ref, func(tx *db.Tx, r *api.VDI) error {
			if err := unused(c, tx, ref, r); err != nil {
				return err
			}
			for _, f := range may {
				if err := f(tx, ref, r, value); err != nil {
					return err
				}
			}
			put(r, value)
			return nil
		})
	}
}

// resetFeature is what a driver must be able to do to forget what a VM wrote.
const resetFeature = "VDI_RESET_ON_BOOT"

func (m *Manager) setOnBoot(c *api.Call, ref api.VDIRef, value api.OnBoot) error {
	return db.Modify(c, m.cfg.DB, ref, func(tx *db.Tx, r *api.VDI) error {
		sr, err := db.Get(tx, r.SR)
		if err != nil {
			return err
		}
		if value == api.OnBootReset && !can(tx, sr.Type, resetFeature) {
			return api.ErrSROperationNotSupported(r.SR.String())
		}
		if value == api.OnBootReset && r.CBTEnabled {
			return api.ErrVDICBTEnabled(ref.String()) // what it forgets is in no log
		}
		if value == api.OnBootReset && r.Sharable {
			return api.ErrVDIIsSharable(ref.String()) // a layer of its own cannot be shared
		}
		if err := unused(c, tx, ref, r); err != nil {
			return err
		}
		r.OnBoot = value
		return nil
	})
}

// can reports whether the driver of a type has a feature.
func can(r db.Reader, kind, feature string) bool {
	for _, driver := range db.All[api.SM](r) {
		if _, has := driver.Features[feature]; has && driver.Type == kind {
			return true
		}
	}
	return false
}

func setSnapshotOf(tx *db.Tx, r *api.VDI, value api.VDIRef) error {
	if !value.IsNull() {
		if _, err := db.Get(tx, value); err != nil {
			return err
		}
	}
	r.SnapshotOf = value
	return nil
}

// setMetadataOfPool: the pool may be another one, whose database the disk holds.
func setMetadataOfPool(_ *db.Tx, r *api.VDI, value api.PoolRef) error {
	r.MetadataOfPool = value
	return nil
}

func setCBTEnabled(tx *db.Tx, r *api.VDI, value bool) error {
	if r.CBTEnabled = value; value {
		return nil
	}
	return cut(tx, r)
}
