package vm

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// A revert is in current_operations of the snapshot, as revert, and of its VM, as
// reverting, under the same task. From the moment in which the disks have gone
// back it can only be finished, which is the same as doing it again: nothing
// runs in between. So a process that finds one begun does it again.

// revert makes a VM what it was when a snapshot was taken.
func (m *Manager) revert(c *api.Call, snapshot api.VMRef) error {
	var vm api.VMRef
	task := operation.TaskKey(c)
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		s, err := operation.VM.Begin(tx, snapshot, api.VMOperationsRevert, task)
		if err != nil {
			return err
		}
		vm = s.SnapshotOf
		return m.beginReverting(tx, snapshot, s, task)
	})
	if err != nil {
		return err
	}
	c.Task.Set(0.1)
	err = m.goBack(c, vm, snapshot, task)
	return m.endReverting(c, vm, snapshot, task, asCancelled(c, err))
}

func (m *Manager) beginReverting(tx *db.Tx, snapshot api.VMRef, s *api.VM, task string) error {
	vm, err := db.Edit(tx, s.SnapshotOf)
	if err != nil {
		return api.ErrVMRevertFailed(s.SnapshotOf.String(), snapshot.String())
	}
	for other, op := range vm.CurrentOperations {
		return api.ErrOtherOperationInProgress("VM", s.SnapshotOf.String(), string(op), other)
	}
	if reason, blocked := vm.BlockedOperations[api.VMOperationsRevert]; blocked {
		return api.ErrOperationBlocked(s.SnapshotOf.String(), reason)
	}
	operation.VM.Enter(tx, s.SnapshotOf, vm, api.VMOperationsReverting, task)
	m.bump(s.SnapshotOf)
	return nil
}

func (m *Manager) endReverting(ctx context.Context, vm, snapshot api.VMRef, task string, failed error) error {
	ctx, cancel := finishing(ctx)
	defer cancel()
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		for _, ref := range []api.VMRef{vm, snapshot} {
			if _, err := db.Get(tx, ref); err != nil {
				continue
			}
			if _, err := operation.VM.End(tx, ref, task); err != nil {
				return err
			}
		}
		m.bump(vm)
		return nil
	})
	m.poke()
	if failed != nil {
		m.cfg.Log.Warn("vm-operation-failed", "op", api.VMOperationsRevert, "vm", vm, "err", failed)
		return failed
	}
	return err
}

// goBack does the work: the VM is halted, its disks become those of the snapshot,
// then, in one transaction, its record, drives and NICs do.
func (m *Manager) goBack(c *api.Call, ref, snapshot api.VMRef, task string) error {
	if err := m.haltForRevert(c, ref, task); err != nil {
		m.cfg.Log.Warn("vm-not-halted", "vm", ref, "err", err)
		return revertError(ref, snapshot, err)
	}
	j := m.newJob()
	defer j.end()
	snap := m.cfg.DB.Snapshot()
	s, err := db.Get(snap, snapshot)
	if err != nil {
		return err
	}
	disks, err := m.readyDisks(c, j, ref, snapshot)
	if err != nil {
		return revertError(ref, snapshot, err)
	}
	if err := m.revertNVRAM(c, ref, s); err != nil {
		m.cfg.Log.Warn("nvram-not-reverted", "uuid", s.UUID, "err", err)
		return revertError(ref, snapshot, err)
	}
	if len(disks.back) > 0 {
		if err := m.cfg.Disks.Revert(j.making(c), disks.back); err != nil {
			return revertError(ref, snapshot, err)
		}
	}
	ctx, cancel := finishing(c) // the disks have gone back: the record has to follow
	defer cancel()
	return m.edit(ctx, ref, func(tx *db.Tx, vm *api.VM) error {
		return m.recordReverted(tx, ref, vm, snapshot, disks.by, disks.image)
	})
}

// reverted are the disks of a VM by the snapshot's, and its memory.
type reverted struct {
	by    map[api.VDIRef]api.VDIRef
	back  map[api.VDIRef]api.VDIRef // disks that go back, and to what
	image api.VDIRef
}

