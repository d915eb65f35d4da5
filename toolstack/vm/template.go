package vm

import (
	"context"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm/template"
)

// DemoTemplate is the name of the template of the demo guest.
const DemoTemplate = "Cairn demo guest"

// demoKey is its reference_label.
const demoKey = "cairn-demo-guest"

const demoMemory = 256 << 20

// ensureTemplates makes the default templates that are missing, and renews those
// of an earlier version that nobody has changed.
func (m *Manager) ensureTemplates(ctx context.Context) error {
	wanted := []*api.VM{m.demoTemplate()}
	for _, t := range template.All() {
		wanted = append(wanted, t.VM())
	}
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		there := map[string]api.VMRef{}
		for ref, vm := range db.All[api.VM](tx) {
			if vm.IsDefaultTemplate && !vm.IsASnapshot {
				there[templateKey(vm)] = ref
			}
		}
		for _, vm := range wanted {
			ref, found := there[vm.ReferenceLabel]
			if !found {
				vm.UUID = api.NewUUID()
				m.reset(vm)
				insert(tx, vm)
				continue
			}
			if err := m.renewTemplate(tx, ref, vm); err != nil {
				return err
			}
		}
		return nil
	})
}

// templateKey knows the one template that was there before templates had keys.
func templateKey(vm *api.VM) string {
	if vm.ReferenceLabel == "" && vm.NameLabel == DemoTemplate {
		return demoKey
	}
	return vm.ReferenceLabel
}

func (m *Manager) renewTemplate(tx *db.Tx, ref api.VMRef, from *api.VM) error {
	vm, err := db.Get(tx, ref)
	if err != nil || !template.Outdated(vm) {
		return err
	}
	if vm, err = db.Edit(tx, ref); err != nil {
		return err
	}
	template.Renew(vm, from)
	Derive(ref, vm)
	return nil
}

func (m *Manager) demoTemplate() *api.VM {
	vm := api.NewVM()
	vm.NameLabel, vm.ReferenceLabel = DemoTemplate, demoKey
	vm.NameDescription = "A small Linux guest that greets on its serial console, for trying a host out"
	vm.MemoryStaticMin, vm.MemoryDynamicMin = demoMemory, demoMemory
	vm.MemoryDynamicMax, vm.MemoryStaticMax = demoMemory, demoMemory
	vm.VCPUsMax, vm.VCPUsAtStartup = 1, 1
	vm.ActionsAfterReboot = api.OnNormalExitRestart
	vm.ActionsAfterCrash = api.OnCrashBehaviourRestart
	vm.PVKernel = m.cfg.GuestDir + "/vmlinuz"
	vm.PVRamdisk = m.cfg.GuestDir + "/initrd.img"
	vm.PVArgs = "console=ttyS0 quiet no_timer_check" // an emulated timer is late on a busy host, and the test of it ends in a panic
	vm.OtherConfig = map[string]string{"linux_template": "true"}
	vm.Platform = map[string]string{machineKey: hypervisor.DefaultMachine, "acpi": "1", "apic": "true"}
	return template.Stamp(vm)
}
