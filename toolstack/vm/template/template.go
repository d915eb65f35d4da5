// Package template holds the default templates: which machine a guest system
// wants, as data.
//
// A template is known by its key, which is the reference_label of its row and of
// every VM made from it, and stays when the template is renamed. The row keeps the
// version of the data it was made from and a digest of what was written, so that a
// later version of the product adds what is new, improves what nobody has touched,
// and leaves alone what somebody has changed.
//
// All functions are pure.
package template

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

// Keys of other_config.
const (
	// DefaultKey marks a template that came with the product; clients look for it.
	DefaultKey = "default_template"
	// DisksKey lists the disks that VM.provision makes.
	DisksKey = "disks"
	// StampKey holds version and digest of the data a row was made from.
	StampKey = "template_data"

	baseKey    = "base_template_name"
	linuxKey   = "linux_template"
	installKey = "install-methods"
)

// BIOSOrder is the HVM_boot_policy of guests that firmware boots.
const BIOSOrder = "BIOS order"

// version of the data; raise it when an entry changes.
const version = 1

// Firmware of a guest.
type Firmware string

// Kinds of firmware.
const (
	BIOS Firmware = "bios"
	UEFI Firmware = "uefi"
)

const (
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

// Template is one entry.
type Template struct {
	Key, Name, Description string

	Firmware   Firmware
	SecureBoot string // value of platform:secureboot; "" is off
	TPM        bool
	Windows    bool
	Legacy     bool // disks and NICs every system has drivers for

	Memory, MinMemory int64
	VCPUs             int64
	Disk              int64

	MaxMemory, MaxVCPUs int64 // as recommended
}

// VM is the row of a template, without what every new row gets.
func (t Template) VM() *api.VM {
	vm := api.NewVM()
	vm.NameLabel, vm.NameDescription, vm.ReferenceLabel = t.Name, t.Description, t.Key
	vm.MemoryStaticMin = t.MinMemory
	vm.MemoryDynamicMin, vm.MemoryDynamicMax, vm.MemoryStaticMax = t.Memory, t.Memory, t.Memory
	vm.VCPUsMax, vm.VCPUsAtStartup = t.VCPUs, t.VCPUs
	vm.ActionsAfterShutdown = api.OnNormalExitDestroy
	vm.ActionsAfterReboot = api.OnNormalExitRestart
	vm.ActionsAfterCrash = api.OnCrashBehaviourRestart
	vm.HVMBootPolicy = BIOSOrder
	vm.HVMBootParams = map[string]string{"order": "cdn", "firmware": string(t.Firmware)}
	vm.Platform = t.platform()
	vm.OtherConfig = t.otherConfig()
	vm.Recommendations = t.recommendations()
	vm.HasVendorDevice = false
	return Stamp(vm)
}

// Stamp completes the row of a default template.
func Stamp(vm *api.VM) *api.VM {
	vm.IsATemplate, vm.IsDefaultTemplate = true, true
	vm.OtherConfig[DefaultKey] = "true"
	vm.OtherConfig[StampKey] = strconv.Itoa(version) + ":" + digest(vm)
	return vm
}

// Outdated reports whether a row is of an earlier version of the data and as it was
// written then.
func Outdated(vm *api.VM) bool {
	made, sum, ok := strings.Cut(vm.OtherConfig[StampKey], ":")
	n, err := strconv.Atoi(made)
	return ok && err == nil && n < version && sum == digest(vm)
}

// Renew writes a template's data into its row.
func Renew(vm, from *api.VM) {
	put(vm, from)
	vm.OtherConfig = from.OtherConfig
}

// put copies what templates say of a VM.
func put(vm, from *api.VM) {
	vm.NameLabel, vm.NameDescription, vm.ReferenceLabel = from.NameLabel, from.NameDescription, from.ReferenceLabel
	vm.MemoryStaticMin, vm.MemoryDynamicMin = from.MemoryStaticMin, from.MemoryDynamicMin
	vm.MemoryDynamicMax, vm.MemoryStaticMax = from.MemoryDynamicMax, from.MemoryStaticMax
	vm.VCPUsMax, vm.VCPUsAtStartup = from.VCPUsMax, from.VCPUsAtStartup
	vm.ActionsAfterShutdown, vm.ActionsAfterReboot = from.ActionsAfterShutdown, from.ActionsAfterReboot
	vm.ActionsAfterCrash, vm.HVMBootPolicy = from.ActionsAfterCrash, from.HVMBootPolicy
	vm.HVMBootParams, vm.Platform = from.HVMBootParams, from.Platform
	vm.PVKernel, vm.PVRamdisk, vm.PVArgs = from.PVKernel, from.PVRamdisk, from.PVArgs
	vm.Recommendations, vm.HasVendorDevice = from.Recommendations, from.HasVendorDevice
}

func digest(vm *api.VM) string {
	essence := api.NewVM()
	put(essence, vm)
	essence.OtherConfig = map[string]string{}
	for k, v := range vm.OtherConfig {
		if k != StampKey {
			essence.OtherConfig[k] = v
		}
	}
	sum := sha256.Sum256(api.AppendRecord(nil, api.JSON, essence))
	return hex.EncodeToString(sum[:8])
}

func (t Template) platform() map[string]string {
	p := map[string]string{
		"machine-type": hypervisor.DefaultMachine, "device-model": "qemu-upstream-compat",
		"acpi": "1", "apic": "true", "pae": "true", "nx": "true", "hpet": "true", "viridian": "false",
		"vga": "std", "videoram": "8",
	}
	if t.Firmware == UEFI {
		p["device-model"] = "qemu-upstream-uefi"
		p["secureboot"] = "false"
	}
	if t.SecureBoot != "" {
		p["secureboot"] = t.SecureBoot
	}
	if t.TPM {
		p["vtpm"] = "true"
	}
	if t.Windows {
		p["viridian"] = "true"
		for _, feature := range []string{"time_ref_count", "reference_tsc", "apic_assist", "crash_ctl", "stimer"} {
			p["viridian_"+feature] = "true"
		}
		p["cores-per-socket"] = strconv.FormatInt(t.VCPUs, 10) // client editions use two sockets at most
	}
	if t.Windows || t.Legacy { // systems that have no drivers for virtio of their own
		p["disk-bus"], p["nic-model"] = "sata", hypervisor.E1000E
	}
	return p
}

func (t Template) otherConfig() map[string]string {
	c := map[string]string{baseKey: t.Name, installKey: "cdrom,network"}
	if !t.Windows && !t.Legacy {
		c[linuxKey] = "true"
	}
	if t.Disk > 0 {
		c[DisksKey] = Disks{{Device: "0", Size: t.Disk, Bootable: true, Type: api.VDITypeSystem}}.String()
	}
	return c
}
