package vm

import (
	"context"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/memory"
)

// Memory keeps account of the hosts' memory.
type Memory interface {
	// Rooms is what each host has for one more VM, beside the one named.
	Rooms(r db.Reader, but api.VMRef) map[api.HostRef]memory.Room
	// Claim waits until a VM that is scheduled to a host can have its memory.
	Claim(ctx context.Context, host api.HostRef, vm api.VMRef) error
	// Poke tells that sizes have changed.
	Poke()
	// Cooperative is false for a guest that does not give memory it was asked for.
	Cooperative(vm api.VMRef) bool
}

// accountant is the one for a Manager that was given none: it squeezes nobody.
func accountant(d *db.DB, sites []*Site) Memory {
	cfg := memory.Config{DB: d}
	for _, s := range sites {
		if s.Host == nil { // tests of nothing that runs
			continue
		}
		cfg.Sites = append(cfg.Sites, memory.Site{Host: s.Host, Balloons: s.Hypervisor})
	}
	return memory.New(cfg)
}

// readmit has a VM that restarts hold all it may use before its balloon driver is
// back, or refuses the restart while the VM still runs.
func (m *Manager) readmit(tx *db.Tx, ref api.VMRef, vm *api.VM) error {
	if err := m.canReturn(tx, ref, vm); err != nil {
		return err
	}
	vm.ScheduledToBeResidentOn = m.siteOf(vm).ref()
	return nil
}

// canReturn says whether there will be room for a running VM whose domain is about to
// be made anew.
func (m *Manager) canReturn(r db.Reader, ref api.VMRef, vm *api.VM) error {
	room := m.cfg.Memory.Rooms(r, ref)[m.siteOf(vm).ref()]
	if need := memory.Footprint(vm); vm.MemoryTarget < vm.MemoryStaticMax && need > room.Most {
		return memory.NotEnough(need, room.Most)
	}
	return nil
}

// targetOf is what a guest is to have once its balloon driver is there.
func targetOf(vm *api.VM) int64 { return min(vm.MemoryDynamicMax, vm.MemoryStaticMax) }

func (m *Manager) registerMemory(r *api.Registry) {
	api.HandleVMSetMemoryTargetLive(r, m.setMemoryTargetLive)
	api.HandleVMWaitMemoryTargetLive(r, m.waitMemoryTargetLive)
	api.HandleVMGetCooperative(r, func(_ *api.Call, ref api.VMRef) (bool, error) {
		_, err := db.Get(m.cfg.DB.Snapshot(), ref)
		return err == nil && m.cfg.Memory.Cooperative(ref), err
	})
}

// setMemoryTargetLive makes the dynamic range one value, as the successor of this
// message, set_memory_dynamic_range, is used for.
func (m *Manager) setMemoryTargetLive(c *api.Call, ref api.VMRef, target int64) error {
	return m.resize(c, ref, api.VMOperationsChangingMemoryLive, func(vm *api.VM) {
		vm.MemoryDynamicMin, vm.MemoryDynamicMax = target, target
	})
}

// rangeFits refuses a running VM a minimum that its host cannot give.
func (m *Manager) rangeFits(r db.Reader, ref api.VMRef, vm *api.VM, before int64) error {
	if vm.PowerState != api.VMPowerStateRunning || vm.MemoryDynamicMin <= before {
		return nil
	}
	room := m.cfg.Memory.Rooms(r, ref)[vm.ResidentOn]
	if need := vm.MemoryDynamicMin + memory.Overhead(vm.MemoryStaticMax, vm.VCPUsMax); need > room.Most {
		return memory.NotEnough(need, room.Most)
	}
	return nil
}

// pinned says why a VM cannot have less than all its memory; "" when it can.
func pinned(vm *api.VM) string {
	switch {
	case vm.Platform["nested-virt"] == "true":
		return "nested virtualization needs all of the VM's memory in place"
	case len(vm.VGPUs) > 0 || len(vm.AttachedPCIs) > 0:
		return "devices of the host reach into all of the VM's memory"
	}
	return ""
}

const (
	// memoryWait is how long a guest may take to reach its target before the wait for
	// that is given up, as in the reference implementation.
	memoryWait = 256 * time.Second
	// memoryReached is how near to its target a guest has reached it.
	memoryReached = 1 << 20
)

// waitMemoryTargetLive returns when the guest has what its target says.
func (m *Manager) waitMemoryTargetLive(c *api.Call, ref api.VMRef) error {
	o, err := m.begin(c, ref, api.VMOperationsAwaitingMemoryLive, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(c)
	defer cancel(nil)
	go func() {
		if m.cfg.Sleep(ctx, memoryWait) == nil {
			cancel(api.ErrVMMemoryTargetWaitTimeout(ref.String()))
		}
	}()
	m.cfg.Memory.Poke()
	return o.end(c, asCancelled(c, m.awaitTarget(ctx, ref)), nil)
}

func (m *Manager) awaitTarget(ctx context.Context, ref api.VMRef) error {
	w := m.cfg.DB.Watch()
	defer w.Close()
	for {
		reached, err := reachedTarget(m.cfg.DB.Snapshot(), ref)
		if err != nil || reached {
			return err
		}
		select {
		case <-w.C():
			w.Changes()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reachedTarget asks the rows: the accountant writes there what balloons say.
func reachedTarget(r db.Reader, ref api.VMRef) (bool, error) {
	vm, err := db.Get(r, ref)
	if err != nil {
		return false, err
	}
	if vm.PowerState != api.VMPowerStateRunning {
		return false, api.ErrVMBadPowerState(ref.String(), lower(api.VMPowerStateRunning), lower(vm.PowerState))
	}
	metrics, err := db.Get(r, vm.Metrics)
	if err != nil {
		return false, err
	}
	in := vm.MemoryTarget >= vm.MemoryDynamicMin && vm.MemoryTarget <= vm.MemoryDynamicMax
	return in && max(metrics.MemoryActual-vm.MemoryTarget, vm.MemoryTarget-metrics.MemoryActual) <= memoryReached, nil
}
