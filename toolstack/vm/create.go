package vm

import (
	"maps"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/hypervisor"
)

// create makes a VM from a client's record. Fields that say what runs, or what
// belongs to the VM, are the toolstack's and ignored.
func (m *Manager) create(c *api.Call, args *api.VM) (api.VMRef, error) {
	vm := args.Clone()
	vm.UUID = api.NewUUID()
	vm.IsDefaultTemplate, vm.IsControlDomain = false, false
	ownPerson(vm)
	if vm.OtherConfig[device.MACSeed] == "" {
		device.Seed(vm)
	}
	if err := CheckSizes(vm); err != nil {
		return "", err
	}
	m.reset(vm)
	var ref api.VMRef
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		ref = insert(tx, vm)
		return nil
	})
	return ref, err
}

// reset makes a record one of a VM that has never run.
func (m *Manager) reset(vm *api.VM) {
	vm.PowerState = api.VMPowerStateHalted
	vm.CurrentOperations = nil
	vm.ResidentOn, vm.ScheduledToBeResidentOn = "", ""
	vm.SuspendVDI, vm.LastBootedRecord, vm.LastBootCPUFlags = "", "", nil
	vm.GuestMetrics, vm.Domid = "", -1
	vm.DomainType = domainType(vm)
	vm.MemoryOverhead = overhead(vm.MemoryStaticMax, vm.VCPUsMax)
	vm.MemoryTarget = vm.MemoryDynamicMin
	vm.Platform = maps.Clone(vm.Platform)
	if vm.Platform == nil {
		vm.Platform = map[string]string{}
	}
	if vm.Platform[machineKey] == "" {
		vm.Platform[machineKey] = hypervisor.DefaultMachine
	}
}

// domainType: a guest whose kernel is loaded directly is what this API calls PVH,
// hardware-virtualized without firmware; there is no paravirtualization on KVM.
func domainType(vm *api.VM) api.DomainType {
	if vm.HVMBootPolicy != "" {
		return api.DomainTypeHvm
	}
	return api.DomainTypePvh
}

// insert writes a record and the metrics that belong to it.
func insert(tx *db.Tx, vm *api.VM) api.VMRef {
	ref := api.NewRef[api.VM]()
	insertAs(tx, ref, vm)
	return ref
}

func insertAs(tx *db.Tx, ref api.VMRef, vm *api.VM) {
	vm.Metrics = db.Insert(tx, newMetrics())
	vm.AllowedOperations = allowed(ref, vm)
	db.InsertAs(tx, ref, vm)
}

func newMetrics() *api.VMMetrics {
	metrics := api.NewVMMetrics()
	metrics.UUID = api.NewUUID()
	metrics.LastUpdated = time.Now().UTC()
	return metrics
}
