package vm

import (
	"encoding/base64"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// registerSettings binds the messages that check a value and keep it in the VM's
// record. What a setting means to a domain is read from there when one is made.
func (m *Manager) registerSettings(r *api.Registry) {
	s := settings{m.cfg.DB}
	api.HandleVMSetOrder(r, set(s, notNegative("order", func(vm *api.VM) *int64 { return &vm.Order })))
	api.HandleVMSetStartDelay(r, set(s, notNegative("start_delay", func(vm *api.VM) *int64 { return &vm.StartDelay })))
	api.HandleVMSetShutdownDelay(r, set(s, notNegative("shutdown_delay", func(vm *api.VM) *int64 { return &vm.ShutdownDelay })))
	api.HandleVMSetHARestartPriority(r, set(s, setRestartPriority))
	api.HandleVMSetHAAlwaysRun(r, set(s, func(e *edit, value bool) error { e.vm.HAAlwaysRun = value; return nil }))
	api.HandleVMSetActionsAfterCrash(r, set(s, func(e *edit, value api.OnCrashBehaviour) error {
		e.vm.ActionsAfterCrash = value
		return nil
	}))
	api.HandleVMSetHasVendorDevice(r, set(s, func(e *edit, value bool) error {
		if err := e.halted(); err != nil {
			return err
		}
		e.vm.HasVendorDevice = value
		return nil
	}))
	api.HandleVMSetIsDefaultTemplate(r, set(s, setIsDefaultTemplate))
	api.HandleVMSetHVMBootPolicy(r, set(s, setBootPolicy))
	api.HandleVMSetDomainType(r, set(s, setDomainType))
	api.HandleVMSetHVMShadowMultiplier(r, set(s, setShadowMultiplier(api.VMOperationsChangingShadowMemory)))
	api.HandleVMSetShadowMultiplierLive(r, set(s, setShadowMultiplier(api.VMOperationsChangingShadowMemoryLive)))
	api.HandleVMSetAppliance(r, set(s, setAppliance))
	api.HandleVMSetGroups(r, set(s, setGroups))
	api.HandleVMSetSnapshotSchedule(r, set(s, setSnapshotSchedule))
	api.HandleVMSetBIOSStrings(r, set(s, setBIOSStrings))
	api.HandleVMCopyBIOSStrings(r, set(s, copyBIOSStrings))
	s.registerMaps(r)
	s.registerReads(r)
	schedules{m.cfg.DB}.register(r)
}

// settings edits records outside of any operation.
type settings struct{ db *db.DB }

// edit is a VM's record while one of its settings changes.
type edit struct {
	tx  *db.Tx
	ref api.VMRef
	vm  *api.VM
}

// set makes a handler of what changes a record.
func set[V any](s settings, change func(e *edit, value V) error) func(*api.Call, api.VMRef, V) error {
	return func(c *api.Call, ref api.VMRef, value V) error {
		return s.change(c, ref, func(e *edit) error { return change(e, value) })
	}
}

func (s settings) change(c *api.Call, ref api.VMRef, change func(*edit) error) error {
	return db.Modify(c, s.db, ref, func(tx *db.Tx, vm *api.VM) error {
		if err := change(&edit{tx, ref, vm}); err != nil {
			return err
		}
		vm.AllowedOperations = allowed(ref, vm)
		return nil
	})
}

// halted refuses a change that a domain would have to be made anew for.
func (e *edit) halted() error {
	if e.vm.PowerState != api.VMPowerStateHalted {
		return api.ErrVMBadPowerState(e.ref.String(), lower(api.VMPowerStateHalted), lower(e.vm.PowerState))
	}
	return nil
}

// ordinary refuses what is no virtual machine in the narrow sense.
func (e *edit) ordinary() error {
	switch {
	case e.vm.IsControlDomain:
		return api.ErrOperationNotAllowed("operation is not permitted on the control domain")
	case e.vm.IsASnapshot:
		return api.ErrVMIsSnapshot(e.ref.String())
	case e.vm.IsATemplate:
		return api.ErrVMIsTemplate(e.ref.String())
	}
	return nil
}

func notNegative(field string, at func(*api.VM) *int64) func(*edit, int64) error {
	return func(e *edit, value int64) error {
		if value < 0 {
			return api.ErrInvalidValue(field, strconv.FormatInt(value, 10))
		}
		*at(e.vm) = value
		return nil
	}
}

// setRestartPriority: a VM that comes under protection while it is up is one that
// shall always run.
func setRestartPriority(e *edit, value string) error {
	switch value {
	case "", "best-effort", "restart":
	default:
		return api.ErrInvalidValue("ha_restart_priority", value)
	}
	if value != "" {
		if err := e.ordinary(); err != nil {
			return err
		}
	}
	was := e.vm.HARestartPriority
	e.vm.HARestartPriority = value
	switch {
	case value != "restart":
		e.vm.HAAlwaysRun = false
	case was != "restart":
		e.vm.HAAlwaysRun = e.vm.PowerState == api.VMPowerStateRunning || e.vm.PowerState == api.VMPowerStatePaused
	}
	return nil
}

func setIsDefaultTemplate(e *edit, value bool) error {
	if value && !e.vm.IsATemplate {
		return api.ErrInvalidValue("is_default_template", "true")
	}
	e.vm.IsDefaultTemplate = value
	return nil
}

// biosOrder is the one policy there is: the firmware tries the devices that
// HVM_boot_params names.
const biosOrder = "BIOS order"

func setBootPolicy(e *edit, value string) error {
	if err := e.halted(); err != nil {
		return err
	}
	if value != "" && value != biosOrder {
		return api.ErrInvalidValue("HVM_boot_policy", value)
	}
	e.vm.HVMBootPolicy = value
	e.vm.DomainType = domainType(e.vm)
	return nil
}

// setDomainType keeps the policy in step, for clients that know that only.
func setDomainType(e *edit, value api.DomainType) error {
	if err := e.halted(); err != nil {
		return err
	}
	switch value {
	case api.DomainTypeHvm:
		e.vm.HVMBootPolicy = biosOrder
	case api.DomainTypePvh:
		e.vm.HVMBootPolicy = ""
	default:
		return api.ErrValueNotSupported("domain_type", string(value), "guests are hardware-virtualized: hvm or pvh")
	}
	e.vm.DomainType = value
	return nil
}

// setShadowMultiplier keeps a number that clients of older versions set: KVM
// needs no shadow memory, so it changes no size.
func setShadowMultiplier(op api.VMOperations) func(*edit, float64) error {
	return func(e *edit, value float64) error {
		if err := check(e.ref, e.vm, op); err != nil {
			return err
		}
		if !(value >= 1 && value <= 1000) { // not a number is neither
			return api.ErrInvalidValue("HVM_shadow_multiplier", strconv.FormatFloat(value, 'g', -1, 64))
		}
		e.vm.HVMShadowMultiplier = value
		return nil
	}
}

func setAppliance(e *edit, value api.VMApplianceRef) error {
	if !value.IsNull() {
		if _, err := db.Get(e.tx, value); err != nil {
			return err
		}
		if err := e.ordinary(); err != nil {
			return err
		}
	}
	e.vm.Appliance = value
	return nil
}

// setGroups: a VM has one placement rule at most.
func setGroups(e *edit, value []api.VMGroupRef) error {
	if len(value) > 1 {
		return api.ErrTooManyGroups()
	}
	for _, group := range value {
		if _, err := db.Get(e.tx, group); err != nil {
			return err
		}
		if e.ordinary() != nil {
			return api.ErrOperationNotAllowed("control domains, templates and snapshots have no group")
		}
	}
	e.vm.Groups = value
	return nil
}

func setSnapshotSchedule(e *edit, value api.VMSSRef) error {
	if !value.IsNull() {
		if _, err := db.Get(e.tx, value); err != nil {
			return err
		}
		if err := e.ordinary(); err != nil {
			return err
		}
	}
	e.vm.SnapshotSchedule = value
	return nil
}

// efiVariables is the key of VM.NVRAM that holds the firmware's variables.
const efiVariables = "EFI-variables"

func checkNVRAM(key, value string) error {
	if key == efiVariables {
		if _, err := base64.StdEncoding.DecodeString(value); err != nil {
			return api.ErrInvalidValue("NVRAM:"+key, "not base64")
		}
	}
	return nil
}
