package vm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

func (m *Manager) resume(c *api.Call, ref api.VMRef, startPaused, _ bool) error {
	return m.resumeAs(c, ref, "", api.VMOperationsResume, startPaused)
}

func (m *Manager) resumeOn(c *api.Call, ref api.VMRef, host api.HostRef, startPaused, _ bool) error {
	if _, err := db.Get(m.cfg.DB.Snapshot(), host); err != nil {
		return err
	}
	return m.resumeAs(c, ref, host, api.VMOperationsResumeOn, startPaused)
}

// resumeAs brings a suspended VM back on the wanted host, or with none wanted on the
// best one.
func (m *Manager) resumeAs(c *api.Call, ref api.VMRef, want api.HostRef, op api.VMOperations, startPaused bool) error {
	sites, err := m.reachable(want)
	if err != nil {
		return err
	}
	if err := awaitKinds(c, sites); err != nil {
		return err
	}
	var w wakeUp
	o, err := m.begin(c, ref, op, func(tx *db.Tx, vm *api.VM) (err error) {
		if _, err := db.Get(tx, vm.SuspendVDI); err != nil {
			return api.ErrVMHasNoSuspendVDI(ref.String())
		}
		if w.spec, err = m.specOf(ref, vm, sites); err != nil {
			return err
		}
		site, err := m.place(tx, capable(sites), ref, vm, op)
		if err != nil {
			return err
		}
		w.spec.Kind, _ = site.Host.Kind()
		w.image, w.paused = vm.SuspendVDI, startPaused
		vm.ScheduledToBeResidentOn = site.ref() // holds the memory from here on
		return nil
	})
	if err != nil {
		return err
	}
	c.Task.Set(0.1)
	err = m.wakeUp(c, o, w, m.dropImage)
	return o.end(c, asCancelled(c, hvError(ref, err)), func(_ *db.Tx, vm *api.VM) error {
		vm.ScheduledToBeResidentOn = ""
		return nil
	})
}

// wakeUp is how to bring a saved domain back.
type wakeUp struct {
	spec   hypervisor.Spec
	image  api.VDIRef
	paused bool
}

// wakeUp restores a domain, which has its devices reserved, and lets it go. Before
// its first instruction it is recorded that the image is not the VM's any more:
// image says what becomes of it. Until then a failure leaves the VM suspended.
func (m *Manager) wakeUp(ctx context.Context, o *running, w wakeUp, image func(*db.Tx, *api.VM) error) error {
	m.forgetStop(o.uuid)
	if err := m.restore(ctx, o, w); err != nil {
		return err
	}
	done, cancel := finishing(ctx)
	defer cancel()
	err := o.note(done, func(tx *db.Tx, vm *api.VM) error {
		if err := m.recordResumed(tx, o, vm, w.paused); err != nil {
			return err
		}
		return image(tx, vm)
	})
	if err != nil {
		m.rollBack(ctx, o.site, o.uuid, false)
		o.asleep(ctx, w.image)
		return err
	}
	if !w.paused {
		if err = o.insist(done, hypervisor.Hypervisor.Resume); lost(err) { // with the image there is no way back
			m.doze(o.vm)
		}
	}
	if derr := m.cfg.Disks.Detach(done, o.site.ref(), w.image); derr != nil {
		m.cfg.Log.Warn("image-not-detached", "uuid", o.uuid, "err", derr)
	}
	m.lookAgain(map[string]bool{o.uuid: true}, false) // the domain has the devices it had when it was saved
	return err
}

// insist brings a domain into a state. While libvirtd cannot be asked, or did not answer,
// it is asked again.
func (o *running) insist(ctx context.Context, do func(hypervisor.Hypervisor, context.Context, string) error) error {
	for nap := firstNap; ; nap *= 2 {
		err := do(o.site.Hypervisor, ctx, o.uuid)
		switch {
		case errors.Is(err, hypervisor.ErrBadState) && nap > firstNap:
			return nil // it is in that state: an answer was lost
		case !lost(err), nap > longNap:
			return err
		}
		o.m.cfg.Log.Warn("vm-not-answered", "op", o.op, "uuid", o.uuid, "err", err)
		if o.m.cfg.Sleep(ctx, nap) != nil || o.overtaken() {
			return err
		}
	}
}

// overtaken: the domain there is may be another one by now.
func (o *running) overtaken() bool {
	snap := o.m.cfg.DB.Snapshot()
	vm, err := db.Get(snap, o.vm)
	return err != nil || takenOver(snap, vm, o)
}

// lost tells that nobody knows whether a call took effect, or that none could be made.
func lost(err error) bool {
	return errors.Is(err, hypervisor.ErrUnknownOutcome) || errors.Is(err, hypervisor.ErrUnavailable)
}

// doze has the reconciler let a VM go that is paused for no other reason than that
// libvirtd was not there, unless an operation begins before.
func (m *Manager) doze(ref api.VMRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dozing[ref] = true
}

// stir ends that: what an operation makes of the VM is what somebody wants.
func (m *Manager) stir(ref api.VMRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.dozing, ref)
}

// dozes tells such a VM, until it runs.
func (m *Manager) dozes(ref api.VMRef, d hypervisor.Domain) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.State != hypervisor.Paused {
		delete(m.dozing, ref)
	}
	return m.dozing[ref]
}

