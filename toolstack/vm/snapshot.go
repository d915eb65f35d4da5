package vm

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/storage"
)

// Keys of snapshot_info.
const (
	powerStateInfo = "power-state-at-snapshot"
	diskTypeInfo   = "disk-snapshot-type"
	// crashConsistent: the disks are as a power cut would leave them.
	crashConsistent = "crash_consistent"
)

// snapshot keeps a VM as it is, all its disks at one instant. Of a suspended one it
// keeps the memory, too.
func (m *Manager) snapshot(c *api.Call, ref api.VMRef, name string, ignore []api.VDIRef) (api.VMRef, error) {
	release, err := m.snapshots.Hold(c, ref)
	if err != nil {
		return "", asCancelled(c, err)
	}
	defer release()
	o, err := m.begin(c, ref, api.VMOperationsSnapshot, nil)
	if err != nil {
		return "", err
	}
	return m.snapshotWith(c, o, snapshotOf{name: name}, ignore, nil)
}

// snapshotWith takes a snapshot and ends the operation, with the guest at rest unless
// that is nil.
func (m *Manager) snapshotWith(c *api.Call, o *running, of snapshotOf, ignore []api.VDIRef, rest *rest) (api.VMRef, error) {
	j := m.newJob()
	defer j.end()
	vm, err := db.Get(m.cfg.DB.Snapshot(), o.vm)
	if err != nil {
		return "", o.end(c, err, nil)
	}
	if vm.PowerState == api.VMPowerStateSuspended {
		if of.image, err = m.copyImage(c, j, vm.SuspendVDI); err != nil {
			return "", o.end(c, asCancelled(c, err), nil)
		}
	}
	of.disks, err = m.snapshotDisks(c, j, o, ignore, rest)
	if err == nil {
		err = rest.check()
	}
	if err == nil {
		of.heir, err = m.inherit(c, o.vm)
	}
	if err != nil {
		return "", o.end(c, asCancelled(c, err), nil)
	}
	var made api.VMRef
	err = o.finish(c, func(tx *db.Tx, vm *api.VM) error {
		of.state = vm.PowerState
		made, err = m.insertSnapshot(tx, o.vm, vm, of)
		return err
	})
	of.heir.end(c)
	return made, err
}

// snapshotDisks takes snapshots of a VM's disks at one instant. A running domain
// goes on writing to new layers.
func (m *Manager) snapshotDisks(c *api.Call, j *job, o *running, ignore []api.VDIRef, rest *rest) (map[api.VDIRef]api.VDIRef, error) {
	var vdis []api.VDIRef
	for vdi := range disksOf(m.cfg.DB.Snapshot(), o.vm) {
		if !slices.Contains(ignore, vdi) {
			vdis = append(vdis, vdi)
		}
	}
	if len(vdis) == 0 {
		return nil, rest.during(c, func() error { return nil })
	}
	slices.Sort(vdis)
	vm, err := db.Get(m.cfg.DB.Snapshot(), o.vm)
	if err != nil {
		return nil, err
	}
	if vm.PowerState != api.VMPowerStateRunning && vm.PowerState != api.VMPowerStatePaused {
		return m.cfg.Disks.Snapshot(storage.OnBehalf(j.making(c), o.task), vdis, nil)
	}
	return m.cfg.Disks.Snapshot(j.making(c), vdis, func(ctx context.Context, overlays map[api.VDIRef]hypervisor.Source) error {
		return rest.during(ctx, func() error { return m.switchDomain(ctx, o, overlays) })
	})
}

// switchDomain makes a domain write to overlays. One that has ended meanwhile
// writes to nothing, which is as good.
func (m *Manager) switchDomain(ctx context.Context, o *running, overlays map[api.VDIRef]hypervisor.Source) error {
	snap := m.cfg.DB.Snapshot()
	vm, err := db.Get(snap, o.vm)
	if err != nil {
		return err
	}
	var list []hypervisor.Overlay
	for _, vbd := range vm.VBDs {
		v, err := db.Get(snap, vbd)
		if err != nil || !v.CurrentlyAttached {
			continue
		}
		if source, ok := overlays[v.VDI]; ok {
			list = append(list, hypervisor.Overlay{ID: v.UUID, Source: source})
		}
	}
	if len(list) != len(overlays) {
		return fmt.Errorf("vm %s: of %d disks in use, it has %d", o.uuid, len(overlays), len(list))
	}
	return o.site.Hypervisor.Snapshot(ctx, o.uuid, list)
}

// copyImage copies the memory of a suspended VM, beside the original.
func (m *Manager) copyImage(c *api.Call, j *job, image api.VDIRef) (api.VDIRef, error) {
	vdi, err := db.Get(m.cfg.DB.Snapshot(), image)
	if err != nil {
		return "", err
	}
	return m.cfg.Disks.Copy(j.making(c), image, vdi.SR, c.Task.Set)
}

// snapshotOf is what a snapshot is made of, besides the VM's record.
type snapshotOf struct {
	name  string
	kind  string                    // what its disks are like; crashConsistent when empty
	disks map[api.VDIRef]api.VDIRef // snapshots by the VM's disks
	image api.VDIRef                // the memory; null for disks alone
	state api.VMPowerState          // at the time
	heir  *heir                     // who it is, and what it remembers
}

// metadata is the text of snapshot_metadata: what a revert needs to know and the
// snapshot's own rows do not say.
type metadata struct {
	Name        string `json:"name_label"`
	Description string `json:"name_description"`
	// Devices are the uuids of the VM's drives and NICs by those of the snapshot's. A
	// saved domain knows its devices by them.
	Devices map[string]string `json:"devices"`
}

// insertSnapshot writes a snapshot and makes it the VM's parent: what the VM is from
// now on has come of it.
func (m *Manager) insertSnapshot(tx *db.Tx, ref api.VMRef, vm *api.VM, of snapshotOf) (api.VMRef, error) {
	s := vm.Clone()
	ownPerson(s)
	s.UUID = of.heir.uuid
	s.NameLabel, s.NameDescription, s.BlockedOperations = of.name, "", nil
	s.IsASnapshot, s.IsATemplate, s.SnapshotOf = true, true, ref
	s.SnapshotTime = time.Now().UTC().Truncate(time.Second)
	s.SnapshotInfo = map[string]string{powerStateInfo: string(of.state), diskTypeInfo: cmp.Or(of.kind, crashConsistent)}
	s.Parent = vm.Parent
	m.reset(s)
	if !of.image.IsNull() {
		if err := keep(tx, of.image); err != nil {
			return "", err
		}
		s.PowerState, s.SuspendVDI = api.VMPowerStateSuspended, of.image
	}
	devices := map[string]string{}
	made, err := m.insertWith(tx, s, vm, of.disks, devices)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(metadata{vm.NameLabel, vm.NameDescription, devices})
	if err != nil {
		return "", err
	}
	row, err := db.Edit(tx, made)
	if err != nil {
		return "", err
	}
	row.SnapshotMetadata = string(text)
	vm.Parent = made
	return made, nil
}
