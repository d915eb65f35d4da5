package vm

import (
	"context"
	"errors"
	"fmt"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/storage"
)

// A VM's memory is saved into a disk, its image. SuspendVDI names it from before the
// domain is saved until the moment before the domain, restored and paused, may run
// again. Only power_state says that the image is worth something: it becomes
// Suspended in a transaction after the whole image is on its medium. Until then a
// domain that is still there goes on and the image is given up; see image.go for
// one that is not. In the transaction in which the domain may run again the image
// is given up, too, so it never runs twice.

// suspend saves a VM's memory and ends its domain.
func (m *Manager) suspend(c *api.Call, ref api.VMRef) error {
	var spec storage.CreateSpec
	o, err := m.begin(c, ref, api.VMOperationsSuspend, func(tx *db.Tx, vm *api.VM) (err error) {
		spec, err = m.imageSpec(tx, ref, vm)
		return err
	})
	if err != nil {
		return err
	}
	j := m.newJob()
	defer j.end()
	if _, err = m.putDown(c, o, j, spec, ""); err != nil {
		return o.notSaved(c, asCancelled(c, err))
	}
	host := o.site.ref()
	err = o.end(c, nil, func(tx *db.Tx, vm *api.VM) error {
		m.forgetStop(o.uuid)
		return m.recordSuspended(tx, ref, vm)
	})
	m.letGo(c, host, ref)
	return err
}

// imageSpec says where a VM's memory would be saved and how much room it takes.
func (m *Manager) imageSpec(r db.Reader, ref api.VMRef, vm *api.VM) (storage.CreateSpec, error) {
	none := storage.CreateSpec{}
	if m.cfg.Disks == nil {
		return none, api.ErrVMNoSuspendSR(ref.String())
	}
	if forgets(r, vm) {
		return none, api.ErrVDIOnBootModeIncompatibleWithOperation()
	}
	sr, err := suspendSR(r, ref, vm)
	if err != nil {
		return none, err
	}
	size := imageSize(vm)
	if err := room(r, sr, size); err != nil {
		return none, err
	}
	return storage.CreateSpec{
		SR: sr, Size: size, Type: api.VDITypeSuspend, Name: "Suspend image",
		Description: "Memory of " + vm.NameLabel, SMConfig: map[string]string{"type": "raw"},
	}, nil
}

// forgets reports whether a disk of the VM loses what was written to it when the
// domain ends: memory that came back would not fit it.
func forgets(r db.Reader, vm *api.VM) bool {
	for _, ref := range vm.VBDs {
		vbd, err := db.Get(r, ref)
		if err != nil || !vbd.CurrentlyAttached {
			continue
		}
		if vdi, err := db.Get(r, vbd.VDI); err == nil && vdi.OnBoot == api.OnBootReset {
			return true
		}
	}
	return false
}

// imageSize is enough for the memory, for what devices remember, of which the screen
// is the largest, and for the file's own frame.
func imageSize(vm *api.VM) int64 { return vm.MemoryStaticMax + 128<<20 }

// suspendSR is the SR of the VM's choice, else the host's, else the pool's.
func suspendSR(r db.Reader, ref api.VMRef, vm *api.VM) (api.SRRef, error) {
	choices := []api.SRRef{vm.SuspendSR}
	if host, err := db.Get(r, vm.ResidentOn); err == nil {
		choices = append(choices, host.SuspendImageSR)
	}
	choices = append(choices, poolDefault(r, func(p *api.Pool) api.SRRef { return p.SuspendImageSR }))
	for _, sr := range choices {
		if _, err := db.Get(r, sr); err == nil {
			return sr, nil
		}
	}
	return "", api.ErrVMNoSuspendSR(ref.String())
}

// putDown saves a domain into a new image, named in the row before that begins, and
// brings the image to its medium. When it fails, the domain goes on, or the
// reconciler finishes it. With wake, a state, the VM is to come back to it soon.
func (m *Manager) putDown(c *api.Call, o *running, j *job, spec storage.CreateSpec, wake api.VMPowerState) (api.VDIRef, error) {
	image, err := m.cfg.Disks.Create(j.making(c), spec)
	if err != nil {
		return "", err
	}
	source, err := m.cfg.Disks.Attach(c, o.site.ref(), image, true)
	if err != nil {
		return "", err
	}
	err = o.note(c, func(tx *db.Tx, vm *api.VM) error {
		vm.SuspendVDI = image
		if err := keep(tx, image); err != nil {
			return err
		}
		return beginImage(tx, image, o.site.Host.Boot(), wake)
	})
	if err != nil {
		return "", err
	}
	c.Task.Set(0.2)
	err = o.site.Hypervisor.Save(c, o.uuid, source.Path)
	if errors.Is(err, hypervisor.ErrUnknownOutcome) {
		if gone, lerr := o.site.gone(c, o.uuid); lerr == nil && gone {
			err = nil
		}
	}
	if err != nil {
		return "", hvError(o.vm, err)
	}
	flush, cancel := finishing(c)
	defer cancel()
	return image, m.cfg.Disks.Detach(flush, o.site.ref(), image)
}

// note records a step of an operation that goes on.
func (o *running) note(ctx context.Context, step func(*db.Tx, *api.VM) error) error {
	return o.m.edit(ctx, o.vm, func(tx *db.Tx, vm *api.VM) error {
		if _, still := vm.CurrentOperations[o.task]; !still {
			return fmt.Errorf("vm %s: the operation was ended by another", o.uuid)
		}
		return step(tx, vm)
	})
}

// notSaved ends an operation whose domain goes on without its image. Where it is not
// known what became of the domain, the reconciler finds out.
func (o *running) notSaved(ctx context.Context, failed error) error {
	look, cancel := finishing(ctx)
	defer cancel()
	if gone, err := o.site.gone(look, o.uuid); err != nil || gone {
		return o.end(ctx, failed, nil)
	}
	return o.end(ctx, failed, o.m.dropImage)
}

// dropImage gives up a VM's saved memory.
func (m *Manager) dropImage(tx *db.Tx, vm *api.VM) error {
	image := vm.SuspendVDI
	if image.IsNull() {
		return nil
	}
	vm.SuspendVDI = ""
	return drop(tx, image)
}

// recordSuspended makes the row say that the VM's memory is in its image. The VM
// keeps its devices, but nothing on a host.
func (m *Manager) recordSuspended(tx *db.Tx, ref api.VMRef, vm *api.VM) error {
	vm.PowerState = api.VMPowerStateSuspended
	vm.ResidentOn, vm.ScheduledToBeResidentOn, vm.Domid = "", "", -1
	return m.recordAway(tx, ref, vm)
}

// letGo releases what a host held for a domain that is saved.
func (m *Manager) letGo(ctx context.Context, host api.HostRef, ref api.VMRef) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	if err := m.cfg.Devices.Release(ctx, host, ref); err != nil {
		m.cfg.Log.Warn("vm-devices-later", "vm", ref, "err", err)
		m.leave(ref)
	}
}
