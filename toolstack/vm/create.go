package vm

import (
	"maps"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm/template"
)

// create makes a VM from a client's record. Fields that say what runs, or what
// belongs to the VM, are the toolstack's and ignored.
func (m *Manager) create(c *api.Call, args *api.VM) (api.VMRef, error) {
	vm := args.Clone()
	vm.UUID = api.NewUUID()
	vm.IsDefaultTemplate, vm.IsControlDomain, vm.IsASnapshot = false, false, false
	if err := checkSizes(vm); err != nil {
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
	vm.Metrics = db.Insert(tx, newMetrics())
	ref := api.NewRef[api.VM]()
	vm.AllowedOperations = allowed(ref, vm)
	db.InsertAs(tx, ref, vm)
	return ref
}

func newMetrics() *api.VMMetrics {
	metrics := api.NewVMMetrics()
	metrics.UUID = api.NewUUID()
	metrics.LastUpdated = time.Now().UTC()
	return metrics
}

func (m *Manager) clone(c *api.Call, ref api.VMRef, name string) (api.VMRef, error) {
	return m.duplicate(c, ref, name, api.VMOperationsClone)
}

// copy differs from clone in where the disks go, and there are none yet.
func (m *Manager) copy(c *api.Call, ref api.VMRef, name string, _ api.SRRef) (api.VMRef, error) {
	return m.duplicate(c, ref, name, api.VMOperationsCopy)
}

// duplicate is one transaction, so it needs no entry in current_operations.
func (m *Manager) duplicate(c *api.Call, ref api.VMRef, name string, op api.VMOperations) (api.VMRef, error) {
	var made api.VMRef
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		original, err := db.Get(tx, ref)
		if err != nil {
			return err
		}
		if err := check(ref, original, op); err != nil {
			return err
		}
		vm := original.Clone()
		vm.UUID, vm.NameLabel = api.NewUUID(), name
		vm.Parent, vm.IsDefaultTemplate = "", false
		vm.BlockedOperations, vm.Tags = nil, nil
		delete(vm.OtherConfig, template.DefaultKey)
		delete(vm.OtherConfig, template.StampKey)
		m.reset(vm)
		made = insert(tx, vm)
		return nil
	})
	return made, err
}

// disksKey of VM.other_config lists the disks provision would make.
const disksKey = "disks"

// provision turns a copy of a template into a VM.
func (m *Manager) provision(c *api.Call, ref api.VMRef) error {
	return m.edit(c, ref, func(_ *db.Tx, vm *api.VM) error {
		if err := check(ref, vm, api.VMOperationsProvision); err != nil {
			return err
		}
		if d := vm.OtherConfig[disksKey]; strings.Contains(d, "<disk ") {
			return api.ErrNotImplemented("VM.provision of disks")
		}
		delete(vm.OtherConfig, disksKey)
		vm.IsATemplate = false
		return nil
	})
}

// destroy removes a VM and what belongs to it alone, in one transaction.
func (m *Manager) destroy(c *api.Call, ref api.VMRef) error {
	var uuid string
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		vm, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		uuid = vm.UUID
		if err := check(ref, vm, api.VMOperationsDestroy); err != nil {
			return err
		}
		if err := m.recordHalted(tx, ref, vm); err != nil { // its consoles
			return err
		}
		if err := deleteIfThere(tx, vm.Metrics); err != nil {
			return err
		}
		if err := deleteIfThere(tx, vm.GuestMetrics); err != nil {
			return err
		}
		return db.Delete(tx, ref)
	})
	if err == nil {
		m.forget(ref, uuid)
	}
	return err
}

func deleteIfThere[T any, P api.RecordPtr[T]](tx *db.Tx, ref api.Ref[T]) error {
	if _, err := db.Get[T, P](tx, ref); err != nil {
		return nil
	}
	return db.Delete[T, P](tx, ref)
}

// forget drops what is remembered of a VM that exists no more. A domain of it may
// still appear: see doomed.
func (m *Manager) forget(ref api.VMRef, uuid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.epochs, ref)
	delete(m.stops, uuid)
}
