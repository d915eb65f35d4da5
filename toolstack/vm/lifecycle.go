package vm

import (
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/operation"
)

// check says whether op may begin on a VM now, and if not why. The life-cycle
// itself is a table of package operation.
func check(ref api.VMRef, vm *api.VM, op api.VMOperations) error {
	return operation.VM.Check(nil, ref, vm, op)
}

// interrupted reports an operation in progress that may interrupt op, to which op
// therefore yields.
func interrupted(vm *api.VM, op api.VMOperations) (task string, by api.VMOperations, yes bool) {
	return operation.Interrupted(vm, op)
}

// allowed is what allowed_operations shows.
func allowed(ref api.VMRef, vm *api.VM) []api.VMOperations {
	return operation.VM.Allowed(nil, ref, vm)
}

func lower(s api.VMPowerState) string { return strings.ToLower(string(s)) }
