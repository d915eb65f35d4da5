package operation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cairn/golden"
	"cairn/toolstack/api"
)

// code is how tests write an answer: "ok", or the error's code and parameters.
func code(err error) string {
	var known *api.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &known):
		return strings.TrimSpace(known.Code + " " + strings.Join(known.Params, ","))
	}
	return err.Error()
}

var vmKinds = []struct {
	name string
	vm   api.VM
}{
	{"vm", api.VM{}},
	{"template", api.VM{IsATemplate: true}},
	{"default template", api.VM{IsATemplate: true, IsDefaultTemplate: true}},
	{"snapshot", api.VM{IsATemplate: true, IsASnapshot: true}},
	{"control domain", api.VM{IsControlDomain: true}},
}

// TestVMMatrix writes out what every operation is answered in every state on
// every kind of machine, and beside every other, so that a change of the table
// is seen as what it changes.
func TestVMMatrix(t *testing.T) {
	var b strings.Builder
	for _, k := range vmKinds {
		fmt.Fprintf(&b, "%s:%*s", k.name, 28-len(k.name), "")
		for _, state := range anyState {
			fmt.Fprintf(&b, "%-22s", lower(state))
		}
		b.WriteString("\n")
		for _, r := range lifecycle {
			fmt.Fprintf(&b, "  %-27s", r.op)
			for _, state := range anyState {
				vm := k.vm
				vm.PowerState = state
				answer, _, _ := strings.Cut(code(VM.judge(nil, "OpaqueRef:x", &vm, r.op)), " ")
				fmt.Fprintf(&b, "%-22s", answer)
			}
			b.WriteString("\n")
		}
	}
	for _, r := range lifecycle {
		fmt.Fprintf(&b, "during %s:", r.op)
		for _, state := range r.in {
			vm := api.VM{PowerState: state, CurrentOperations: map[string]api.VMOperations{"OpaqueRef:t": r.op}}
			for _, other := range lifecycle {
				if VM.judge(nil, "OpaqueRef:x", &vm, other.op) == nil {
					fmt.Fprintf(&b, " %s (%s)", other.op, lower(state))
				}
			}
		}
		b.WriteString("\n")
	}
	golden.Equal(t, "testdata/vm.txt", trimmed(b.String()))
}

// trimmed is text without blanks at the ends of its lines.
func trimmed(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.Join(lines, "\n") + "\n"
}

// documented are the states of the operations in the words of the behaviour
// that clients know, written down apart from the table.
var documented = map[string]string{
	"Halted":                          "start start_on provision make_into_template create_vtpm changing_static_range changing_VCPUs changing_memory_limits changing_shadow_memory changing_NVRAM clone copy",
	"Paused":                          "unpause",
	"Suspended":                       "resume resume_on",
	"Running":                         "pause suspend snapshot_with_quiesce clean_shutdown clean_reboot pool_migrate changing_memory_live awaiting_memory_live changing_VCPUs_live changing_shadow_memory_live send_trigger send_sysrq call_plugin sysprep data_source_op query_services",
	"Running Paused":                  "hard_reboot",
	"Running Paused Suspended":        "hard_shutdown shutdown checkpoint get_boot_record",
	"Halted Suspended":                "destroy export create_template",
	"Halted Running":                  "changing_dynamic_range",
	"Halted Suspended Running":        "migrate_send",
	"Halted Paused Suspended Running": "snapshot metadata_export power_state_reset",
}

func TestVMStatesAreTheDocumentedOnes(t *testing.T) {
	seen := 0
	for states, ops := range documented {
		for op := range strings.FieldsSeq(ops) {
			seen++
			for _, state := range anyState {
				want := slices.Contains(strings.Fields(states), string(state))
				vm := api.VM{PowerState: state}
				if got := VM.judge(nil, "OpaqueRef:x", &vm, api.VMOperations(op)); (got == nil) != want {
					t.Errorf("%s of a machine that is %s: %s", op, lower(state), code(got))
				}
			}
		}
	}
	if seen != len(lifecycle)-1 { // all but revert, which is for snapshots
		t.Errorf("%d operations are documented, the table has %d", seen, len(lifecycle))
	}
}

