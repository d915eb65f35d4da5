package operation

import (
	"maps"
	"slices"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

var vmClass = api.ClassOf[api.VM]()

// leaving are the operations of a machine during which its devices stay as they
// are.
var leaving = []api.VMOperations{
	api.VMOperationsCleanShutdown, api.VMOperationsHardShutdown, api.VMOperationsShutdown,
	api.VMOperationsCleanReboot, api.VMOperationsHardReboot, api.VMOperationsSuspend, api.VMOperationsPause,
}

// owner answers the machine of a device; one that is not there is HANDLE_INVALID.
func owner[T any](vm func(*T) api.VMRef, f func(*subject[T], api.VMRef, *api.VM) error) condition[T] {
	return func(s *subject[T]) error {
		ref := vm(s.rec)
		r, err := db.Get(s.r, ref)
		if err != nil {
			return err
		}
		return f(s, ref, r)
	}
}

// ownerStays forbids an operation while the machine is going down.
func ownerStays[T any](_ *subject[T], ref api.VMRef, vm *api.VM) error {
	for _, task := range slices.Sorted(maps.Keys(vm.CurrentOperations)) {
		if op := vm.CurrentOperations[task]; slices.Contains(leaving, op) {
			return inProgress(vmClass, string(ref), task, string(op))
		}
	}
	return nil
}

// ownerIn asks for a power state of the machine.
func ownerIn[T any](vm func(*T) api.VMRef, states []api.VMPowerState) condition[T] {
	return owner(vm, func(_ *subject[T], ref api.VMRef, r *api.VM) error { return inState(ref, r, states) })
}

// attached asks that a device is attached, detached that it is not.
func attached[T any](is func(*T) bool) condition[T] {
	return func(s *subject[T]) error {
		if !is(s.rec) {
			return api.ErrDeviceAlreadyDetached(s.ref.String())
		}
		return nil
	}
}

func detached[T any](is func(*T) bool) condition[T] {
	return func(s *subject[T]) error {
		if is(s.rec) {
			return api.ErrDeviceAlreadyAttached(s.ref.String())
		}
		return nil
	}
}

func all[T any](conditions ...condition[T]) []condition[T] { return conditions }

// Devices: disks, drives and NICs are built, passing hardware through is not.

func vbdVM(v *api.VBD) api.VMRef  { return v.VM }
func vbdAttached(v *api.VBD) bool { return v.CurrentlyAttached }

var vbdPausing = []api.VBDOperations{api.VBDOperationsPause, api.VBDOperationsUnpause}

// VBD is the table of block devices: one operation at a time.
var VBD = &Table[api.VBD, *api.VBD, api.VBDOperations]{
	fields: func(v *api.VBD) (*[]api.VBDOperations, *map[string]api.VBDOperations) {
		return &v.AllowedOperations, &v.CurrentOperations
	},
	built: []api.VBDOperations{
		api.VBDOperationsAttach, api.VBDOperationsPlug, api.VBDOperationsUnplug, api.VBDOperationsUnplugForce,
		api.VBDOperationsInsert, api.VBDOperationsEject,
	},
	then: all(owner(vbdVM, ownerStays[api.VBD])),
	rules: []rule[api.VBD, api.VBDOperations]{
		{op: api.VBDOperationsAttach, then: all(detached(vbdAttached), diskFree)},
		{op: api.VBDOperationsEject, then: all(removable, notEmpty, ownerIn(vbdVM, slices.Concat(halted, running)))},
		{op: api.VBDOperationsInsert, then: all(removable, empty, ownerIn(vbdVM, slices.Concat(halted, running)))},
		{op: api.VBDOperationsPlug, then: all(ownerIn(vbdVM, running), detached(vbdAttached), hotPluggable, diskFree)},
		{op: api.VBDOperationsUnplug, then: all(ownerIn(vbdVM, running), attached(vbdAttached), hotPluggable, unpluggable, diskQuiet)},
		{op: api.VBDOperationsUnplugForce, then: all(ownerIn(vbdVM, running), attached(vbdAttached), hotPluggable, diskQuiet)},
		{op: api.VBDOperationsPause, then: all(attached(vbdAttached)), beside: vbdPausing},
		{op: api.VBDOperationsUnpause, then: all(attached(vbdAttached)), beside: vbdPausing},
	},
}

func removable(s *subject[api.VBD]) error {
	if s.rec.Type != api.VBDTypeCD {
		return api.ErrVBDNotRemovableMedia(s.ref.String())
	}
	return nil
}

func empty(s *subject[api.VBD]) error {
	if !s.rec.Empty {
		return api.ErrVBDNotEmpty(s.ref.String())
	}
	return nil
}

func notEmpty(s *subject[api.VBD]) error {
	if s.rec.Empty {
		return api.ErrVBDIsEmpty(s.ref.String())
	}
	return nil
}

// hotPluggable forbids to plug drives: their disks are changed in them.
func hotPluggable(s *subject[api.VBD]) error {
	if s.rec.Type == api.VBDTypeCD {
		return api.ErrOperationNotAllowed("a CD drive cannot be plugged or unplugged while the VM runs")
	}
	return nil
}

func unpluggable(s *subject[api.VBD]) error {
	if !s.rec.Unpluggable {
		return api.ErrVBDNotUnpluggable(s.ref.String())
	}
	return nil
}

// diskFree asks that the disk may be attached once more: nothing is being done
// to it but copies, it has no second writer unless it is sharable, and it is nobody's
// memory.
func diskFree(s *subject[api.VBD]) error {
	if s.rec.Empty || s.rec.VDI.IsNull() {
		return nil
	}
	vdi, err := db.Get(s.r, s.rec.VDI)
	if err != nil {
		return err
	}
	if err := quiet(s.rec.VDI, vdi); err != nil {
		return err
	}
	if s.rec.Mode == api.VBDModeRW && HoldsMemory(s.r, s.rec.VDI, vdi) {
		return api.ErrVDIInUse(s.rec.VDI.String(), s.op)
	}
	for _, other := range vdi.VBDs {
		v, err := db.Get(s.r, other)
		shared := err != nil || other == s.ref || !v.CurrentlyAttached && !acquiring(v) || vdi.Sharable
		if !shared && (v.Mode == api.VBDModeRW || s.rec.Mode == api.VBDModeRW) {
			return api.ErrVDIInUse(s.rec.VDI.String(), s.op)
		}
	}
	return nil
}

// diskQuiet keeps a disk in its domain while something is done to it that the domain
// takes part in.
func diskQuiet(s *subject[api.VBD]) error {
	vdi, err := db.Get(s.r, s.rec.VDI)
	if err != nil {
		return nil // gone, and to be let go of
	}
	return quiet(s.rec.VDI, vdi)
}

// quiet: nothing is being done to a disk but copies.
func quiet(ref api.VDIRef, vdi *api.VDI) error {
	for _, task := range slices.Sorted(maps.Keys(vdi.CurrentOperations)) {
		if op := vdi.CurrentOperations[task]; op != api.VDIOperationsCopy && op != api.VDIOperationsMirror {
			return inProgress(VDI.class(), string(ref), task, string(op))
		}
	}
	return nil
}

// acquiring: the disk is being attached at this moment.
func acquiring(v *api.VBD) bool {
	for _, op := range v.CurrentOperations {
		switch op {
		case api.VBDOperationsAttach, api.VBDOperationsPlug, api.VBDOperationsInsert:
			return true
		}
	}
	return false
}

func vifVM(v *api.VIF) api.VMRef  { return v.VM }
func vifAttached(v *api.VIF) bool { return v.CurrentlyAttached }

// VIF is the table of network devices: one operation at a time.
var VIF = &Table[api.VIF, *api.VIF, api.VIFOperations]{
	fields: func(v *api.VIF) (*[]api.VIFOperations, *map[string]api.VIFOperations) {
		return &v.AllowedOperations, &v.CurrentOperations
	},
	built: []api.VIFOperations{api.VIFOperationsAttach, api.VIFOperationsPlug, api.VIFOperationsUnplug},
	then:  all(owner(vifVM, ownerStays[api.VIF])),
	rules: []rule[api.VIF, api.VIFOperations]{
		{op: api.VIFOperationsAttach, then: all(detached(vifAttached))},
		{op: api.VIFOperationsPlug, then: all(ownerIn(vifVM, running), detached(vifAttached), physical)},
		{op: api.VIFOperationsUnplug, then: all(ownerIn(vifVM, running), attached(vifAttached), physical)},
	},
}

// physical forbids to plug what is backed by a function of a network card.
func physical(s *subject[api.VIF]) error {
	network, err := db.Get(s.r, s.rec.Network)
	if err != nil {
		return err
	}
	for _, ref := range network.PIFs {
		if pif, err := db.Get(s.r, ref); err == nil && len(pif.SRIOVLogicalPIFOf) > 0 {
			return api.ErrOperationNotAllowed("a VIF on an SR-IOV network cannot be plugged or unplugged while the VM runs")
		}
	}
	return nil
}

func vusbVM(v *api.VUSB) api.VMRef  { return v.VM }
func vusbAttached(v *api.VUSB) bool { return v.CurrentlyAttached }

// VUSB is the table of USB devices passed to machines.
var VUSB = &Table[api.VUSB, *api.VUSB, api.VUSBOperations]{
	fields: func(v *api.VUSB) (*[]api.VUSBOperations, *map[string]api.VUSBOperations) {
		return &v.AllowedOperations, &v.CurrentOperations
	},
	then: all(owner(vusbVM, ownerStays[api.VUSB])),
	rules: []rule[api.VUSB, api.VUSBOperations]{
		{op: api.VUSBOperationsAttach, then: all(detached(vusbAttached))},
		{op: api.VUSBOperationsPlug, then: all(ownerIn(vusbVM, running), detached(vusbAttached))},
		{op: api.VUSBOperationsUnplug, then: all(ownerIn(vusbVM, running), attached(vusbAttached))},
	},
}

func vtpmVM(v *api.VTPM) api.VMRef { return v.VM }

// VTPM is the table of virtual TPMs.
var VTPM = &Table[api.VTPM, *api.VTPM, api.VTPMOperations]{
	built: []api.VTPMOperations{api.VTPMOperationsDestroy},
	fields: func(v *api.VTPM) (*[]api.VTPMOperations, *map[string]api.VTPMOperations) {
		return &v.AllowedOperations, &v.CurrentOperations
	},
	rules: []rule[api.VTPM, api.VTPMOperations]{
		{op: api.VTPMOperationsDestroy, then: all(ownerIn(vtpmVM, halted))},
	},
}

// Network is the table of networks.
var Network = &Table[api.Network, *api.Network, api.NetworkOperations]{
	fields: func(n *api.Network) (*[]api.NetworkOperations, *map[string]api.NetworkOperations) {
		return &n.AllowedOperations, &n.CurrentOperations
	},
	rules: []rule[api.Network, api.NetworkOperations]{
		{op: api.NetworkOperationsAttaching, beside: []api.NetworkOperations{api.NetworkOperationsAttaching}},
	},
}

// truth reads a flag that clients keep as text.
func truth(text string) bool { return strings.EqualFold(text, "true") }

// DiskFree says whether the disk of a drive may be attached once more, for a
// machine that takes all its devices at once.
func DiskFree(r db.Reader, ref api.VBDRef, v *api.VBD, op api.VBDOperations) error {
	return diskFree(&subject[api.VBD]{r, ref, v, string(op)})
}
