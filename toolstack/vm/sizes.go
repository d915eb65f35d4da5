package vm

import (
	"fmt"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Limits of a VM's size. The lower one is what a kernel needs to say so when its
// memory is too small; the upper ones are the machine type's.
const (
	minMemory = 16 << 20
	maxMemory = 16 << 40
	maxVCPUs  = 288
)

// CheckSizes checks memory and vCPUs of a record against each other.
func CheckSizes(vm *api.VM) error {
	if vm.MemoryStaticMin < 0 || vm.MemoryStaticMax < minMemory || vm.MemoryStaticMax > maxMemory {
		return api.ErrValueNotSupported("memory_static_max", strconv.FormatInt(vm.MemoryStaticMax, 10),
			fmt.Sprintf("must be from %d to %d", minMemory, int64(maxMemory)))
	}
	ordered := vm.MemoryStaticMin <= vm.MemoryDynamicMin && vm.MemoryDynamicMin <= vm.MemoryDynamicMax &&
		vm.MemoryDynamicMax <= vm.MemoryStaticMax
	if !ordered {
		return api.ErrMemoryConstraintViolationOrder()
	}
	if why := pinned(vm); why != "" && (vm.MemoryDynamicMin != vm.MemoryStaticMax || vm.MemoryDynamicMax != vm.MemoryStaticMax) {
		return api.ErrMemoryConstraintViolationMaxpin(why)
	}
	if vm.VCPUsMax < 1 || vm.VCPUsMax > maxVCPUs {
		return api.ErrValueNotSupported("VCPUs_max", strconv.FormatInt(vm.VCPUsMax, 10),
			"must be from 1 to "+strconv.Itoa(maxVCPUs))
	}
	if vm.VCPUsAtStartup < 1 || vm.VCPUsAtStartup > vm.VCPUsMax {
		return api.ErrValueNotSupported("VCPUs_at_startup", strconv.FormatInt(vm.VCPUsAtStartup, 10),
			"must be from 1 to VCPUs_max")
	}
	return nil
}

func (m *Manager) registerSizes(r *api.Registry) {
	const (
		limits  = api.VMOperationsChangingMemoryLimits
		static  = api.VMOperationsChangingStaticRange
		dynamic = api.VMOperationsChangingDynamicRange
		vcpus   = api.VMOperationsChangingVCPUs
	)
	one := func(op api.VMOperations, set func(*api.VM, int64)) func(*api.Call, api.VMRef, int64) error {
		return func(c *api.Call, ref api.VMRef, value int64) error {
			return m.resize(c, ref, op, func(vm *api.VM) { set(vm, value) })
		}
	}
	two := func(op api.VMOperations, set func(vm *api.VM, min, max int64)) func(*api.Call, api.VMRef, int64, int64) error {
		return func(c *api.Call, ref api.VMRef, min, max int64) error {
			return m.resize(c, ref, op, func(vm *api.VM) { set(vm, min, max) })
		}
	}
	api.HandleVMSetMemory(r, one(limits, func(vm *api.VM, v int64) {
		vm.MemoryDynamicMin, vm.MemoryDynamicMax, vm.MemoryStaticMax = v, v, v
		vm.MemoryStaticMin = min(vm.MemoryStaticMin, v)
	}))
	api.HandleVMSetMemoryStaticMin(r, one(static, func(vm *api.VM, v int64) { vm.MemoryStaticMin = v }))
	api.HandleVMSetMemoryStaticMax(r, one(static, func(vm *api.VM, v int64) { vm.MemoryStaticMax = v }))
	api.HandleVMSetMemoryDynamicMin(r, one(dynamic, func(vm *api.VM, v int64) { vm.MemoryDynamicMin = v }))
	api.HandleVMSetMemoryDynamicMax(r, one(dynamic, func(vm *api.VM, v int64) { vm.MemoryDynamicMax = v }))
	api.HandleVMSetMemoryStaticRange(r, two(static, func(vm *api.VM, min, max int64) {
		vm.MemoryStaticMin, vm.MemoryStaticMax = min, max
	}))
	api.HandleVMSetMemoryDynamicRange(r, two(dynamic, func(vm *api.VM, min, max int64) {
		vm.MemoryDynamicMin, vm.MemoryDynamicMax = min, max
	}))
	api.HandleVMSetMemoryLimits(r, func(c *api.Call, ref api.VMRef, staticMin, staticMax, dynamicMin, dynamicMax int64) error {
		return m.resize(c, ref, limits, func(vm *api.VM) {
			vm.MemoryStaticMin, vm.MemoryStaticMax = staticMin, staticMax
			vm.MemoryDynamicMin, vm.MemoryDynamicMax = dynamicMin, dynamicMax
		})
	})
	api.HandleVMSetVCPUsMax(r, one(vcpus, func(vm *api.VM, v int64) { vm.VCPUsMax = v }))
	api.HandleVMSetVCPUsAtStartup(r, one(vcpus, func(vm *api.VM, v int64) { vm.VCPUsAtStartup = v }))
	api.HandleVMComputeMemoryOverhead(r, func(_ *api.Call, ref api.VMRef) (int64, error) {
		vm, err := db.Get(m.cfg.DB.Snapshot(), ref)
		if err != nil {
			return 0, err
		}
		return overhead(vm.MemoryStaticMax, vm.VCPUsMax), nil
	})
	m.registerMemory(r)
}

// resize changes sizes when the life-cycle allows it and they still fit together.
func (m *Manager) resize(c *api.Call, ref api.VMRef, op api.VMOperations, set func(*api.VM)) error {
	defer m.cfg.Memory.Poke()
	return m.edit(c, ref, func(tx *db.Tx, vm *api.VM) error {
		if err := check(ref, vm, op); err != nil {
			return err
		}
		before := vm.MemoryDynamicMin
		set(vm)
		vm.MemoryOverhead = overhead(vm.MemoryStaticMax, vm.VCPUsMax)
		if vm.PowerState == api.VMPowerStateHalted { // of others the target is the accountant's
			vm.MemoryTarget = vm.MemoryDynamicMin
		}
		if err := CheckSizes(vm); err != nil {
			return err
		}
		return m.rangeFits(tx, ref, vm, before)
	})
}
