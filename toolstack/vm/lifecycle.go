package vm

import (
	"slices"
	"strings"

	"cairn/toolstack/api"
)

// rule is one line of the life-cycle: when an operation is allowed.
type rule struct {
	op api.VMOperations
	// in are the power states it may begin in.
	in []api.VMPowerState
	// template allows it on templates, and all on the default ones too.
	template tmpl
	// beside are the operations that may be in progress meanwhile.
	beside []api.VMOperations
	// built is false for what no package of this version performs: it is answered
	// NOT_IMPLEMENTED and never shown as allowed.
	built bool
}

// tmpl is how an operation treats templates.
type tmpl int

const (
	never      tmpl = iota // not on templates
	ownOnly                // on templates, save the default ones
	everywhere             // on all templates
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

	copying = []api.VMOperations{api.VMOperationsClone, api.VMOperationsCopy}
	// What the hard ways may interrupt. That is an order without circles: an
	// operation yields to those that may interrupt it.
	byReboot = []api.VMOperations{
		api.VMOperationsCleanShutdown, api.VMOperationsCleanReboot, api.VMOperationsShutdown,
		api.VMOperationsPause, api.VMOperationsUnpause,
	}
	byShutdown = append(slices.Clone(byReboot), api.VMOperationsHardReboot)
)

// lifecycle is the whole table, from the documented behaviour of the VM class.
var lifecycle = []rule{
	{op: api.VMOperationsStart, in: halted, built: true},
	{op: api.VMOperationsStartOn, in: halted, built: true},
	{op: api.VMOperationsPause, in: running, built: true},
	{op: api.VMOperationsUnpause, in: paused, built: true},
	{op: api.VMOperationsCleanShutdown, in: running, built: true},
	{op: api.VMOperationsCleanReboot, in: running, built: true},
	{op: api.VMOperationsShutdown, in: started, built: true},
	{op: api.VMOperationsHardReboot, in: awake, beside: byReboot, built: true},
	{op: api.VMOperationsHardShutdown, in: started, beside: byShutdown, built: true},
	{op: api.VMOperationsPowerStateReset, in: anyState, built: true},
	{op: api.VMOperationsClone, in: halted, template: everywhere, beside: copying, built: true},
	{op: api.VMOperationsCopy, in: halted, template: everywhere, beside: copying, built: true},
	{op: api.VMOperationsProvision, in: halted, template: ownOnly, built: true},
	{op: api.VMOperationsDestroy, in: atRest, template: ownOnly, built: true},
	{op: api.VMOperationsChangingVCPUs, in: halted, template: everywhere, built: true},
	{op: api.VMOperationsChangingStaticRange, in: halted, template: everywhere, built: true},
	{op: api.VMOperationsChangingMemoryLimits, in: halted, template: everywhere, built: true},
	{op: api.VMOperationsChangingDynamicRange, in: slices.Concat(halted, running), template: everywhere, built: true},

	{op: api.VMOperationsSuspend, in: running},
	{op: api.VMOperationsResume, in: suspended},
	{op: api.VMOperationsResumeOn, in: suspended},
	{op: api.VMOperationsPoolMigrate, in: running},
	{op: api.VMOperationsMigrateSend, in: slices.Concat(halted, suspended, running), template: ownOnly},
	{op: api.VMOperationsSnapshot, in: anyState},
	{op: api.VMOperationsCheckpoint, in: started},
	{op: api.VMOperationsRevert, in: anyState},
	{op: api.VMOperationsExport, in: atRest, template: everywhere, beside: copying},
	{op: api.VMOperationsCreateTemplate, in: atRest},
	{op: api.VMOperationsMetadataExport, in: anyState, template: everywhere},
	{op: api.VMOperationsChangingVCPUsLive, in: running},
	{op: api.VMOperationsChangingMemoryLive, in: running},
	{op: api.VMOperationsAwaitingMemoryLive, in: running},
	{op: api.VMOperationsChangingShadowMemory, in: halted, template: everywhere, built: true},
	{op: api.VMOperationsChangingShadowMemoryLive, in: running},
	{op: api.VMOperationsChangingNVRAM, in: halted, template: everywhere, built: true},
	{op: api.VMOperationsGetBootRecord, in: started},
	{op: api.VMOperationsSendSysrq, in: running},
	{op: api.VMOperationsSendTrigger, in: running},
	{op: api.VMOperationsQueryServices, in: running},
	{op: api.VMOperationsCallPlugin, in: running},
	{op: api.VMOperationsDataSourceOp, in: running},
}

func ruleOf(op api.VMOperations) (rule, bool) {
	i := slices.IndexFunc(lifecycle, func(r rule) bool { return r.op == op })
	if i < 0 {
		return rule{}, false
	}
	return lifecycle[i], true
}

// check says whether op may begin on a VM now, and if not why, in the order the
// reference implementation looks: what the user blocked, the power state, what
// else is going on, then what the VM is.
func check(ref api.VMRef, vm *api.VM, op api.VMOperations) error {
	r, ok := ruleOf(op)
	if !ok || !r.built {
		return api.ErrNotImplemented("VM." + string(op))
	}
	if reason, blocked := vm.BlockedOperations[op]; blocked {
		return api.ErrOperationBlocked(ref.String(), reason)
	}
	if !slices.Contains(r.in, vm.PowerState) {
		return api.ErrVMBadPowerState(ref.String(), stateNames(r.in), lower(vm.PowerState))
	}
	if task, other, busy := conflict(r, vm); busy {
		return api.ErrOtherOperationInProgress("VM", ref.String(), string(other), task)
	}
	if vm.IsControlDomain {
		return api.ErrOperationNotAllowed("operation is not permitted on the control domain")
	}
	if vm.IsATemplate && !r.allowsTemplate(vm) {
		return api.ErrVMIsTemplate(ref.String())
	}
	if vm.IsASnapshot && !slices.Contains(copying, op) && op != api.VMOperationsDestroy {
		return api.ErrVMIsSnapshot(ref.String())
	}
	return nil
}

func (r rule) allowsTemplate(vm *api.VM) bool {
	return r.template == everywhere || r.template == ownOnly && !vm.IsDefaultTemplate
}

// conflict finds an operation in progress that r may not run beside.
func conflict(r rule, vm *api.VM) (task string, op api.VMOperations, busy bool) {
	for task, op := range vm.CurrentOperations {
		if !slices.Contains(r.beside, op) {
			return task, op, true
		}
	}
	return "", "", false
}

// interrupted reports an operation in progress that may interrupt op, to which op
// therefore yields.
func interrupted(vm *api.VM, op api.VMOperations) (task string, by api.VMOperations, yes bool) {
	for task, other := range vm.CurrentOperations {
		if r, ok := ruleOf(other); ok && other != op && slices.Contains(r.beside, op) && !slices.Contains(copying, op) {
			return task, other, true
		}
	}
	return "", "", false
}

// allowed is what allowed_operations shows.
func allowed(ref api.VMRef, vm *api.VM) []api.VMOperations {
	ops := []api.VMOperations{}
	for _, r := range lifecycle {
		if check(ref, vm, r.op) == nil {
			ops = append(ops, r.op)
		}
	}
	return ops
}

func stateNames(states []api.VMPowerState) string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = lower(s)
	}
	return strings.Join(names, "; ")
}

func lower(s api.VMPowerState) string { return strings.ToLower(string(s)) }
