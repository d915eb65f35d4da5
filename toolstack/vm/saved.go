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

// asleepBefore tells a checkpoint of a VM that was suspended anyway.
func asleepBefore(vm *api.VM, op api.VMOperations) bool {
	return op == api.VMOperationsCheckpoint && vm.PowerState == api.VMPowerStateSuspended && vm.ScheduledToBeResidentOn.IsNull()
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
func (m *Manager) mustWake(ref api.VMRef, vm *api.VM, d hypervisor.Domain) bool {
	return slices.Contains(wakes, m.unfinished[ref]) && d.State == hypervisor.Paused &&
		vm.PowerState == api.VMPowerStateRunning && vm.SuspendVDI.IsNull()
}

// idleImage: the domain runs, so an image is one that was not finished, or of a time
// that is past.
func idleImage(vm *api.VM, is api.VMPowerState) bool {
	return is == api.VMPowerStateRunning && !vm.SuspendVDI.IsNull()
}

// savedAway tells a domain that has been saved from one that ended otherwise. With
// no reason known it counts as saved: what was not saved is lost anyway.
func savedAway(vm *api.VM, why hypervisor.Reason) bool {
	switch why {
	case hypervisor.ByGuest, hypervisor.ByCrash, hypervisor.ByDestroy:
		return false
	}
	return !vm.SuspendVDI.IsNull()
}

// settleSaved records what the operation that saved a domain did not get to.
func (m *Manager) settleSaved(ctx context.Context, ref api.VMRef, vm *api.VM, f finding) error {
	host, image := vm.ResidentOn, vm.SuspendVDI
	done, err := m.settled(ctx, ref, f, func(tx *db.Tx, vm *api.VM) error {
		return m.recordSuspended(tx, ref, vm)
	})
	if err != nil || !done {
		return err
	}
	m.cfg.Log.Info("vm-state", "uuid", vm.UUID, "was", vm.PowerState, "is", api.VMPowerStateSuspended)
	m.letGo(ctx, host, ref, image)
	if m.unfinished[ref] == api.VMOperationsCheckpoint {
		go m.resumeAgain(ctx, ref)
	}
	return nil
}

// settleSuspended brings back a VM that a checkpoint had put to sleep for a moment,
// and lets go of what any other may have left on the host.
func (m *Manager) settleSuspended(ctx context.Context, ref api.VMRef, vm *api.VM) error {
	if m.unfinished[ref] == api.VMOperationsCheckpoint {
		go m.resumeAgain(ctx, ref)
		return nil
	}
	if m.unfinished != nil {
		if err := m.detach(ctx, vm.SuspendVDI); err != nil {
			m.cfg.Log.Warn("image-not-detached", "uuid", vm.UUID, "err", err)
		}
	}
	return m.releaseAstray(ctx, ref, vm)
}
