package vm

import (
	"context"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
)

// checkpoint keeps a VM with its memory, which belongs to its disks at the same
// instant. The VM is asleep for the while it takes to write the memory, and goes on
// as it was.
func (m *Manager) checkpoint(c *api.Call, ref api.VMRef, name string) (api.VMRef, error) {
	release, err := m.snapshots.Hold(c, ref)
	if err != nil {
		return "", asCancelled(c, err)
	}
	defer release()
	var spec storage.CreateSpec
	var was api.VMPowerState
	w := wakeUp{}
	o, err := m.begin(c, ref, api.VMOperationsCheckpoint, func(tx *db.Tx, vm *api.VM) (err error) {
		was = vm.PowerState
		for vdi, disk := range disksOf(tx, ref) {
			if disk.Sharable { // before the VM sleeps for nothing
				return api.ErrVDIIsSharable(vdi.String())
			}
		}
		if was == api.VMPowerStateSuspended {
			return nil
		}
		w.paused = was == api.VMPowerStatePaused
		if w.spec, err = m.specOf(ref, vm, []*Site{m.siteOf(vm)}); err != nil {
			return err
		}
		if err := m.canReturn(tx, ref, vm); err != nil {
			return err
		}
		spec, err = m.imageSpec(tx, ref, vm)
		return err
	})
	if err != nil {
		return "", err
	}
	j := m.newJob()
	defer j.end()
	of := snapshotOf{name: name, state: was}
	if was == api.VMPowerStateSuspended {
		return m.checkpointAsleep(c, o, j, of)
	}
	if w.image, err = m.putDown(c, o, j, spec, was); err != nil {
		m.cfg.Log.Warn("checkpoint", "uuid", o.uuid, "err", err)
		return "", o.notSaved(c, asCancelled(c, api.ErrVMCheckpointSuspendFailed(ref.String())))
	}
	c.Task.Set(0.5)
	of.image = w.image
	return m.checkpointSaved(c, o, j, w, of)
}

// checkpointAsleep is a checkpoint of a VM whose memory is saved already.
func (m *Manager) checkpointAsleep(c *api.Call, o *running, j *job, of snapshotOf) (api.VMRef, error) {
	vm, err := db.Get(m.cfg.DB.Snapshot(), o.vm)
	if err == nil {
		of.image, err = m.copyImage(c, j, vm.SuspendVDI)
	}
	if err == nil {
		of.disks, err = m.snapshotDisks(c, j, o, nil, nil)
	}
	if err == nil {
		of.heir, err = m.inherit(c, o.vm)
	}
	if err != nil {
		return "", o.end(c, asCancelled(c, err), nil)
	}
	var made api.VMRef
	err = o.finish(c, func(tx *db.Tx, vm *api.VM) error {
		made, err = m.insertSnapshot(tx, o.vm, vm, of)
		return err
	})
	of.heir.end(c)
	return made, err
}

// checkpointSaved takes the disks' snapshots while nothing runs, and lets the VM go
// on. With the snapshot the image becomes the snapshot's, in the transaction
// before the VM's next instruction; without one it is given up then. Whatever
// happens from here on, cancelling included, the VM is to go on.
func (m *Manager) checkpointSaved(c *api.Call, o *running, j *job, w wakeUp, of snapshotOf) (api.VMRef, error) {
	ctx := context.WithoutCancel(c)
	err := o.note(ctx, func(tx *db.Tx, vm *api.VM) error {
		host := o.site.ref()
		if err := m.recordSuspended(tx, o.vm, vm); err != nil {
			return err
		}
		vm.ScheduledToBeResidentOn = host // keeps its memory for it
		return nil
	})
	if err != nil {
		return "", o.end(c, err, nil) // the reconciler finds it asleep
	}
	if err = o.reserve(ctx); err != nil {
		return "", o.end(c, err, sleepsOn)
	}
	var failed error
	if of.disks, failed = m.snapshotDisks(c, j, o, nil, nil); failed == nil {
		of.heir, failed = m.inherit(ctx, o.vm)
	}
	if failed != nil {
		of.image = ""
	}
	c.Task.Set(0.7)
	var made api.VMRef
	err = m.rouse(ctx, o, w, func(tx *db.Tx, vm *api.VM) error {
		if failed != nil {
			return m.dropImage(tx, vm)
		}
		vm.SuspendVDI = ""
		err := endImage(tx, w.image)
		if err != nil {
			return err
		}
		made, err = m.insertSnapshot(tx, o.vm, vm, of)
		return err
	})
	of.heir.end(c)
	if err != nil {
		m.cfg.Log.Warn("checkpoint", "uuid", o.uuid, "err", err)
		err = api.ErrVMCheckpointResumeFailed(o.vm.String())
	} else {
		err = failed
	}
	return made, o.end(c, err, sleepsOn)
}

// reserve takes the devices of a sleeping VM as soon as others leave its disks.
func (o *running) reserve(ctx context.Context) error {
	return o.m.whenFree(ctx, func() error {
		return o.note(ctx, func(tx *db.Tx, _ *api.VM) error { return o.m.cfg.Devices.Reserve(tx, o.vm, o.task) })
	})
}

// sleepsOn: what did not wake now keeps its image, which says that it is to, and no
// memory of the host. The reconciler wakes it as soon as it can.
func sleepsOn(_ *db.Tx, vm *api.VM) error {
	vm.ScheduledToBeResidentOn = ""
	return nil
}
