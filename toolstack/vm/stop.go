package vm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// errDeaf is a clean shutdown that took too long.
var errDeaf = errors.New("the guest did not stop in time")

func (m *Manager) cleanShutdown(c *api.Call, ref api.VMRef) error {
	return m.stopAs(c, ref, api.VMOperationsCleanShutdown, func(o *running) error {
		return m.askToStop(c, o, m.cfg.ShutdownTimeout)
	})
}

func (m *Manager) hardShutdown(c *api.Call, ref api.VMRef) error {
	return m.stopAs(c, ref, api.VMOperationsHardShutdown, func(o *running) error { return o.kill(c) })
}

// shutdown tries the clean way for the time the VM's shutdown_delay grants, then
// takes the hard one.
func (m *Manager) shutdown(c *api.Call, ref api.VMRef) error {
	limit := m.cfg.ShutdownTimeout
	if vm, err := db.Get(m.cfg.DB.Snapshot(), ref); err == nil && vm.ShutdownDelay > 0 {
		limit = time.Duration(vm.ShutdownDelay) * time.Second
	}
	return m.stopAs(c, ref, api.VMOperationsShutdown, func(o *running) error {
		if err := m.askToStop(c, o, limit); err == nil || errors.Is(context.Cause(c), api.ErrCancelled) {
			return err
		}
		return o.kill(c)
	})
}

// stopAs runs an operation that ends in Halted. A domain that ended meanwhile,
// whoever ended it, is what was wanted.
func (m *Manager) stopAs(c *api.Call, ref api.VMRef, op api.VMOperations, stop func(*running) error) error {
	o, err := m.begin(c, ref, op, nil)
	if err != nil {
		return err
	}
	c.Task.Set(0.1)
	err = asCancelled(c, stop(o))
	if err == nil {
		o.letGo(c)
	}
	return o.end(c, err, func(tx *db.Tx, vm *api.VM) error {
		if err != nil {
			return nil
		}
		if takenOver(tx, vm, o) {
			return nil // who interrupted this records what is then true
		}
		m.forgetStop(o.uuid)
		return m.recordHalted(tx, ref, vm)
	})
}

// askToStop asks the guest to end, and waits until it has.
func (m *Manager) askToStop(c *api.Call, o *running, limit time.Duration) error {
	press := m.button(c, o)
	if err := press(); err != nil {
		if errors.Is(err, hypervisor.ErrNotFound) {
			return nil
		}
		return hvError(o.vm, err)
	}
	c.Task.Set(0.3)
	ctx, cancel := context.WithTimeoutCause(c, limit, errDeaf)
	defer cancel()
	err := m.waitGone(ctx, o, press)
	if errors.Is(err, errDeaf) {
		return api.ErrVMShutdownTimeout(o.vm.String(), strconv.FormatFloat(limit.Seconds(), 'f', -1, 64))
	}
	return err
}

// kill destroys the domain; one that is gone already is fine. When the answer is lost
// it asks again: nobody else can have made a domain of this VM meanwhile.
func (o *running) kill(ctx context.Context) (err error) {
	for range 2 {
		err = o.site.Hypervisor.Destroy(ctx, o.uuid)
		if errors.Is(err, hypervisor.ErrNotFound) {
			return nil
		}
		if !errors.Is(err, hypervisor.ErrUnknownOutcome) || ctx.Err() != nil {
			return err
		}
		if gone, lerr := o.site.gone(ctx, o.uuid); lerr == nil && gone {
			return nil
		}
	}
	return err
}

func (m *Manager) cleanReboot(c *api.Call, ref api.VMRef) error {
	return m.rebootAs(c, ref, api.VMOperationsCleanReboot, func(o *running) error {
		return m.askToStop(c, o, m.cfg.ShutdownTimeout)
	})
}

func (m *Manager) hardReboot(c *api.Call, ref api.VMRef) error {
	return m.rebootAs(c, ref, api.VMOperationsHardReboot, func(o *running) error { return o.kill(c) })
}

// rebootAs ends the domain and makes it anew, so that a changed record takes
// effect, as clients of this API expect of a reboot. The VM keeps its place on
// the host in between.
func (m *Manager) rebootAs(c *api.Call, ref api.VMRef, op api.VMOperations, stop func(*running) error) error {
	var spec hypervisor.Spec
	o, err := m.begin(c, ref, op, func(tx *db.Tx, vm *api.VM) (err error) {
		if spec, err = m.specOf(ref, vm, []*Site{m.siteOf(vm)}); err != nil {
			return err
		}
		return m.readmit(tx, ref, vm)
	})
	if err != nil {
		return err
	}
	c.Task.Set(0.1)
	stopped := asCancelled(c, stop(o))
	if stopped == nil {
		stopped = m.whenFree(c, func() error { return o.become(c, api.VMOperationsStart) })
	}
	if stopped != nil {
		return o.end(c, stopped, func(tx *db.Tx, vm *api.VM) error {
			if !takenOver(tx, vm, o) {
				vm.ScheduledToBeResidentOn = ""
			}
			return nil
		})
	}
	m.forgetStop(o.uuid)
	failed := m.bringUp(c, o, spec, false)
	return o.end(c, hvError(ref, failed), func(tx *db.Tx, vm *api.VM) error {
		if failed != nil {
			return m.recordHalted(tx, ref, vm)
		}
		vm.ScheduledToBeResidentOn = ""
		return m.recordStarted(tx, o.site, ref, vm, false)
	})
}

func (m *Manager) pause(c *api.Call, ref api.VMRef) error {
	return m.switchState(c, ref, api.VMOperationsPause, hypervisor.Hypervisor.Pause, api.VMPowerStatePaused)
}

func (m *Manager) unpause(c *api.Call, ref api.VMRef) error {
	return m.switchState(c, ref, api.VMOperationsUnpause, hypervisor.Hypervisor.Resume, api.VMPowerStateRunning)
}

func (m *Manager) switchState(c *api.Call, ref api.VMRef, op api.VMOperations, do func(hypervisor.Hypervisor, context.Context, string) error, to api.VMPowerState) error {
	o, err := m.begin(c, ref, op, nil)
	if err != nil {
		return err
	}
	err = o.insist(c, do)
	return o.end(c, hvError(ref, err), func(_ *db.Tx, vm *api.VM) error {
		if err == nil {
			vm.PowerState = to
		}
		return nil
	})
}

// powerStateReset makes the row Halted when nothing runs. It is for rows whose
// host is lost; with the domain still there it would be the way to run a VM
// twice, so then the domain is ended first.
func (m *Manager) powerStateReset(c *api.Call, ref api.VMRef) error {
	return m.stopAs(c, ref, api.VMOperationsPowerStateReset, func(o *running) error {
		if err := o.kill(c); err != nil {
			return fmt.Errorf("vm %s: its domain may still run: %w", o.uuid, err)
		}
		return nil
	})
}