// readyDisks makes what a revert needs beside the VM's own disks, which are to go back
// all at once when all else that may fail is done. One that is gone, or that others
// use, too, is replaced by a clone.
func (m *Manager) readyDisks(c *api.Call, j *job, vm, snapshot api.VMRef) (all reverted, err error) {
	snap := m.cfg.DB.Snapshot()
	s, err := db.Get(snap, snapshot)
	if err != nil {
		return all, err
	}
	all.by, all.back = map[api.VDIRef]api.VDIRef{}, map[api.VDIRef]api.VDIRef{}
	for old, row := range disksOf(snap, snapshot) {
		disk, err := db.Get(snap, row.SnapshotOf)
		if err == nil && usedByOnly(snap, disk, vm) && all.back[row.SnapshotOf] == "" {
			all.by[old], all.back[row.SnapshotOf] = row.SnapshotOf, old
			continue
		}
		if all.by[old], err = m.cfg.Disks.Clone(j.making(c), old, row.NameLabel); err != nil {
			m.cfg.Log.Warn("disk-not-reverted", "uuid", row.UUID, "err", err)
			return all, err
		}
	}
	c.Task.Set(0.3)
	if !s.SuspendVDI.IsNull() {
		if all.image, err = m.copyImage(c, j, s.SuspendVDI); err != nil {
			return all, err
		}
	}
	c.Task.Set(0.7)
	return all, nil
}

// revertError keeps an answer of storage that clients know.
func revertError(vm, snapshot api.VMRef, err error) error {
	var known *api.Error
	if errors.As(err, &known) {
		return err
	}
	return api.ErrVMRevertFailed(vm.String(), snapshot.String())
}

// haltForRevert ends what runs; memory that is saved is given up.
func (m *Manager) haltForRevert(ctx context.Context, ref api.VMRef, task string) error {
	vm, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return err
	}
	o := &running{m: m, vm: ref, uuid: vm.UUID, site: m.siteOf(vm), op: api.VMOperationsReverting, task: task}
	if err := o.kill(ctx); err != nil {
		return err
	}
	if vm.PowerState == api.VMPowerStateHalted {
		return m.cfg.Devices.Release(ctx, o.site.ref(), ref)
	}
	err = m.edit(ctx, ref, func(tx *db.Tx, vm *api.VM) error {
		m.forgetStop(vm.UUID)
		return m.recordHalted(tx, ref, vm)
	})
	if err != nil {
		return err
	}
	return m.cfg.Devices.Release(ctx, o.site.ref(), ref)
}

func usedByOnly(r db.Reader, disk *api.VDI, vm api.VMRef) bool {
	for _, vbd := range disk.VBDs {
		if v, err := db.Get(r, vbd); err == nil && v.VM != vm {
			return false
		}
	}
	return true
}

// recordReverted writes what a VM was into its row. Who it is, what protects it and
// what it is part of stay as they are.
func (m *Manager) recordReverted(tx *db.Tx, ref api.VMRef, vm *api.VM, snapshot api.VMRef, disks map[api.VDIRef]api.VDIRef, image api.VDIRef) error {
	s, err := db.Get(tx, snapshot)
	if err != nil {
		return err
	}
	var about metadata
	if err := json.Unmarshal([]byte(s.SnapshotMetadata), &about); err != nil { // from elsewhere
		about = metadata{Name: vm.NameLabel, Description: vm.NameDescription}
	}
	if err := m.dropImage(tx, vm); err != nil {
		return err
	}
	if err := revertDrives(tx, ref, vm, s, disks, about.Devices); err != nil {
		return err
	}
	if err := revertNICs(tx, ref, vm, s, about.Devices); err != nil {
		return err
	}
	if err := revertTPMs(tx, ref, vm, s, about.Devices); err != nil {
		return err
	}
	now := s.Clone()
	now.UUID, now.Metrics, now.CurrentOperations = vm.UUID, vm.Metrics, vm.CurrentOperations
	now.NameLabel, now.NameDescription = about.Name, about.Description
	now.IsATemplate, now.IsASnapshot, now.SnapshotOf, now.SnapshotTime = false, false, "", time.Time{}
	now.SnapshotInfo, now.SnapshotMetadata, now.TransportableSnapshotID = nil, "", ""
	now.Appliance, now.SnapshotSchedule, now.ProtectionPolicy = vm.Appliance, vm.SnapshotSchedule, vm.ProtectionPolicy
	now.HAAlwaysRun, now.HARestartPriority = vm.HAAlwaysRun, vm.HARestartPriority
	now.BlockedOperations, now.Blobs, now.Groups = vm.BlockedOperations, vm.Blobs, vm.Groups
	now.Parent, now.SuspendVDI = snapshot, ""
	now.PowerState = api.VMPowerStateHalted
	if !image.IsNull() {
		if err := keep(tx, image); err != nil {
			return err
		}
		now.PowerState, now.SuspendVDI = api.VMPowerStateSuspended, image
	}
	*vm = *now
	return nil
}