func TestVMErrors(t *testing.T) {
	busy := map[string]api.VMOperations{"OpaqueRef:t": api.VMOperationsCleanShutdown}
	for _, c := range []struct {
		op   api.VMOperations
		vm   api.VM
		want string
	}{
		{"start", api.VM{PowerState: "Halted"}, "ok"},
		{"start", api.VM{PowerState: "Running"}, "VM_BAD_POWER_STATE OpaqueRef:x,halted,running"},
		{"hard_reboot", api.VM{PowerState: "Halted"}, "VM_BAD_POWER_STATE OpaqueRef:x,running; paused,halted"},
		{"pause", api.VM{PowerState: "Running", CurrentOperations: busy}, "OTHER_OPERATION_IN_PROGRESS VM,OpaqueRef:x,clean_shutdown,OpaqueRef:t"},
		{"hard_shutdown", api.VM{PowerState: "Running", CurrentOperations: busy}, "ok"},
		{"start", api.VM{PowerState: "Halted", BlockedOperations: map[api.VMOperations]string{"start": "for a reason"}}, "OPERATION_BLOCKED OpaqueRef:x,for a reason"},
		{"start", api.VM{PowerState: "Running", BlockedOperations: map[api.VMOperations]string{"start": "first"}}, "OPERATION_BLOCKED OpaqueRef:x,first"},
		{"start", api.VM{PowerState: "Halted", IsATemplate: true}, "VM_IS_TEMPLATE OpaqueRef:x"},
		{"start", api.VM{PowerState: "Halted", IsATemplate: true, IsASnapshot: true}, "VM_IS_SNAPSHOT OpaqueRef:x,start"},
		{"destroy", api.VM{PowerState: "Halted", IsATemplate: true}, "ok"},
		{"destroy", api.VM{PowerState: "Halted", IsATemplate: true, IsDefaultTemplate: true}, "VM_IS_TEMPLATE OpaqueRef:x"},
		{"clean_shutdown", api.VM{PowerState: "Running", IsControlDomain: true}, "OPERATION_NOT_ALLOWED operation is not permitted on the control domain"},
		{"suspend", api.VM{PowerState: "Running"}, "ok"},
		{"pool_migrate", api.VM{PowerState: "Running"}, "NOT_IMPLEMENTED VM.pool_migrate"},
	} {
		if got := code(VM.Check(nil, "OpaqueRef:x", &c.vm, c.op)); got != c.want {
			t.Errorf("%s: %s, want %s", c.op, got, c.want)
		}
	}
	for _, op := range []api.VMOperations{"import", "update_allowed_operations"} {
		if got := code(VM.judge(nil, "OpaqueRef:x", &api.VM{}, op)); !strings.HasPrefix(got, "OPERATION_NOT_ALLOWED") {
			t.Errorf("%s: %s", op, got)
		}
	}
	if got := code(VM.judge(nil, "OpaqueRef:x", &api.VM{PowerState: "Halted"}, "revert")); !strings.HasPrefix(got, "OPERATION_NOT_ALLOWED") {
		t.Errorf("revert to what is no snapshot: %s", got)
	}
}

// TestInterruption: what may be interrupted yields, and never both to each
// other.
func TestInterruption(t *testing.T) {
	vm := &api.VM{CurrentOperations: map[string]api.VMOperations{
		"OpaqueRef:a": api.VMOperationsCleanShutdown, "OpaqueRef:b": api.VMOperationsHardReboot,
	}}
	if task, by, yes := Interrupted(vm, api.VMOperationsCleanShutdown); !yes || task != "OpaqueRef:b" || by != api.VMOperationsHardReboot {
		t.Errorf("interrupted by %s %s %t", task, by, yes)
	}
	if _, _, yes := Interrupted(vm, api.VMOperationsHardReboot); yes {
		t.Error("a hard reboot yields to a clean shutdown")
	}
	for _, a := range lifecycle {
		for _, b := range lifecycle {
			x := &api.VM{CurrentOperations: map[string]api.VMOperations{"OpaqueRef:b": b.op}}
			y := &api.VM{CurrentOperations: map[string]api.VMOperations{"OpaqueRef:a": a.op}}
			_, _, ab := Interrupted(x, a.op)
			_, _, ba := Interrupted(y, b.op)
			if ab && ba {
				t.Errorf("%s and %s yield to each other", a.op, b.op)
			}
		}
	}
}
