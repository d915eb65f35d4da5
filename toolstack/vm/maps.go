package vm

import (
	"maps"
	"slices"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

// mapField is a map of the VM's record and what is checked before it changes.
type mapField[K ~string] struct {
	settings
	name  string
	at    func(*api.VM) *map[K]string
	may   func(e *edit) error
	check func(e *edit, key K, value string) error
}

// registerMaps binds the maps whose messages are not implicit.
func (s settings) registerMaps(r *api.Registry) {
	other := mapField[string]{settings: s, name: "other_config", at: func(vm *api.VM) *map[string]string { return &vm.OtherConfig }}
	api.HandleVMSetOtherConfig(r, other.set)
	api.HandleVMAddToOtherConfig(r, other.add)
	api.HandleVMRemoveFromOtherConfig(r, other.remove)
	platform := mapField[string]{
		settings: s, name: "platform", at: func(vm *api.VM) *map[string]string { return &vm.Platform }, check: checkPlatform,
	}
	api.HandleVMSetPlatform(r, platform.set)
	api.HandleVMAddToPlatform(r, platform.add)
	api.HandleVMRemoveFromPlatform(r, platform.remove)
	blocked := mapField[api.VMOperations]{
		settings: s, name: "blocked_operations", at: func(vm *api.VM) *map[api.VMOperations]string { return &vm.BlockedOperations },
	}
	api.HandleVMSetBlockedOperations(r, blocked.set)
	api.HandleVMAddToBlockedOperations(r, blocked.add)
	api.HandleVMRemoveFromBlockedOperations(r, blocked.remove)
	nvram := mapField[string]{
		settings: s, name: "NVRAM", at: func(vm *api.VM) *map[string]string { return &vm.NVRAM },
		may:   func(e *edit) error { return check(e.ref, e.vm, api.VMOperationsChangingNVRAM) },
		check: func(_ *edit, key, value string) error { return checkNVRAM(key, value) },
	}
	api.HandleVMSetNVRAM(r, nvram.set)
	api.HandleVMAddToNVRAM(r, nvram.add)
	api.HandleVMRemoveFromNVRAM(r, nvram.remove)
}

func (f mapField[K]) change(c *api.Call, ref api.VMRef, change func(e *edit, m map[K]string) (map[K]string, error)) error {
	return f.settings.change(c, ref, func(e *edit) error {
		if f.may != nil {
			if err := f.may(e); err != nil {
				return err
			}
		}
		field := f.at(e.vm)
		now, err := change(e, *field)
		if err == nil {
			*field = now
		}
		return err
	})
}

func (f mapField[K]) checked(e *edit, key K, value string) error {
	if f.check == nil {
		return nil
	}
	return f.check(e, key, value)
}

func (f mapField[K]) set(c *api.Call, ref api.VMRef, value map[K]string) error {
	return f.change(c, ref, func(e *edit, _ map[K]string) (map[K]string, error) {
		for k, v := range value {
			if err := f.checked(e, k, v); err != nil {
				return nil, err
			}
		}
		return maps.Clone(value), nil
	})
}

func (f mapField[K]) add(c *api.Call, ref api.VMRef, key K, value string) error {
	return f.change(c, ref, func(e *edit, m map[K]string) (map[K]string, error) {
		if _, there := m[key]; there {
			return nil, api.ErrMapDuplicateKey("VM", f.name, ref.String(), string(key))
		}
		if err := f.checked(e, key, value); err != nil {
			return nil, err
		}
		m = maps.Clone(m)
		if m == nil {
			m = map[K]string{}
		}
		m[key] = value
		return m, nil
	})
}

// remove of a key that is not there changes nothing, and is no error.
func (f mapField[K]) remove(c *api.Call, ref api.VMRef, key K) error {
	return f.change(c, ref, func(_ *edit, m map[K]string) (map[K]string, error) {
		m = maps.Clone(m)
		delete(m, key)
		return m, nil
	})
}

// coresKey of VM.platform says how many cores a socket of the guest has; the others
// choose devices that guests without virtio drivers know, see package device.
const (
	coresKey    = "cores-per-socket"
	nicModelKey = "nic-model"
	diskBusKey  = "disk-bus"
)

// checkPlatform checks the keys whose values are numbers or switches, so that a
// mistake is not found only at the next start.
func checkPlatform(_ *edit, key, value string) error {
	ok := true
	switch key {
	case coresKey:
		n, err := strconv.Atoi(value)
		ok = err == nil && n >= 1 && n <= maxVCPUs
	case machineKey:
		ok = slices.Contains(hypervisor.Machines, value)
	case nicModelKey:
		ok = value == hypervisor.Virtio || value == hypervisor.E1000E
	case diskBusKey:
		ok = value == string(hypervisor.SCSI) || value == string(hypervisor.SATA)
	case "nested-virt", "secureboot", "vtpm", "nx", "acpi", "apic", "pae", "viridian", "hpet":
		switch value {
		case "true", "false", "1", "0", "auto":
		default:
			ok = false
		}
	}
	if !ok {
		return api.ErrInvalidValue("platform:"+key, value)
	}
	return nil
}
