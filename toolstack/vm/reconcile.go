package vm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// crashGrace: a guest that crashes sooner than this after its start would crash
// again, and again; it is left Halted for somebody to look at.
const crashGrace = 30 * time.Second

// retryInterval paces attempts to look while the hypervisor does not answer.
const retryInterval = time.Second

// Run recovers what a former process left, then keeps rows true until the context
// ends. ready is called once, after the first reconcile: before it, rows may
// speak of domains that are long gone.
func (m *Manager) Run(ctx context.Context, ready func()) error {
	if err := m.ensureTemplates(ctx); err != nil {
		return fmt.Errorf("default templates: %w", err)
	}
	if err := m.Recover(ctx); err != nil {
		return err
	}
	m.redoReverts(ctx)
	m.finishDestroys(ctx)
	defer m.sweepMeanwhile(ctx)()
	events, cancel := m.subscribe()
	defer cancel()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return hypervisor.ErrUnavailable
			}
			m.note(e)
			if e.Kind == hypervisor.Resync {
				m.again(ctx, m.cfg.SecondLook)
			}
			if len(events) > 0 { // look once for all that is known
				continue
			}
		case <-m.wake:
		case <-m.cfg.Devices.Left():
			m.unswept = true
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := m.reconcile(ctx); err != nil {
			m.cfg.Log.Warn("reconcile-failed", "err", err)
			m.retry(ctx)
			continue
		}
		m.sight()
		if ready != nil {
			ready()
			ready = nil
		}
	}
}

func (m *Manager) retry(ctx context.Context) {
	t := time.AfterFunc(retryInterval, m.poke)
	context.AfterFunc(ctx, func() { t.Stop() })
}

// note remembers why a domain stopped: the domain cannot be asked any more.
func (m *Manager) note(e hypervisor.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Kind {
	case hypervisor.Stopped:
		m.stops[e.UUID] = e.Reason
	case hypervisor.Started:
		delete(m.stops, e.UUID)
	case hypervisor.Resync:
		m.lookAll = true
	case hypervisor.Unplugged: // it may be a guest that gives up late what it was asked for
		m.look[e.UUID] = true
	}
}

func (m *Manager) forgetStop(uuid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.stops, uuid)
}

// recoverOperations empties current_operations: their tasks died with the former
// process. What they meant to do is remembered for the first reconcile.
func (m *Manager) recoverOperations(ctx context.Context) error {
	unfinished, waking := map[api.VMRef]api.VMOperations{}, map[api.VMRef]bool{}
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		for ref, vm := range db.All[api.VM](tx) {
			if len(vm.CurrentOperations) == 0 && vm.ScheduledToBeResidentOn.IsNull() {
				continue
			}
			if isReverting(vm) {
				continue // it is finished before anything else
			}
			for _, op := range vm.CurrentOperations {
				unfinished[ref] = op
				m.cfg.Log.Warn("vm-operation-interrupted", "op", op, "uuid", vm.UUID)
			}
			if waking[ref] = lettingGo(vm, unfinished[ref]); waking[ref] {
				continue // another process must find it in the row, should this one die, too
			}
			edit, err := db.Edit(tx, ref)
			if err != nil {
				return err
			}
			edit.CurrentOperations, edit.ScheduledToBeResidentOn = nil, ""
			edit.AllowedOperations = allowed(ref, edit)
		}
		return nil
	})
	m.unfinished, m.waking = unfinished, waking
	return err
}

// reconcile compares every row that runs here, or should, with the domains.
func (m *Manager) reconcile(ctx context.Context) error {
	epochs, stops := m.noted()
	look, all := m.looking()
	domains, err := m.domains(ctx)
	if err != nil {
		m.putBack(stops)
		m.lookAgain(look, all)
		return err
	}
	m.count(domains)
	for ref, vm := range db.All[api.VM](m.cfg.DB.Snapshot()) {
		if vm.IsControlDomain {
			continue
		}
		d, there := domains[vm.UUID]
		delete(domains, vm.UUID)
		d.UUID = vm.UUID
		f := finding{domain: d, there: there, why: stops[vm.UUID], epoch: epochs[ref], look: all || look[vm.UUID]}
		if err := m.settle(ctx, ref, vm, f); err != nil {
			m.lookAgain(look, all)
			return fmt.Errorf("vm %s: %w", vm.UUID, err)
		}
	}
	m.unfinished = nil
	if err := m.endOrphans(ctx, domains); err != nil {
		return err
	}
	m.sweepDevices(ctx)
	m.reportForeign(domains)
	return nil
}

