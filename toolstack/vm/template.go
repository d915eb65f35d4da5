package vm

import (
	"context"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// defaultTemplateKey of VM.other_config marks a template that came with the
// product; clients look for it.
const defaultTemplateKey = "default_template"

// DemoTemplate is the name of the template of the demo guest.
const DemoTemplate = "Cairn demo guest"

const demoMemory = 256 << 20

// ensureTemplates makes the default templates that are missing, and leaves those
// that are there as they are.
func (m *Manager) ensureTemplates(ctx context.Context) error {
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		for _, vm := range db.All[api.VM](tx) {
			if vm.IsDefaultTemplate && vm.NameLabel == DemoTemplate {
				return nil
			}
		}
		vm := m.demoTemplate()
		insert(tx, vm)
		return nil
	})
}

func (m *Manager) demoTemplate() *api.VM {
	vm := api.NewVM()
	vm.UUID = api.NewUUID()
	vm.NameLabel = DemoTemplate
	vm.NameDescription = "A small Linux guest that greets on its serial console, for trying a host out"
	vm.IsATemplate, vm.IsDefaultTemplate = true, true
	vm.MemoryStaticMin, vm.MemoryDynamicMin = demoMemory, demoMemory
	vm.MemoryDynamicMax, vm.MemoryStaticMax = demoMemory, demoMemory
	vm.VCPUsMax, vm.VCPUsAtStartup = 1, 1
	vm.ActionsAfterReboot = api.OnNormalExitRestart
	vm.ActionsAfterCrash = api.OnCrashBehaviourRestart
	vm.PVKernel = m.cfg.GuestDir + "/vmlinuz"
	vm.PVRamdisk = m.cfg.GuestDir + "/initrd.img"
	vm.PVArgs = "console=ttyS0 quiet"
	vm.OtherConfig = map[string]string{defaultTemplateKey: "true", "linux_template": "true"}
	vm.Platform = map[string]string{machineKey: hypervisor.DefaultMachine, "acpi": "1", "apic": "true"}
	m.reset(vm)
	return vm
}