// revertRows makes a VM's devices of one class those of a snapshot, as copy has them.
// One that the VM has still, by its uuid, stays the same object.
func revertRows[T any, P api.RecordPtr[T], O ~string](tx *db.Tx, table *operation.Table[T, P, O], own, of []api.Ref[T], uuid func(*T) string, copy func(was *T) (*T, error)) error {
	there := map[string]api.Ref[T]{}
	for _, ref := range own {
		v, err := db.Get[T, P](tx, ref)
		if err != nil {
			return err
		}
		there[uuid(v)] = ref
	}
	for _, ref := range of {
		was, err := db.Get[T, P](tx, ref)
		if err != nil {
			return err
		}
		v, err := copy(was)
		if err != nil {
			return err
		}
		target, still := there[uuid(v)]
		if delete(there, uuid(v)); !still {
			target = db.Insert[T, P](tx, v)
		}
		row, err := db.Edit[T, P](tx, target)
		if err != nil {
			return err
		}
		*row = *v
		table.Renew(tx, target, row)
	}
	for _, ref := range there {
		if err := db.Delete[T, P](tx, ref); err != nil {
			return err
		}
	}
	return nil
}

// revertDrives makes a VM's drives those of the snapshot, by the snapshot's memory of
// what each is a copy of.
func revertDrives(tx *db.Tx, ref api.VMRef, vm, s *api.VM, disks map[api.VDIRef]api.VDIRef, known map[string]string) error {
	return revertRows(tx, operation.VBD, vm.VBDs, s.VBDs, func(v *api.VBD) string { return v.UUID }, func(was *api.VBD) (*api.VBD, error) {
		v := was.Clone()
		if v.Type != api.VBDTypeCD && !v.VDI.IsNull() {
			v.VDI = disks[v.VDI]
			if err := keep(tx, v.VDI); err != nil {
				return nil, err
			}
		}
		blankVBD(v)
		v.UUID, v.VM = revived(known, was.UUID), ref
		return v, nil
	})
}

// revertNICs is revertDrives for NICs.
func revertNICs(tx *db.Tx, ref api.VMRef, vm, s *api.VM, known map[string]string) error {
	return revertRows(tx, operation.VIF, vm.VIFs, s.VIFs, func(v *api.VIF) string { return v.UUID }, func(was *api.VIF) (*api.VIF, error) {
		v := was.Clone()
		blankVIF(v)
		v.UUID, v.VM = revived(known, was.UUID), ref
		return v, nil
	})
}

// revertTPMs is revertDrives for TPMs; what they hold has been reverted already.
func revertTPMs(tx *db.Tx, ref api.VMRef, vm, s *api.VM, known map[string]string) error {
	return revertRows(tx, operation.VTPM, vm.VTPMs, s.VTPMs, func(v *api.VTPM) string { return v.UUID }, func(was *api.VTPM) (*api.VTPM, error) {
		v := was.Clone()
		v.UUID, v.VM, v.CurrentOperations = revived(known, was.UUID), ref, nil
		return v, nil
	})
}

// revived is the uuid of the VM's device that a snapshot's was a copy of.
func revived(known map[string]string, uuid string) string {
	if own := known[uuid]; own != "" {
		return own
	}
	return api.NewUUID()
}

// redoReverts finishes the reverts that a former process has begun. Until one is
// done its VM stays locked: with some of its disks old and some new it must not run.
func (m *Manager) redoReverts(ctx context.Context) {
	for ref, s := range db.All[api.VM](m.cfg.DB.Snapshot()) {
		for task, op := range s.CurrentOperations {
			if s.IsASnapshot && op == api.VMOperationsRevert {
				go m.redoRevert(ctx, s.SnapshotOf, ref, task)
			}
		}
	}
}

func (m *Manager) redoRevert(ctx context.Context, vm, snapshot api.VMRef, task string) {
	c := &api.Call{Context: ctx, Task: noTask{}}
	for {
		err := m.goBack(c, vm, snapshot, task)
		if err == nil {
			err = m.endReverting(ctx, vm, snapshot, task, nil)
		}
		if err == nil {
			m.cfg.Log.Info("vm-revert-finished", "vm", vm)
			return
		}
		m.cfg.Log.Warn("vm-revert-not-finished", "vm", vm, "err", err)
		if m.cfg.Sleep(ctx, retryInterval) != nil {
			return
		}
	}
}