// endOrphans ends domains that were given up and whose VM is destroyed since.
func (m *Manager) endOrphans(ctx context.Context, domains map[string]located) error {
	m.mu.Lock()
	now := time.Now()
	maps.DeleteFunc(m.doomed, func(_ string, until time.Time) bool { return now.After(until) })
	doomed := maps.Clone(m.doomed)
	m.mu.Unlock()
	for uuid, d := range domains {
		if _, yes := doomed[uuid]; !yes {
			continue
		}
		if err := m.undoStart(ctx, d.site, uuid); err != nil {
			return err
		}
		delete(domains, uuid)
	}
	return nil
}

// finding is what reconcile knows of one VM.
type finding struct {
	domain located
	there  bool
	why    hypervisor.Reason // it stopped, when it did
	epoch  uint64
	look   bool // at its devices
}

// noted takes what is known before looking: an operation that begins or ends
// later makes the finding stale.
func (m *Manager) noted() (map[api.VMRef]uint64, map[string]hypervisor.Reason) {
	m.mu.Lock()
	defer m.mu.Unlock()
	stops := m.stops
	m.stops = map[string]hypervisor.Reason{}
	return maps.Clone(m.epochs), stops
}

// putBack keeps reasons for the next attempt; newer ones win.
func (m *Manager) putBack(stops map[string]hypervisor.Reason) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uuid, why := range stops {
		if _, newer := m.stops[uuid]; !newer {
			m.stops[uuid] = why
		}
	}
}

// settle makes one row true. A row with an operation in progress is left to it:
// its end wakes the reconciler again.
func (m *Manager) settle(ctx context.Context, ref api.VMRef, vm *api.VM, f finding) error {
	if m.waking[ref] && !m.mustWake(ref, f.domain.Domain) && f.domain.State != hypervisor.Stopping {
		if err := m.awake(ctx, ref); err != nil {
			return err
		}
		var err error
		if vm, err = db.Get(m.cfg.DB.Snapshot(), ref); err != nil {
			return nil // gone meanwhile
		}
	}
	switch {
	case f.domain.State == hypervisor.Stopping:
		m.keepReason(vm.UUID, f.why)
		m.retry(ctx)
		return nil
	case m.engaged(ref, vm):
		m.keepReason(vm.UUID, f.why)
		m.lookAgain(map[string]bool{vm.UUID: f.look}, false)
		return nil
	case !f.there:
		return m.settleAbsent(ctx, ref, vm, f)
	case m.mustUndo(ref, vm, f.domain.Domain):
		m.leave(ref)
		err := m.undoStart(ctx, f.domain.site, vm.UUID)
		if err == nil && neverWoke(vm) {
			return m.settleSuspended(ctx, ref, vm)
		}
		return err
	default:
		return m.settlePresent(ctx, ref, vm, f)
	}
}

func (m *Manager) keepReason(uuid string, why hypervisor.Reason) {
	if why != "" {
		m.putBack(map[string]hypervisor.Reason{uuid: why})
	}
}

// reasonGrace is how long a domain that is gone may wait for the event that says
// why: a list can overtake it, and what to do next depends on the reason.
const reasonGrace = time.Second

// awaitsReason reports whether to look again later. There is nothing to wait for
// in the first reconcile: what stopped before it has no event.
func (m *Manager) awaitsReason(uuid string, why hypervisor.Reason) bool {
	since, waiting := m.missing[uuid]
	switch {
	case why != "" || m.unfinished != nil || waiting && time.Since(since) >= reasonGrace:
		delete(m.missing, uuid)
		return false
	case !waiting:
		m.missing[uuid] = time.Now()
		time.AfterFunc(reasonGrace, m.poke)
	}
	return true
}