// Pauses between attempts to wake a VM: the first one, and those that an operation
// and that the reconciler wait for at the longest.
const (
	firstNap   = 200 * time.Millisecond
	longNap    = 10 * time.Second
	longestNap = 30 * time.Second
)

// rouse is wakeUp of a VM that sleeps for a moment: it is tried again where what is in
// its way passes. Who fails lets go of the devices, so they are reserved each time.
func (m *Manager) rouse(ctx context.Context, o *running, w wakeUp, image func(*db.Tx, *api.VM) error) error {
	for nap := firstNap; ; nap *= 2 {
		err := m.wakeUp(ctx, o, w, image)
		if err == nil || !passes(err) || nap > longNap {
			return err
		}
		m.cfg.Log.Warn("vm-wake-failed", "uuid", o.uuid, "err", err)
		if m.cfg.Sleep(ctx, nap) != nil {
			return err
		}
		if err := o.reserve(ctx); err != nil {
			return err
		}
	}
}

// passes tells what stands in the way of attaching a disk for a while: a copy of it,
// another operation, a repository that comes back with hostd. Nothing of that kind is
// met once there is a domain.
func passes(err error) bool {
	var refused *api.Error
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.Code {
	case api.CodeOtherOperationInProgress, api.CodeVDIInUse, api.CodeVDINotAvailable, api.CodeSRNotAttached:
		return true
	}
	return strings.HasPrefix(refused.Code, "SR_BACKEND_FAILURE")
}

// restore makes the paused domain of an image, or none.
func (m *Manager) restore(ctx context.Context, o *running, w wakeUp) error {
	host := o.site.ref()
	var source *hypervisor.Source
	err := m.cfg.Memory.Claim(ctx, host, o.vm)
	if err == nil {
		source, err = m.openImage(ctx, host, w.image)
	}
	if err == nil && source.Format != hypervisor.Raw {
		err = fmt.Errorf("vm %s: its image is in format %s", o.uuid, source.Format)
	}
	if err == nil {
		w.spec.Disks, w.spec.NICs, err = m.cfg.Devices.Prepare(ctx, host, o.vm)
	}
	if err != nil {
		o.asleep(ctx, w.image)
		return err
	}
	err = o.site.Hypervisor.Restore(ctx, source.Path, w.spec, true)
	if err == nil {
		m.pardon(o.uuid)
		if cerr := m.cfg.Consoles.Renew(ctx, o.uuid); cerr != nil {
			m.cfg.Log.Warn("console-attach", "uuid", o.uuid, "err", cerr)
		}
		return nil
	}
	if errors.Is(err, hypervisor.ErrExists) || errors.Is(err, hypervisor.ErrUnknownOutcome) && !m.rollBack(ctx, o.site, o.uuid, true) {
		m.leave(o.vm) // a domain is there, or may yet appear, which the reconciler ends
		return err
	}
	o.asleep(ctx, w.image)
	return err
}

// openImage attaches an image for reading, also when whoever wrote it has not let go
// of it.
func (m *Manager) openImage(ctx context.Context, host api.HostRef, image api.VDIRef) (*hypervisor.Source, error) {
	if err := m.detach(ctx, image); err != nil {
		return nil, err
	}
	return m.cfg.Disks.Attach(ctx, host, image, false)
}

// asleep lets go of what a host held for a domain that was not restored after all.
func (o *running) asleep(ctx context.Context, image api.VDIRef) {
	o.letGo(ctx)
	ctx, cancel := finishing(ctx)
	defer cancel()
	if err := o.m.cfg.Disks.Detach(ctx, o.site.ref(), image); err != nil {
		o.m.cfg.Log.Warn("image-not-detached", "uuid", o.uuid, "err", err)
	}
}

// recordResumed is recordStarted for a guest that was up before.
func (m *Manager) recordResumed(tx *db.Tx, o *running, vm *api.VM, paused bool) error {
	var since time.Time
	if metrics, err := db.Get(tx, vm.Metrics); err == nil {
		since = metrics.StartTime
	}
	if err := m.recordStarted(tx, o.site, o.vm, vm, paused); err != nil {
		return err
	}
	vm.ScheduledToBeResidentOn = ""
	metrics, err := db.Edit(tx, vm.Metrics)
	if err == nil && !since.IsZero() {
		metrics.StartTime = since
	}
	return err
}

// resumeAgain brings back a VM that was put to sleep for a moment and did not wake, until
// it is awake, or something else has become of it.
func (m *Manager) resumeAgain(ctx context.Context, ref api.VMRef, image api.VDIRef) {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.rousing, image)
	}()
	for nap := firstNap; ; nap = min(2*nap, longestNap) {
		state := m.wakesTo(ref, image)
		if state == "" {
			return
		}
		c := &api.Call{Context: ctx, Task: noTask{}}
		err := m.resumeAs(c, ref, "", api.VMOperationsResume, state == api.VMPowerStatePaused)
		if err == nil {
			return
		}
		m.cfg.Log.Warn("vm-resume-failed", "vm", ref, "err", err)
		if m.cfg.Sleep(ctx, nap) != nil {
			return
		}
	}
}
