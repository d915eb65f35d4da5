package vm

import (
	"context"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/vm/template"
)

// clone makes a VM whose disks share with the original's what neither has changed.
func (m *Manager) clone(c *api.Call, ref api.VMRef, name string) (api.VMRef, error) {
	return m.duplicate(c, ref, name, api.VMOperationsClone, func(ctx context.Context, disk *api.VDI, ref api.VDIRef, _ func(float64)) (api.VDIRef, error) {
		return m.cfg.Disks.Clone(ctx, ref, disk.NameLabel)
	})
}

// copy makes a VM with disks of its own, on an SR or each where the original is.
func (m *Manager) copy(c *api.Call, ref api.VMRef, name string, sr api.SRRef) (api.VMRef, error) {
	if !sr.IsNull() {
		if _, err := db.Get(m.cfg.DB.Snapshot(), sr); err != nil {
			return "", err
		}
	}
	return m.duplicate(c, ref, name, api.VMOperationsCopy, func(ctx context.Context, disk *api.VDI, ref api.VDIRef, progress func(float64)) (api.VDIRef, error) {
		to := sr
		if to.IsNull() {
			to = disk.SR
		}
		return m.cfg.Disks.Copy(ctx, ref, to, progress)
	})
}

// duplicator makes the copy of one disk.
type duplicator func(ctx context.Context, disk *api.VDI, ref api.VDIRef, progress func(float64)) (api.VDIRef, error)

// duplicate copies the disks first, then writes the new VM with all that belongs
// to it in one transaction. The memory of a snapshot that has some is not copied:
// a saved machine cannot wake up as another one.
func (m *Manager) duplicate(c *api.Call, ref api.VMRef, name string, op api.VMOperations, dup duplicator) (api.VMRef, error) {
	o, err := m.begin(c, ref, op, nil)
	if err != nil {
		return "", err
	}
	j := m.newJob()
	defer j.end()
	copies, err := m.copyDisks(c, j, ref, dup)
	var h *heir
	if err == nil {
		h, err = m.inherit(c, ref)
	}
	if err != nil {
		return "", o.end(c, asCancelled(c, err), nil)
	}
	var made api.VMRef
	err = o.finish(c, func(tx *db.Tx, original *api.VM) error {
		vm := original.Clone()
		vm.NameLabel = name
		vm.BlockedOperations, vm.Tags = nil, nil
		delete(vm.OtherConfig, template.DefaultKey)
		delete(vm.OtherConfig, template.StampKey)
		ownPerson(vm)
		vm.UUID = h.uuid
		device.Seed(vm)
		m.reset(vm)
		made, err = m.insertWith(tx, vm, original, copies, nil)
		return err
	})
	h.end(c)
	return made, err
}

// ownPerson makes a record one of a VM that is nobody's snapshot or default
// template, and in no group of others.
func ownPerson(vm *api.VM) {
	vm.UUID = api.NewUUID()
	vm.IsDefaultTemplate, vm.IsASnapshot = false, false
	vm.SnapshotOf, vm.SnapshotTime, vm.SnapshotInfo, vm.SnapshotMetadata = "", time.Time{}, nil, ""
	vm.TransportableSnapshotID, vm.Parent = "", ""
	vm.Appliance, vm.SnapshotSchedule, vm.ProtectionPolicy = "", "", ""
	vm.HAAlwaysRun, vm.Blobs = false, nil
}

// copyDisks copies the disks of a VM, and says which is the copy of which.
func (m *Manager) copyDisks(c *api.Call, j *job, ref api.VMRef, dup duplicator) (map[api.VDIRef]api.VDIRef, error) {
	disks := disksOf(m.cfg.DB.Snapshot(), ref)
	var total, done float64
	for _, disk := range disks {
		total += float64(disk.VirtualSize)
	}
	copies := map[api.VDIRef]api.VDIRef{}
	for vdi, disk := range disks {
		part := float64(disk.VirtualSize)
		var made api.VDIRef
		err := m.whenFree(c, func() (err error) {
			made, err = dup(j.making(c), disk, vdi, func(fraction float64) { c.Task.Set((done + fraction*part) / total) })
			return err
		})
		if err != nil {
			return nil, err
		}
		copies[vdi] = made
		done += part
	}
	return copies, nil
}

// disksOf are the disks of a VM, without the CDs in its drives.
func disksOf(r db.Reader, ref api.VMRef) map[api.VDIRef]*api.VDI {
	disks := map[api.VDIRef]*api.VDI{}
	vm, err := db.Get(r, ref)
	if err != nil {
		return nil
	}
	for _, vbd := range vm.VBDs {
		v, err := db.Get(r, vbd)
		if err != nil || v.Type == api.VBDTypeCD || v.Empty || v.VDI.IsNull() {
			continue
		}
		if disk, err := db.Get(r, v.VDI); err == nil {
			disks[v.VDI] = disk
		}
	}
	return disks
}
