package operation

import (
	"slices"
	"strings"

	"cairn/toolstack/api"
)

// vmRule is one line of the life-cycle of machines.
type vmRule struct {
	op api.VMOperations
	// in are the power states it may begin in.
	in []api.VMPowerState
	// template and snapshot say whether it is for those, too.
	template scope
	snapshot scope
	// beside are the operations that may be in progress meanwhile.
	beside []api.VMOperations
}

// scope is how an operation treats templates or snapshots.
type scope int

const (
	never      scope = iota // not for them
	ownOnly                 // for templates, save those that came with the product
	everywhere              // for all of them
	alone                   // for nothing else
)

// Shorthands that keep the table readable.
var (
	halted    = []api.VMPowerState{api.VMPowerStateHalted}
	paused    = []api.VMPowerState{api.VMPowerStatePaused}
	running   = []api.VMPowerState{api.VMPowerStateRunning}
	suspended = []api.VMPowerState{api.VMPowerStateSuspended}
	atRest    = slices.Concat(halted, suspended)
	awake     = slices.Concat(running, paused)
	started   = slices.Concat(running, paused, suspended)
	anyState  = slices.Concat(halted, paused, suspended, running)

	copying      = []api.VMOperations{api.VMOperationsClone, api.VMOperationsCopy, api.VMOperationsExport}
	snapshotting = []api.VMOperations{api.VMOperationsSnapshot, api.VMOperationsCheckpoint}
	migrating    = []api.VMOperations{api.VMOperationsMigrateSend}
	// What the hard ways may interrupt. That is an order without circles: an
	// operation yields to those that may interrupt it.
	byReboot = []api.VMOperations{
		api.VMOperationsCleanShutdown, api.VMOperationsCleanReboot, api.VMOperationsShutdown,
		api.VMOperationsPause, api.VMOperationsUnpause,
	}
	byShutdown = append(slices.Clone(byReboot), api.VMOperationsHardReboot)
)

// lifecycle is the whole table, from the documented behaviour of the VM class.
var lifecycle = []vmRule{
	{op: api.VMOperationsStart, in: halted},
	{op: api.VMOperationsStartOn, in: halted},
	{op: api.VMOperationsPause, in: running},
	{op: api.VMOperationsUnpause, in: paused},
	{op: api.VMOperationsCleanShutdown, in: running, beside: migrating},
	{op: api.VMOperationsCleanReboot, in: running, beside: migrating},
	{op: api.VMOperationsShutdown, in: started},
	{op: api.VMOperationsHardReboot, in: awake, beside: byReboot},
	{op: api.VMOperationsHardShutdown, in: started, snapshot: everywhere, beside: byShutdown},
	{op: api.VMOperationsPowerStateReset, in: anyState},
	{op: api.VMOperationsClone, in: halted, template: everywhere, snapshot: everywhere, beside: copying},
	{op: api.VMOperationsCopy, in: halted, template: everywhere, snapshot: everywhere, beside: copying},
	{op: api.VMOperationsProvision, in: halted, template: ownOnly},
	{op: api.VMOperationsDestroy, in: atRest, template: ownOnly, snapshot: everywhere},
	{op: api.VMOperationsChangingVCPUs, in: halted, template: everywhere},
	{op: api.VMOperationsChangingStaticRange, in: halted, template: everywhere},
	{op: api.VMOperationsChangingMemoryLimits, in: halted, template: everywhere},
	{op: api.VMOperationsChangingDynamicRange, in: slices.Concat(halted, running), template: everywhere},

	{op: api.VMOperationsSuspend, in: running},
	{op: api.VMOperationsResume, in: suspended},
	{op: api.VMOperationsResumeOn, in: suspended},
	{op: api.VMOperationsPoolMigrate, in: running},
	{op: api.VMOperationsMigrateSend, in: slices.Concat(halted, suspended, running), template: ownOnly},
	{op: api.VMOperationsSnapshot, in: anyState, beside: snapshotting},
	{op: api.VMOperationsSnapshotWithQuiesce, in: running},
	{op: api.VMOperationsCheckpoint, in: started, beside: snapshotting},
	{op: api.VMOperationsRevert, in: anyState, snapshot: alone},
	{op: api.VMOperationsExport, in: atRest, template: everywhere, snapshot: everywhere, beside: copying},
	{op: api.VMOperationsCreateTemplate, in: atRest},
	{op: api.VMOperationsMakeIntoTemplate, in: halted},
	{op: api.VMOperationsMetadataExport, in: anyState, template: everywhere, snapshot: everywhere, beside: migrating},
	{op: api.VMOperationsCreateVTPM, in: halted},
	{op: api.VMOperationsChangingVCPUsLive, in: running},
	{op: api.VMOperationsChangingMemoryLive, in: running},
	{op: api.VMOperationsAwaitingMemoryLive, in: running},
	{op: api.VMOperationsChangingShadowMemory, in: halted, template: everywhere},
	{op: api.VMOperationsChangingShadowMemoryLive, in: running},
	{op: api.VMOperationsChangingNVRAM, in: halted, template: everywhere},
	{op: api.VMOperationsGetBootRecord, in: started},
	{op: api.VMOperationsSendSysrq, in: running},
	{op: api.VMOperationsSendTrigger, in: running},
	{op: api.VMOperationsQueryServices, in: running},
	{op: api.VMOperationsCallPlugin, in: running},
	{op: api.VMOperationsSysprep, in: running},
	{op: api.VMOperationsDataSourceOp, in: running},
}

