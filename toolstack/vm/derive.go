package vm

import "cairn/toolstack/api"

// Derive fills in what follows from the rest of a VM's record, for rows that are
// written without a client's create, as those of a simulated pool are.
func Derive(ref api.VMRef, vm *api.VM) {
	vm.DomainType = domainType(vm)
	vm.MemoryOverhead = overhead(vm.MemoryStaticMax, vm.VCPUsMax)
	vm.AllowedOperations = allowed(ref, vm)
}