// mustUndo tells domains whose start was answered with an error, or was left by a
// former process before the first instruction ran.
func (m *Manager) mustUndo(ref api.VMRef, vm *api.VM, d hypervisor.Domain) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	op := m.unfinished[ref]
	neverRan := d.State == hypervisor.Paused && (m.unfinished != nil && neverWoke(vm) || vm.PowerState == api.VMPowerStateHalted &&
		(op == api.VMOperationsStart || op == api.VMOperationsStartOn))
	return time.Now().Before(m.doomed[vm.UUID]) || neverRan
}

func (m *Manager) undoStart(ctx context.Context, site *Site, uuid string) error {
	if err := site.Hypervisor.Destroy(ctx, uuid); err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		return err
	}
	m.pardon(uuid)
	m.cfg.Log.Info("vm-start-undone", "uuid", uuid)
	m.poke()
	return nil
}

func (m *Manager) settlePresent(ctx context.Context, ref api.VMRef, vm *api.VM, f finding) error {
	delete(m.missing, vm.UUID)
	if err := m.cfg.Consoles.Attach(ctx, vm.UUID); err != nil {
		m.cfg.Log.Warn("console-attach", "uuid", vm.UUID, "err", err)
	}
	site, want := f.domain.site, api.VMPowerStateRunning
	if f.domain.State == hypervisor.Paused {
		want = api.VMPowerStatePaused
	}
	if err := m.watchSpace(ctx, vm, f.domain); err != nil {
		return err
	}
	if m.mustWake(ref, f.domain.Domain) {
		if err := m.inspected(ctx, ref, f); err != nil {
			return err
		}
		if err := site.Hypervisor.Resume(ctx, vm.UUID); err != nil {
			return err
		}
		return m.awake(ctx, ref)
	}
	if m.dozes(ref, f.domain.Domain) {
		if err := m.inspected(ctx, ref, f); err != nil {
			return err
		}
		if err := m.goOn(ctx, f.domain); err != nil { // it goes for this one alone
			m.cfg.Log.Warn("vm-not-let-go", "uuid", vm.UUID, "err", err)
			m.retry(ctx)
		}
		return nil
	}
	if vm.PowerState == want && vm.ResidentOn == site.ref() && !idleImage(vm, want) {
		return m.inspected(ctx, ref, f)
	}
	done, err := m.settled(ctx, ref, f, func(tx *db.Tx, vm *api.VM) error {
		m.cfg.Log.Info("vm-state", "uuid", vm.UUID, "was", vm.PowerState, "is", want)
		if idleImage(vm, want) {
			if err := m.dropImage(tx, vm); err != nil {
				return err
			}
		}
		if vm.ResidentOn != site.ref() {
			return m.recordStarted(tx, site, ref, vm, want == api.VMPowerStatePaused)
		}
		vm.PowerState = want
		return nil
	})
	if err != nil || !done {
		return err
	}
	return m.inspected(ctx, ref, f)
}

func (m *Manager) inspected(ctx context.Context, ref api.VMRef, f finding) error {
	if !f.look {
		return nil
	}
	m.inspect(ctx, ref, f)
	return nil
}

