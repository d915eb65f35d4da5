package vm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/operation"
)

// finishTimeout bounds recording a result after the client's context has ended.
const finishTimeout = 30 * time.Second

// running is one entry of current_operations.
type running struct {
	m    *Manager
	vm   api.VMRef
	uuid string
	site *Site // where the VM is, or is about to be
	op   api.VMOperations
	task string
	// started is when the domain there was at the beginning had been made, where there
	// was one: a hard reboot may make another one meanwhile.
	started time.Time
}

// begin checks op against the life-cycle and enters it, all in one transaction;
// also, when given, adds its own checks and its intent to that transaction.
func (m *Manager) begin(c *api.Call, ref api.VMRef, op api.VMOperations, also func(*db.Tx, *api.VM) error) (*running, error) {
	o := &running{m: m, vm: ref, op: op, task: operation.TaskKey(c)}
	if err := m.awaitSight(c, op); err != nil {
		return nil, err
	}
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		vm, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		if err := check(ref, vm, op); err != nil {
			return err
		}
		if also != nil {
			if err := also(tx, vm); err != nil {
				return err
			}
		}
		if makesDomain[op] {
			if err := m.cfg.Devices.Reserve(tx, ref, o.task); err != nil {
				return err
			}
		}
		operation.VM.Enter(tx, ref, vm, op, o.task)
		o.uuid, o.site, o.started = vm.UUID, m.siteOf(vm), startOf(tx, vm)
		m.bump(ref)
		m.stir(ref)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// become changes what the operation is, half-way: a reboot whose domain has ended
// is a start, which nothing may interrupt. It fails when it was itself interrupted:
// after a hard shutdown the VM shall not come back, after a hard reboot only once.
// The devices go from the domain that was to the one that will be.
func (o *running) become(ctx context.Context, op api.VMOperations) error {
	return o.m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		vm, err := db.Edit(tx, o.vm)
		if err != nil {
			return err
		}
		if vm.PowerState == api.VMPowerStateHalted {
			return api.ErrVMHalted(o.vm.String())
		}
		if task, by, yes := interrupted(vm, o.op); yes {
			return api.ErrOtherOperationInProgress("VM", o.vm.String(), string(by), task)
		}
		for task, by := range vm.CurrentOperations { // who interrupted this may be a start by now
			if task != o.task && by == op {
				return api.ErrOtherOperationInProgress("VM", o.vm.String(), string(by), task)
			}
		}
		if o.outlived(tx, vm) { // or be done
			return api.ErrVMRebooted(o.vm.String())
		}
		if err := o.m.cfg.Devices.Stopped(tx, o.vm); err != nil {
			return err
		}
		if err := o.m.cfg.Devices.Reserve(tx, o.vm, o.task); err != nil {
			return err
		}
		operation.VM.Enter(tx, o.vm, vm, op, o.task)
		o.op = op
		o.m.bump(o.vm)
		return nil
	})
}

// end records the result and leaves current_operations. It does so also when the
// call was cancelled: what happened has happened. Where the database cannot take
// it now, it is tried until it can: a VM must not stay locked by what has ended.
func (o *running) end(ctx context.Context, failed error, result func(*db.Tx, *api.VM) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	err := o.record(ctx, result)
	if err != nil && !final(err) {
		go o.recordLater(result)
	}
	o.m.poke() // what happened meanwhile was left for now
	if failed != nil {
		o.m.cfg.Log.Warn("vm-operation-failed", "op", o.op, "uuid", o.uuid, "err", failed)
		return failed
	}
	return err
}

// finish records what an operation has made, or, when that cannot be written, that
// it has made nothing: the disks it is about are given up then.
func (o *running) finish(c *api.Call, result func(*db.Tx, *api.VM) error) error {
	ctx, cancel := finishing(c)
	defer cancel()
	if err := o.record(ctx, result); err != nil {
		return o.end(c, err, nil)
	}
	o.m.poke()
	return nil
}

func (o *running) record(ctx context.Context, result func(*db.Tx, *api.VM) error) error {
	return o.m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		vm, err := operation.VM.End(tx, o.vm, o.task)
		if err != nil {
			return err
		}
		if result != nil {
			if err := result(tx, vm); err != nil {
				return err
			}
		}
		operation.VM.Renew(tx, o.vm, vm)
		o.m.bump(o.vm)
		return nil
	})
}

// final reports whether another attempt would fare no better.
func final(err error) bool {
	var known *api.Error
	return errors.As(err, &known) || errors.Is(err, db.ErrClosed)
}

// recordLater ends with success, or with the process.
func (o *running) recordLater(result func(*db.Tx, *api.VM) error) {
	for {
		time.Sleep(retryInterval)
		err := o.record(context.Background(), result)
		if err == nil || final(err) {
			o.m.poke()
			return
		}
		o.m.cfg.Log.Warn("vm-operation-not-recorded", "op", o.op, "uuid", o.uuid, "err", err)
	}
}

// bump is called inside transactions, which are one after another, so a reader
// in a transaction sees every begin and end before it.
func (m *Manager) bump(ref api.VMRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epochs[ref]++
}

func (m *Manager) epoch(ref api.VMRef) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epochs[ref]
}

// poke wakes the reconciler.
func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// asCancelled gives a context's end the error a client expects.
func asCancelled(c *api.Call, err error) error {
	if err != nil && errors.Is(context.Cause(c), api.ErrCancelled) {
		return api.ErrTaskCancelled(c.Task.Ref().String())
	}
	return err
}

// edit changes a VM outside of any operation.
func (m *Manager) edit(ctx context.Context, ref api.VMRef, f func(*db.Tx, *api.VM) error) error {
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		vm, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		if err := f(tx, vm); err != nil {
			return err
		}
		vm.AllowedOperations = allowed(ref, vm)
		return nil
	})
}

func (m *Manager) assertOperationValid(_ *api.Call, ref api.VMRef, op api.VMOperations) error {
	vm, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return err
	}
	return check(ref, vm, op)
}

func (m *Manager) updateAllowedOperations(c *api.Call, ref api.VMRef) error {
	return m.edit(c, ref, func(*db.Tx, *api.VM) error { return nil })
}

// gone reports whether a domain has ended.
func (s *Site) gone(ctx context.Context, uuid string) (bool, error) {
	domains, err := s.Hypervisor.List(ctx)
	if err != nil {
		return false, fmt.Errorf("vm %s: %w", uuid, err)
	}
	for _, d := range domains {
		if d.UUID == uuid {
			return false, nil
		}
	}
	return true, nil
}

// waitGone waits until a domain has ended, pressing its power button now and
// then: a guest that is still booting misses the first time, and an agent may agree
// and not act.
func (m *Manager) waitGone(ctx context.Context, o *running, press func() error) error {
	uuid := o.uuid
	events, cancel := o.site.Hypervisor.Subscribe()
	defer cancel()
	again := time.NewTicker(m.cfg.PressInterval)
	defer again.Stop()
	for {
		select {
		case e, ok := <-events: // the first is a Resync: look before waiting
			if !ok {
				return hypervisor.ErrUnavailable
			}
			if e.Kind != hypervisor.Resync && e.UUID != uuid {
				continue
			}
		case <-again.C:
			if err := press(); err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
				m.cfg.Log.Warn("vm-power-button", "uuid", uuid, "err", err)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if gone, err := o.site.gone(ctx, uuid); err == nil && gone {
			return nil
		}
	}
}

// pressInterval is long enough that no guest takes two presses for a demand to
// stop without saving.
const pressInterval = 15 * time.Second
