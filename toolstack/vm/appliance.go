package vm

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// registerAppliances binds the behaviour of groups of VMs that start and stop
// together.
func (m *Manager) registerAppliances(r *api.Registry) {
	api.HandleVMApplianceCreate(r, m.createAppliance)
	api.HandleVMApplianceDestroy(r, m.destroyAppliance)
	api.HandleVMApplianceStart(r, func(c *api.Call, ref api.VMApplianceRef, paused bool) error {
		return m.onAppliance(c, ref, sequence{
			op: api.VMApplianceOperationStart, in: []api.VMPowerState{api.VMPowerStateHalted},
			act: func(c *api.Call, vm api.VMRef) error { return m.start(c, vm, paused, false) },
		})
	})
	api.HandleVMApplianceCleanShutdown(r, m.stopAppliance(api.VMApplianceOperationCleanShutdown, m.cleanShutdown,
		api.VMPowerStateRunning, api.VMPowerStatePaused))
	api.HandleVMApplianceHardShutdown(r, m.stopAppliance(api.VMApplianceOperationHardShutdown, m.hardShutdown,
		api.VMPowerStateRunning, api.VMPowerStatePaused, api.VMPowerStateSuspended))
	api.HandleVMApplianceShutdown(r, m.stopAppliance(api.VMApplianceOperationShutdown, m.shutdown,
		api.VMPowerStateRunning, api.VMPowerStatePaused, api.VMPowerStateSuspended))
}

func (m *Manager) stopAppliance(op api.VMApplianceOperation, act func(*api.Call, api.VMRef) error, in ...api.VMPowerState) func(*api.Call, api.VMApplianceRef) error {
	return func(c *api.Call, ref api.VMApplianceRef) error {
		return m.onAppliance(c, ref, sequence{op: op, in: in, act: act, down: true})
	}
}

func (m *Manager) createAppliance(c *api.Call, args *api.VMAppliance) (api.VMApplianceRef, error) {
	a := args.Clone()
	a.UUID, a.CurrentOperations, a.VMs = api.NewUUID(), nil, nil
	ref := api.NewRef[api.VMAppliance]()
	return ref, m.cfg.DB.Update(c, func(tx *db.Tx) error {
		operation.Appliance.Renew(tx, ref, a)
		db.InsertAs(tx, ref, a)
		return nil
	})
}

// destroyAppliance leaves its VMs, which then belong to none.
func (m *Manager) destroyAppliance(c *api.Call, ref api.VMApplianceRef) error {
	return m.cfg.DB.Update(c, func(tx *db.Tx) error {
		a, err := db.Get(tx, ref)
		if err != nil {
			return err
		}
		for task, op := range a.CurrentOperations {
			return api.ErrOtherOperationInProgress("VM_appliance", ref.String(), string(op), task)
		}
		for _, member := range a.VMs {
			vm, err := db.Edit(tx, member)
			if err != nil {
				return err
			}
			vm.Appliance = ""
		}
		return db.Delete(tx, ref)
	})
}

// sequence is something done to the VMs of an appliance, one order after another.
type sequence struct {
	op   api.VMApplianceOperation
	in   []api.VMPowerState // of the VMs there is something to do for
	act  func(*api.Call, api.VMRef) error
	down bool // the last order first, and with the other delay
}

// step is the VMs of one order: they go at once, and the next order waits for them
// and then for the longest of their delays.
type step struct {
	order int64
	vms   []api.VMRef
	delay time.Duration
}

func (m *Manager) onAppliance(c *api.Call, ref api.VMApplianceRef, s sequence) error {
	task := operation.TaskKey(c)
	var steps []step
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		a, err := operation.Appliance.Begin(tx, ref, s.op, task)
		if err == nil {
			steps = s.steps(tx, a)
		}
		return err
	})
	if err != nil {
		return err
	}
	failed := m.walk(c, s, steps)
	end, cancel := context.WithTimeout(context.WithoutCancel(c), finishTimeout)
	defer cancel()
	err = m.cfg.DB.Update(end, func(tx *db.Tx) error {
		a, err := operation.Appliance.End(tx, ref, task)
		if err == nil {
			operation.Appliance.Renew(tx, ref, a)
		}
		return err
	})
	if failed != nil {
		return asCancelled(c, failed)
	}
	return err
}

// steps says what to do for whom, and when.
func (s sequence) steps(r db.Reader, a *api.VMAppliance) []step {
	byOrder := map[int64]*step{}
	for _, ref := range a.VMs {
		vm, err := db.Get(r, ref)
		if err != nil || !slices.Contains(s.in, vm.PowerState) {
			continue
		}
		x := byOrder[vm.Order]
		if x == nil {
			x = &step{order: vm.Order}
			byOrder[vm.Order] = x
		}
		delay := vm.StartDelay
		if s.down {
			delay = vm.ShutdownDelay
		}
		x.vms, x.delay = append(x.vms, ref), max(x.delay, time.Duration(delay)*time.Second)
	}
	var steps []step
	for _, x := range byOrder {
		steps = append(steps, *x)
	}
	slices.SortFunc(steps, func(a, b step) int {
		if s.down {
			a, b = b, a
		}
		return cmp.Compare(a.order, b.order)
	})
	return steps
}

// walk takes all steps; a VM that fails stops no other.
func (m *Manager) walk(c *api.Call, s sequence, steps []step) error {
	failures := 0
	for i, x := range steps {
		failures += m.together(c, s, x.vms)
		c.Task.Set(float64(i+1) / float64(len(steps)))
		if i == len(steps)-1 || x.delay == 0 {
			continue
		}
		if err := m.cfg.Sleep(c, x.delay); err != nil {
			return err
		}
	}
	if failures > 0 {
		return api.ErrOperationPartiallyFailed("VM_appliance." + string(s.op))
	}
	return nil
}

// together acts on VMs side by side and counts the failures.
func (m *Manager) together(c *api.Call, s sequence, vms []api.VMRef) (failures int) {
	errs := make([]error, len(vms))
	var all sync.WaitGroup
	for i, ref := range vms {
		all.Go(func() {
			member := *c
			member.Task = noTask{}
			errs[i] = s.act(&member, ref)
		})
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			failures++
			m.cfg.Log.Warn("appliance-member-failed", "op", s.op, "vm", vms[i], "err", err)
		}
	}
	return failures
}