// vmBuilt are the operations that package vm performs.
var vmBuilt = []api.VMOperations{
	api.VMOperationsStart, api.VMOperationsStartOn, api.VMOperationsPause, api.VMOperationsUnpause,
	api.VMOperationsCleanShutdown, api.VMOperationsCleanReboot, api.VMOperationsShutdown,
	api.VMOperationsHardReboot, api.VMOperationsHardShutdown, api.VMOperationsPowerStateReset,
	api.VMOperationsClone, api.VMOperationsCopy, api.VMOperationsProvision, api.VMOperationsDestroy,
	api.VMOperationsSnapshot, api.VMOperationsSnapshotWithQuiesce, api.VMOperationsCheckpoint, api.VMOperationsRevert,
	api.VMOperationsSuspend, api.VMOperationsResume, api.VMOperationsResumeOn, api.VMOperationsMakeIntoTemplate,
	api.VMOperationsCreateVTPM, api.VMOperationsGetBootRecord, api.VMOperationsChangingVCPUs, api.VMOperationsChangingVCPUsLive, api.VMOperationsChangingStaticRange, api.VMOperationsChangingMemoryLimits,
	api.VMOperationsChangingDynamicRange, api.VMOperationsChangingMemoryLive, api.VMOperationsAwaitingMemoryLive,
	api.VMOperationsChangingShadowMemory, api.VMOperationsChangingShadowMemoryLive, api.VMOperationsChangingNVRAM,
	api.VMOperationsDataSourceOp,
	api.VMOperationsExport, api.VMOperationsMetadataExport, // which package machine performs
}

// VM is the table of virtual machines. It looks at nothing but the machine, so
// the reader may be nil. The order is that of the reference implementation: what
// the user blocked, the power state, what else is going on, then what the
// machine is. No operation asks for drivers in the guest: the power button, and
// all that QEMU does from outside, need none.
var VM = vmTable()

func vmTable() *Table[api.VM, *api.VM, api.VMOperations] {
	t := &Table[api.VM, *api.VM, api.VMOperations]{
		built: vmBuilt,
		first: []condition[api.VM]{notBlocked},
		fields: func(vm *api.VM) (*[]api.VMOperations, *map[string]api.VMOperations) {
			return &vm.AllowedOperations, &vm.CurrentOperations
		},
	}
	for _, r := range lifecycle {
		t.rules = append(t.rules, rule[api.VM, api.VMOperations]{
			op: r.op, beside: r.beside,
			first: []condition[api.VM]{r.powerState},
			then:  []condition[api.VM]{notControlDomain, r.kind},
		})
	}
	return t
}

func notBlocked(s *subject[api.VM]) error {
	if reason, blocked := s.rec.BlockedOperations[api.VMOperations(s.op)]; blocked {
		return api.ErrOperationBlocked(s.ref.String(), reason)
	}
	return nil
}

// powerState holds an operation to the states it may begin in; a snapshot may
// also be copied while it holds a suspended machine.
func (r vmRule) powerState(s *subject[api.VM]) error {
	in := r.in
	if s.rec.IsASnapshot && (r.op == api.VMOperationsClone || r.op == api.VMOperationsCopy) {
		in = atRest
	}
	return inState(s.ref, s.rec, in)
}

func inState(ref api.VMRef, vm *api.VM, states []api.VMPowerState) error {
	if slices.Contains(states, vm.PowerState) {
		return nil
	}
	names := make([]string, len(states))
	for i, state := range states {
		names[i] = lower(state)
	}
	return api.ErrVMBadPowerState(ref.String(), strings.Join(names, "; "), lower(vm.PowerState))
}

func lower(s api.VMPowerState) string { return strings.ToLower(string(s)) }

func notControlDomain(s *subject[api.VM]) error {
	if s.rec.IsControlDomain {
		return api.ErrOperationNotAllowed("operation is not permitted on the control domain")
	}
	return nil
}

// kind holds an operation to machines, templates or snapshots. A snapshot is
// also marked as a template; it counts as a snapshot.
func (r vmRule) kind(s *subject[api.VM]) error {
	switch {
	case s.rec.IsASnapshot:
		if r.snapshot == never {
			return api.ErrVMIsSnapshot(s.ref.String(), s.op)
		}
	case r.snapshot == alone:
		return api.ErrOperationNotAllowed("only a snapshot can be reverted to")
	case s.rec.IsATemplate:
		if r.template == never || r.template == ownOnly && s.rec.IsDefaultTemplate {
			return api.ErrVMIsTemplate(s.ref.String())
		}
	}
	return nil
}

// Interrupted reports an operation in progress that may interrupt op, to which
// op therefore yields.
func Interrupted(vm *api.VM, op api.VMOperations) (task string, by api.VMOperations, yes bool) {
	for task, other := range vm.CurrentOperations {
		hard := other == api.VMOperationsHardShutdown || other == api.VMOperationsHardReboot
		if r := VM.rule(other); hard && other != op && slices.Contains(r.beside, op) {
			return task, other, true
		}
	}
	return "", "", false
}
