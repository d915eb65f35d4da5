package vm

import (
	"context"
	"errors"
	"maps"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// noDevices is for machines that have none.
type noDevices struct{}

func (noDevices) Check(db.Reader, api.HostRef, api.VMRef) error               { return nil }
func (noDevices) Reserve(*db.Tx, api.VMRef, string) error                     { return nil }
func (noDevices) Started(*db.Tx, api.VMRef) error                             { return nil }
func (noDevices) Stopped(*db.Tx, api.VMRef) error                             { return nil }
func (noDevices) Release(context.Context, api.HostRef, api.VMRef) error       { return nil }
func (noDevices) Found(context.Context, api.HostRef, api.VMRef) (bool, error) { return true, nil }
func (noDevices) Sweep(context.Context, api.HostRef) error                    { return nil }
func (noDevices) Left() <-chan struct{}                                       { return nil }

func (noDevices) Prepare(context.Context, api.HostRef, api.VMRef) ([]hypervisor.Disk, []hypervisor.NIC, error) {
	return nil, nil, nil
}

// makesDomain are the operations that take a machine's devices when they begin.
var makesDomain = map[api.VMOperations]bool{
	api.VMOperationsStart: true, api.VMOperationsStartOn: true,
	api.VMOperationsResume: true, api.VMOperationsResumeOn: true,
}

// bringUp makes the devices ready and the domain, and lets it go. Without success
// nothing is kept of either, or where that cannot be known now, is given up by
// the reconciler.
func (m *Manager) bringUp(ctx context.Context, o *running, spec hypervisor.Spec, startPaused bool) error {
	err := m.cfg.Memory.Claim(ctx, o.site.ref(), o.vm)
	if err != nil {
		o.letGo(ctx)
		return err
	}
	if spec.Disks, spec.NICs, err = m.cfg.Devices.Prepare(ctx, o.site.ref(), o.vm); err != nil {
		m.leave(o.vm) // what it could not give back now
		return err
	}
	certain := true
	if err = bootable(spec); err == nil {
		certain, err = m.launch(ctx, o.site, spec, startPaused)
	}
	switch {
	case err == nil:
	case certain:
		o.letGo(ctx)
	default:
		m.leave(o.vm)
	}
	return err
}

// letGo records that there is no domain and lets go of the host's side of the
// devices, while the operation still keeps others away. It does nothing when
// another operation has taken over.
func (o *running) letGo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	overtaken := false
	err := o.m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		vm, err := db.Get(tx, o.vm)
		if err != nil {
			return err
		}
		if overtaken = takenOver(tx, vm, o); overtaken {
			return nil
		}
		return o.m.cfg.Devices.Stopped(tx, o.vm)
	})
	if err == nil && !overtaken {
		err = o.m.cfg.Devices.Release(ctx, o.site.ref(), o.vm)
	}
	if err != nil {
		o.m.cfg.Log.Warn("vm-devices-later", "uuid", o.uuid, "err", err)
		o.m.leave(o.vm)
	}
}

// takenOver: whoever interrupted an operation answers for the devices, and for what the
// row says, from then on.
func takenOver(r db.Reader, vm *api.VM, o *running) bool {
	if _, _, yes := interrupted(vm, o.op); yes {
		return true
	}
	for task, op := range vm.CurrentOperations {
		if task != o.task && makesDomain[op] {
			return true
		}
	}
	return o.outlived(r, vm)
}

// outlived reports whether the machine has another domain than when the operation began,
// as of a hard reboot that came and went.
func (o *running) outlived(r db.Reader, vm *api.VM) bool {
	return !vm.ResidentOn.IsNull() && !startOf(r, vm).Equal(o.started)
}

// startOf is when the domain of a machine was made, which tells one from the next.
func startOf(r db.Reader, vm *api.VM) time.Time {
	metrics, err := db.Get(r, vm.Metrics)
	if err != nil {
		return time.Time{}
	}
	return metrics.StartTime
}

// leave has the reconciler let go of a machine's devices once it has seen that
// there is no domain.
func (m *Manager) leave(ref api.VMRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.astray[ref] = true
}

