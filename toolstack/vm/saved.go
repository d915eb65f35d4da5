package vm

import (
	"context"
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// What the reconciler makes of VMs whose memory is in an image, or was about to be:
// see suspend.go for what a row with an image means.

// isReverting: the operation is done again by redoReverts.
func isReverting(vm *api.VM) bool {
	for _, op := range vm.CurrentOperations {
		if op == api.VMOperationsReverting || op == api.VMOperationsRevert {
			return true
		}
	}
	return false
}

// neverWoke tells a restored domain of which it is not recorded that it may run: the
// image is still good, and is all that counts.
func neverWoke(vm *api.VM) bool {
	return vm.PowerState == api.VMPowerStateSuspended && !vm.SuspendVDI.IsNull()
}

// wakes are the operations that bring a saved domain back; and of a VM that runs, a
// start is the second half of a restart.
var wakes = []api.VMOperations{
	api.VMOperationsResume, api.VMOperationsResumeOn, api.VMOperationsCheckpoint, api.VMOperationsStart,
}

// mustWake tells a domain that a former process had restored or made anew, and that
// is recorded as running, and not yet let go.
func (m *Manager) mustWake(ref api.VMRef, d hypervisor.Domain) bool {
	return m.waking[ref] && d.State == hypervisor.Paused
}

// lettingGo tells an operation that was about to let a domain go when its process
// died, or had just done so.
func lettingGo(vm *api.VM, op api.VMOperations) bool {
	return slices.Contains(wakes, op) && vm.PowerState == api.VMPowerStateRunning && vm.SuspendVDI.IsNull()
}

// awake ends what a former process had begun: the domain has been let go, or is gone.
func (m *Manager) awake(ctx context.Context, ref api.VMRef) error {
	err := m.edit(ctx, ref, func(_ *db.Tx, vm *api.VM) error {
		vm.CurrentOperations, vm.ScheduledToBeResidentOn = nil, ""
		return nil
	})
	if err == nil {
		delete(m.waking, ref)
		m.poke()
	}
	return err
}

// engaged reports whether a VM has an operation of this process.
func (m *Manager) engaged(ref api.VMRef, vm *api.VM) bool {
	return len(vm.CurrentOperations) > 0 && !m.waking[ref]
}

// idleImage: the domain runs, so an image is one that was not finished, or of a time
// that is past.
func idleImage(vm *api.VM, is api.VMPowerState) bool {
	return is == api.VMPowerStateRunning && !vm.SuspendVDI.IsNull()
}

// settleSaved records what has become of a VM whose domain is gone and which has an
// image, and reports false where it is not one that was saved.
func (m *Manager) settleSaved(ctx context.Context, ref api.VMRef, vm *api.VM, f finding) (saved bool, err error) {
	switch whole, err := m.weigh(ctx, vm, f); {
	case err != nil:
		m.cfg.Log.Warn("image-not-read", "uuid", vm.UUID, "err", err)
		m.retry(ctx)
		return true, nil // as if it were: nobody may start it before this is known
	case !whole:
		return false, nil
	}
	host, image := vm.ResidentOn, vm.SuspendVDI
	done, err := m.settled(ctx, ref, f, func(tx *db.Tx, vm *api.VM) error {
		return m.recordSuspended(tx, ref, vm)
	})
	if err != nil || !done {
		return true, err
	}
	m.cfg.Log.Info("vm-state", "uuid", vm.UUID, "was", vm.PowerState, "is", api.VMPowerStateSuspended)
	m.letGo(ctx, host, ref)
	m.wakeAgain(ctx, ref, image)
	return true, nil
}

// weigh collects what is known of an image that was being written when last heard
// of, and leaves it on its medium when it is good.
func (m *Manager) weigh(ctx context.Context, vm *api.VM, f finding) (good bool, err error) {
	site := m.site(vm.ResidentOn)
	vdi, err := db.Get(m.cfg.DB.Snapshot(), vm.SuspendVDI)
	if err != nil {
		return false, nil
	}
	l := leftover{why: f.why, sameBoot: vdi.SMConfig[bootKey] == site.Host.Boot()}
	if !l.mayBeGood() {
		return false, nil
	}
	source, err := m.openImage(ctx, site.ref(), vm.SuspendVDI)
	if err != nil {
		return false, err
	}
	if l.whole, err = site.Hypervisor.Whole(ctx, vm.UUID, source.Path); err != nil {
		return false, err
	}
	return l.good(), m.cfg.Disks.Detach(ctx, site.ref(), vm.SuspendVDI)
}

// settleSuspended brings back a VM that a checkpoint had put to sleep for a moment,
// and lets go of what any other may have left on the host.
func (m *Manager) settleSuspended(ctx context.Context, ref api.VMRef, vm *api.VM) error {
	if m.wakeAgain(ctx, ref, vm.SuspendVDI) {
		return nil
	}
	if m.unfinished != nil {
		if err := m.detach(ctx, vm.SuspendVDI); err != nil {
			m.cfg.Log.Warn("image-not-detached", "uuid", vm.UUID, "err", err)
		}
	}
	return m.releaseAstray(ctx, ref, vm)
}

// wakeAgain brings back a VM whose image says that it was to sleep for a moment only.
func (m *Manager) wakeAgain(ctx context.Context, ref api.VMRef, image api.VDIRef) bool {
	if m.wakesTo(ref, image) == "" {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.rousing[image] {
		m.rousing[image] = true
		go m.resumeAgain(ctx, ref, image)
	}
	return true
}

// wakesTo is the state to which a VM that sleeps with an image is to come back by
// itself; "" when it is not.
func (m *Manager) wakesTo(ref api.VMRef, image api.VDIRef) api.VMPowerState {
	snap := m.cfg.DB.Snapshot()
	vm, err := db.Get(snap, ref)
	if err != nil || vm.PowerState != api.VMPowerStateSuspended || vm.SuspendVDI != image {
		return ""
	}
	vdi, err := db.Get(snap, image)
	if err != nil {
		return ""
	}
	return api.VMPowerState(vdi.SMConfig[wakeKey])
}
