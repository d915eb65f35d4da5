package vm

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// setIsATemplate makes a template of a VM or a VM of a template, as it is: making a
// VM of a template with disks to be made is what provision does. A template that
// came with the product stays one.
func (m *Manager) setIsATemplate(c *api.Call, args []api.Value) (api.Result, error) {
	ref, value := api.VMRef(api.ParseRef(args[0].Text)), on(args[1].Text)
	return api.Void{}, m.edit(c, ref, func(_ *db.Tx, vm *api.VM) error {
		if vm.IsATemplate == value {
			return nil
		}
		if err := mayBecome(ref, vm, value); err != nil {
			return err
		}
		vm.IsATemplate = value
		if value {
			vm.HAAlwaysRun, vm.HARestartPriority, vm.Appliance = false, "", ""
		}
		return nil
	})
}

func mayBecome(ref api.VMRef, vm *api.VM, template bool) error {
	switch {
	case template:
		return check(ref, vm, api.VMOperationsMakeIntoTemplate)
	case vm.IsASnapshot:
		return api.ErrVMIsSnapshot(ref.String(), "set_is_a_template")
	case vm.IsDefaultTemplate:
		return api.ErrVMIsTemplate(ref.String())
	}
	for task, op := range vm.CurrentOperations {
		return api.ErrOtherOperationInProgress("VM", ref.String(), string(op), task)
	}
	return nil
}