// releaseAstray lets go of what a machine without a domain still has on its host.
// Before the rows of all domains' devices are known to be true nobody may: a disk
// may be another machine's, too.
func (m *Manager) releaseAstray(ctx context.Context, ref api.VMRef, vm *api.VM) error {
	m.mu.Lock()
	left := m.astray[ref]
	m.mu.Unlock()
	if !left || !m.certain() {
		return nil
	}
	if err := m.noDomain(ctx, ref); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	if err := m.cfg.Devices.Release(bounded, m.siteOf(vm).ref(), ref); err != nil {
		m.cfg.Log.Warn("vm-devices-later", "uuid", vm.UUID, "err", err)
		m.leave(ref)
		m.retry(ctx)
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.astray, ref)
	return nil
}

// noDomain ends the reservations of a start that was given up.
func (m *Manager) noDomain(ctx context.Context, ref api.VMRef) error {
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		vm, err := db.Get(tx, ref)
		asleep := err == nil && (vm.PowerState == api.VMPowerStateHalted || vm.PowerState == api.VMPowerStateSuspended)
		if !asleep || len(vm.CurrentOperations) > 0 {
			return err
		}
		return m.cfg.Devices.Stopped(tx, ref)
	})
}

// inspect makes the rows of a domain's hardware true, after events may have been
// lost. What cannot be done now is tried again.
func (m *Manager) inspect(ctx context.Context, ref api.VMRef, f finding) {
	d := f.domain
	bounded, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	hw, err := d.site.Hypervisor.Hardware(bounded, d.UUID)
	if err == nil {
		err = m.recordVCPUs(bounded, ref, f, int64(hw.VCPUs))
	}
	if err == nil {
		var recorded bool
		if recorded, err = m.cfg.Devices.Found(bounded, d.site.ref(), ref); recorded {
			delete(m.unseen, d.UUID)
			m.unswept = m.unswept || err != nil // the drive may be destroyed before the next time
		}
	}
	if err != nil {
		m.cfg.Log.Warn("vm-devices-later", "uuid", d.UUID, "err", err)
		m.lookAgain(map[string]bool{d.UUID: true}, false)
		m.retry(ctx)
	}
}

// disown hands what destroyed machines have left on a host, and whose rows name its
// owner no more, to a sweep of all devices.
func (m *Manager) disown() {
	snap := m.cfg.DB.Snapshot()
	m.mu.Lock()
	defer m.mu.Unlock()
	for ref := range m.astray {
		if _, err := db.Get(snap, ref); err != nil {
			delete(m.astray, ref)
			m.unswept = true
		}
	}
}

// sweepDevices lets go of what is ready for nobody: a former process had made it so, or
// it could not be let go of when its owner went. That is safe when the rows have been
// made true to every domain there is.
func (m *Manager) sweepDevices(ctx context.Context) {
	if m.disown(); !m.unswept || !m.certain() {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	var failed []error
	for ref, vm := range db.All[api.VM](m.cfg.DB.Snapshot()) {
		if len(vm.VBDs)+len(vm.VIFs) > 0 {
			failed = append(failed, m.cfg.Devices.Release(bounded, m.siteOf(vm).ref(), ref))
		}
	}
	for _, s := range m.sites {
		failed = append(failed, m.cfg.Devices.Sweep(bounded, s.ref()))
	}
	if err := errors.Join(failed...); err != nil {
		m.cfg.Log.Warn("vm-devices-later", "err", err)
		m.again(ctx, sweepRetry)
		return
	}
	m.unswept = false
	m.poke() // what was left until now
}

// sweepRetry is short: nobody can use, or destroy, a disk that was not let go of.
const sweepRetry = 2 * time.Second

// count keeps which of a former process's domains have not been looked into.
func (m *Manager) count(domains map[string]located) {
	if m.unseen == nil {
		m.unseen = map[string]bool{}
		for _, vm := range db.All[api.VM](m.cfg.DB.Snapshot()) {
			m.unseen[vm.UUID] = true
		}
	}
	maps.DeleteFunc(m.unseen, func(uuid string, _ bool) bool { _, there := domains[uuid]; return !there })
}

// certain: the rows of devices are true to every domain there is.
func (m *Manager) certain() bool { return m.unseen != nil && len(m.unseen) == 0 }

// lookAgain wishes to look at the devices of some domains, or of all.
func (m *Manager) lookAgain(look map[string]bool, all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lookAll = m.lookAll || all
	for uuid, yes := range look {
		if yes {
			m.look[uuid] = true
		}
	}
}

// looking takes the wishes.
func (m *Manager) looking() (look map[string]bool, all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	look, all = m.look, m.lookAll
	m.look, m.lookAll = map[string]bool{}, false
	return look, all
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
