package vm_test

import (
	"math"
	"reflect"
	"slices"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

const mib = 1 << 20

// sizes are a VM's memory limits in MiB, from static minimum to static maximum,
// and its vCPUs.
type sizes struct{ staticMin, dynamicMin, dynamicMax, staticMax, max, startup int64 }

func (s *stack) sizes(ref string) sizes {
	r := s.record(ref)
	return sizes{
		r.MemoryStaticMin / mib, r.MemoryDynamicMin / mib, r.MemoryDynamicMax / mib, r.MemoryStaticMax / mib,
		r.VCPUsMax, r.VCPUsAtStartup,
	}
}

func TestSizesAreSet(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("sized")
	steps := []struct {
		method string
		args   []any
		want   sizes
	}{
		{"VM.set_memory_limits", []any{64 * mib, 512 * mib, 128 * mib, 256 * mib}, sizes{64, 128, 256, 512, 1, 1}},
		{"VM.set_memory_static_range", []any{96 * mib, 640 * mib}, sizes{96, 128, 256, 640, 1, 1}},
		{"VM.set_memory_dynamic_range", []any{160 * mib, 320 * mib}, sizes{96, 160, 320, 640, 1, 1}},
		{"VM.set_memory_static_min", []any{32 * mib}, sizes{32, 160, 320, 640, 1, 1}},
		{"VM.set_memory_dynamic_min", []any{48 * mib}, sizes{32, 48, 320, 640, 1, 1}},
		{"VM.set_memory_dynamic_max", []any{600 * mib}, sizes{32, 48, 600, 640, 1, 1}},
		{"VM.set_memory_static_max", []any{700 * mib}, sizes{32, 48, 600, 700, 1, 1}},
		{"VM.set_memory", []any{200 * mib}, sizes{32, 200, 200, 200, 1, 1}},
		{"VM.set_VCPUs_max", []any{4}, sizes{32, 200, 200, 200, 4, 1}},
		{"VM.set_VCPUs_at_startup", []any{3}, sizes{32, 200, 200, 200, 4, 3}},
	}
	for _, step := range steps {
		s.Must(nil, step.method, append([]any{ref}, step.args...)...)
		if got := s.sizes(ref); got != step.want {
			t.Fatalf("after %s: %+v, want %+v", step.method, got, step.want)
		}
		s.Covers(step.method)
	}
	s.Must(nil, "VM.start", ref, false, false)
	if spec, _ := s.hv.Spec(s.uuid(ref)); spec.MemoryBytes != 200*mib || spec.VCPUs != 3 {
		t.Errorf("runs with %d bytes and %d vCPUs", spec.MemoryBytes, spec.VCPUs)
	}
}

func TestWrongSizesChangeNothing(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("sized")
	before := s.sizes(ref)
	for _, step := range []struct {
		code, method string
		args         []any
	}{
		{api.CodeMemoryConstraintViolationOrder, "VM.set_memory_limits", []any{512 * mib, 256 * mib, 256 * mib, 256 * mib}},
		{api.CodeMemoryConstraintViolationOrder, "VM.set_memory_static_min", []any{1 << 40}},
		{api.CodeMemoryConstraintViolationOrder, "VM.set_memory_dynamic_range", []any{256 * mib, 128 * mib}},
		{api.CodeValueNotSupported, "VM.set_memory", []any{1}},
		{api.CodeValueNotSupported, "VM.set_memory", []any{int64(math.MaxInt64)}},
		{api.CodeValueNotSupported, "VM.set_VCPUs_max", []any{0}},
		{api.CodeValueNotSupported, "VM.set_VCPUs_max", []any{100000}},
		{api.CodeValueNotSupported, "VM.set_VCPUs_at_startup", []any{2}},
	} {
		s.refused(step.code, nil, step.method, append([]any{ref}, step.args...)...)
		if got := s.sizes(ref); got != before {
			t.Fatalf("%s was refused, but left %+v of %+v", step.method, got, before)
		}
	}
}

// TestOverheadGrowsWithTheVM: what a VM costs beside its memory is counted.
func TestOverheadGrowsWithTheVM(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	var small, large, field int64
	s.Must(&small, "VM.compute_memory_overhead", ref)
	s.Must(nil, "VM.set_VCPUs_max", ref, 64)
	s.Must(&large, "VM.compute_memory_overhead", ref)
	s.Must(&field, "VM.get_memory_overhead", ref)
	if small <= 0 || large <= small || field != large {
		t.Errorf("overhead %d, with 64 vCPUs %d, in the record %d", small, large, field)
	}
	s.Covers("VM.compute_memory_overhead")
}

func TestWhereAVMMayRun(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	var hosts []string
	s.Must(&hosts, "VM.get_possible_hosts", ref)
	s.Must(nil, "VM.assert_can_boot_here", ref, string(s.host.ref))
	if !reflect.DeepEqual(hosts, []string{string(s.host.ref)}) {
		t.Errorf("possible hosts %v", hosts)
	}
	s.Must(nil, "VM.set_memory", ref, 64<<30)
	s.refused(api.CodeHostNotEnoughFreeMemory, nil, "VM.assert_can_boot_here", ref, string(s.host.ref))
	s.host.kind = ""
	s.refused(api.CodeVMHvmRequired, []string{ref}, "VM.assert_can_boot_here", ref, string(s.host.ref))
	s.Covers("VM.get_possible_hosts", "VM.assert_can_boot_here")
}

func TestCopyIsAVMOfItsOwn(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("original")
	s.Must(nil, "VM.add_tags", ref, "kept-back")
	var made string
	s.Must(&made, "VM.copy", ref, "copied", api.NullRef)
	o, c := s.record(ref), s.record(made)
	if c.UUID == o.UUID || c.NameLabel != "copied" || c.Metrics == o.Metrics || c.MemoryStaticMax != o.MemoryStaticMax || len(c.Tags) != 0 {
		t.Errorf("copy %+v of %+v", c, o)
	}
	s.Must(nil, "VM.destroy", ref)
	s.Must(nil, "VM.start", made, false, false)
	s.Covers("VM.copy")
}

func TestOperationsAreTold(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	s.Must(nil, "VM.assert_operation_valid", ref, "start")
	s.refused(api.CodeVMBadPowerState, []string{ref, "running", "halted"}, "VM.assert_operation_valid", ref, "pause")
	s.Must(nil, "VM.update_allowed_operations", ref)
	allowed := s.record(ref).AllowedOperations
	if !slices.Contains(allowed, api.VMOperationsStart) || slices.Contains(allowed, api.VMOperationsPause) {
		t.Errorf("a halted VM allows %v", allowed)
	}
	s.Covers("VM.assert_operation_valid", "VM.update_allowed_operations")
}

// TestPowerStateReset: the last resort for a VM whose host is believed dead.
func TestPowerStateReset(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, false, false)
	uuid := s.uuid(ref)
	s.Must(nil, "VM.power_state_reset", ref)
	s.state(ref, api.VMPowerStateHalted)
	if _, runs := s.hv.Spec(uuid); runs {
		t.Error("the VM is halted by its record and runs all the same")
	}
	if spec, ok := s.hv.Spec(uuid); ok && spec.Kind == hypervisor.Accelerated {
		t.Error("its domain is still there")
	}
	s.Covers("VM.power_state_reset")
}