// settleAbsent records the end of a domain and follows the VM's wishes for it.
func (m *Manager) settleAbsent(ctx context.Context, ref api.VMRef, vm *api.VM, f finding) error {
	delete(m.starved, vm.UUID)
	if vm.PowerState == api.VMPowerStateSuspended {
		return m.settleSuspended(ctx, ref, vm)
	}
	if vm.ResidentOn.IsNull() || m.site(vm.ResidentOn) == nil {
		return m.releaseAstray(ctx, ref, vm)
	}
	if m.awaitsReason(vm.UUID, f.why) {
		return nil
	}
	if !vm.SuspendVDI.IsNull() {
		if saved, err := m.settleSaved(ctx, ref, vm, f); saved || err != nil {
			return err
		}
	}
	f.why = m.explained(ctx, vm, f.why)
	restart := m.wantsRestart(ref, vm, f.why)
	done, err := m.settled(ctx, ref, f, func(tx *db.Tx, vm *api.VM) error {
		return m.recordHalted(tx, ref, vm)
	})
	if err != nil || !done {
		return err
	}
	m.cfg.Log.Info("vm-stopped", "uuid", vm.UUID, "reason", f.why, "restart", restart)
	m.tellEnd(ctx, vm, f.why)
	m.leave(ref)
	if err := m.releaseAstray(ctx, ref, vm); err != nil {
		return err
	}
	if restart {
		go m.restart(ctx, ref)
	}
	return nil
}

// wantsRestart reads actions_after_… for what happened. A guest that restarts
// itself under actions_after_reboot=destroy cannot be told from one that powers
// off; with actions_after_shutdown=restart it starts again.
func (m *Manager) wantsRestart(ref api.VMRef, vm *api.VM, why hypervisor.Reason) bool {
	switch m.unfinished[ref] {
	case api.VMOperationsCleanReboot, api.VMOperationsHardReboot, api.VMOperationsStart:
		return true // a reboot that was interrupted between its halves
	}
	switch why {
	case hypervisor.ByGuest:
		return vm.ActionsAfterShutdown == api.OnNormalExitRestart
	case hypervisor.ByCrash, byOutOfMemory:
		again := vm.ActionsAfterCrash == api.OnCrashBehaviourRestart ||
			vm.ActionsAfterCrash == api.OnCrashBehaviourCoredumpAndRestart ||
			vm.ActionsAfterCrash == api.OnCrashBehaviourRenameRestart
		return again && m.uptime(vm) >= crashGrace
	default:
		return false
	}
}

func (m *Manager) uptime(vm *api.VM) time.Duration {
	metrics, err := db.Get(m.cfg.DB.Snapshot(), vm.Metrics)
	if err != nil {
		return 0
	}
	return time.Since(metrics.StartTime)
}

// errStale is a finding that an operation has overtaken.
var errStale = errors.New("an operation began or ended meanwhile")

// settled applies a finding, and reports whether it did: not when an operation
// has begun or ended since, nor when the VM is gone.
func (m *Manager) settled(ctx context.Context, ref api.VMRef, f finding, apply func(*db.Tx, *api.VM) error) (bool, error) {
	err := m.edit(ctx, ref, func(tx *db.Tx, vm *api.VM) error {
		if m.epoch(ref) != f.epoch || m.engaged(ref, vm) {
			return errStale
		}
		return apply(tx, vm)
	})
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.CodeHandleInvalid {
		return false, nil
	}
	if errors.Is(err, errStale) {
		if f.why != "" {
			m.putBack(map[string]hypervisor.Reason{f.domain.UUID: f.why})
		}
		m.poke()
		return false, nil
	}
	return err == nil, err
}

// restart starts a VM again on the toolstack's own account.
func (m *Manager) restart(ctx context.Context, ref api.VMRef) {
	c := &api.Call{Context: ctx, Task: noTask{}}
	if err := m.startAs(c, ref, "", api.VMOperationsStart, false); err != nil {
		m.cfg.Log.Warn("vm-restart-failed", "vm", ref, "err", err)
	}
}

// noTask is the progress of what no client asked for.
type noTask struct{}

func (noTask) Ref() api.TaskRef { return "" }
func (noTask) Set(float64)      {}

// reportForeign says once per domain that it is nobody's.
func (m *Manager) reportForeign(domains map[string]located) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uuid := range m.known {
		if _, there := domains[uuid]; !there {
			delete(m.known, uuid)
		}
	}
	for uuid, d := range domains {
		if !m.known[uuid] {
			m.known[uuid] = true
			m.cfg.Log.Warn("domain-unknown", "uuid", uuid, "name", d.Name, "state", d.State)
		}
	}
}
