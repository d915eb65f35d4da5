package vm_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// refusal is a call that must be answered with an error and change nothing.
type refusal struct {
	method string
	args   []any // after the VM
	want   *api.Error
}

// unchanged makes the calls and compares the VM with what it was.
func (s *stack) unchanged(ref string, refusals ...refusal) {
	s.T.Helper()
	for _, r := range refusals {
		before := s.record(ref)
		_, err := s.Call(r.method, append([]any{ref}, r.args...)...)
		var e *api.Error
		if !errors.As(err, &e) || e.Code != r.want.Code || !slices.Equal(e.Params, r.want.Params) {
			s.T.Errorf("%s(%v): got %v, want %v", r.method, r.args, err, r.want)
		}
		if s.record(ref) != before { // records are never changed, only replaced
			s.T.Errorf("%s(%v) was refused and has written", r.method, r.args)
		}
	}
}

func insert[T any, P api.RecordPtr[T]](s *stack, r *T) string {
	s.T.Helper()
	var ref api.Ref[T]
	must(s.T, s.DB.Update(s.ctx, func(tx *db.Tx) error { ref = db.Insert[T, P](tx, r); return nil }))
	return ref.String()
}

func TestSettings(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("settings")
	appliance, group := insert(s, &api.VMAppliance{}), insert(s, api.NewVMGroup())
	schedule := insert(s, api.NewVMSS())
	for _, tt := range []struct {
		method string
		value  any
		holds  func(*api.VM) bool
	}{
		{"VM.set_order", 3, func(vm *api.VM) bool { return vm.Order == 3 }},
		{"VM.set_start_delay", 4, func(vm *api.VM) bool { return vm.StartDelay == 4 }},
		{"VM.set_shutdown_delay", 5, func(vm *api.VM) bool { return vm.ShutdownDelay == 5 }},
		{"VM.set_ha_restart_priority", "best-effort", func(vm *api.VM) bool { return vm.HARestartPriority == "best-effort" }},
		{"VM.set_ha_always_run", true, func(vm *api.VM) bool { return vm.HAAlwaysRun }},
		{"VM.set_actions_after_crash", "preserve", func(vm *api.VM) bool { return vm.ActionsAfterCrash == api.OnCrashBehaviourPreserve }},
		{"VM.set_has_vendor_device", true, func(vm *api.VM) bool { return vm.HasVendorDevice }},
		{"VM.set_HVM_boot_policy", "BIOS order", func(vm *api.VM) bool {
			return vm.HVMBootPolicy == "BIOS order" && vm.DomainType == api.DomainTypeHvm
		}},
		{"VM.set_domain_type", "pvh", func(vm *api.VM) bool { return vm.HVMBootPolicy == "" && vm.DomainType == api.DomainTypePvh }},
		{"VM.set_HVM_shadow_multiplier", 1.5, func(vm *api.VM) bool { return vm.HVMShadowMultiplier == 1.5 }},
		{"VM.set_appliance", appliance, func(vm *api.VM) bool { return string(vm.Appliance) == appliance }},
		{"VM.set_appliance", "OpaqueRef:NULL", func(vm *api.VM) bool { return vm.Appliance.IsNull() }},
		{"VM.set_groups", []string{group}, func(vm *api.VM) bool { return len(vm.Groups) == 1 && string(vm.Groups[0]) == group }},
		{"VM.set_snapshot_schedule", schedule, func(vm *api.VM) bool { return string(vm.SnapshotSchedule) == schedule }},
	} {
		s.Must(nil, tt.method, ref, tt.value)
		if !tt.holds(s.record(ref)) {
			t.Errorf("%s(%v) has no effect: %+v", tt.method, tt.value, s.record(ref))
		}
		s.Covers(tt.method)
	}
	if a, err := db.Get(s.DB.Snapshot(), api.VMSSRef(schedule)); err != nil || len(a.VMs) != 1 {
		t.Errorf("the schedule's VMs: %v, %v", a, err)
	}
}

func TestSettingsRefused(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("settings")
	const nowhere = "OpaqueRef:nowhere"
	s.unchanged(ref, []refusal{
		{"VM.set_order", []any{-1}, api.ErrInvalidValue("order", "-1")},
		{"VM.set_start_delay", []any{-1}, api.ErrInvalidValue("start_delay", "-1")},
		{"VM.set_shutdown_delay", []any{-9}, api.ErrInvalidValue("shutdown_delay", "-9")},
		{"VM.set_ha_restart_priority", []any{"0"}, api.ErrInvalidValue("ha_restart_priority", "0")},
		{"VM.set_HVM_boot_policy", []any{"floppy"}, api.ErrInvalidValue("HVM_boot_policy", "floppy")},
		{"VM.set_domain_type", []any{"pv"}, api.ErrValueNotSupported("domain_type", "pv", "guests are hardware-virtualized: hvm or pvh")},
		{"VM.set_HVM_shadow_multiplier", []any{0.5}, api.ErrInvalidValue("HVM_shadow_multiplier", "0.5")},
		{"VM.set_appliance", []any{nowhere}, api.ErrHandleInvalid("VM_appliance", nowhere)},
		{"VM.set_groups", []any{[]string{nowhere}}, api.ErrHandleInvalid("VM_group", nowhere)},
		{"VM.set_groups", []any{[]string{"a", "b"}}, api.ErrTooManyGroups()},
		{"VM.set_snapshot_schedule", []any{nowhere}, api.ErrHandleInvalid("VMSS", nowhere)},
		{"VM.set_is_default_template", []any{true}, api.ErrInvalidValue("is_default_template", "true")},
		{"VM.set_NVRAM", []any{map[string]string{"EFI-variables": "?"}}, api.ErrInvalidValue("NVRAM:EFI-variables", "not base64")},
		{"VM.add_to_platform", []any{"nx", "maybe"}, api.ErrInvalidValue("platform:nx", "maybe")},
		{"VM.set_platform", []any{map[string]string{"machine-type": "q36"}}, api.ErrInvalidValue("platform:machine-type", "q36")},
		{"VM.add_to_platform", []any{"nic-model", "ne2000"}, api.ErrInvalidValue("platform:nic-model", "ne2000")},
		{"VM.add_to_platform", []any{"disk-bus", "ide"}, api.ErrInvalidValue("platform:disk-bus", "ide")},
		{"VM.add_to_platform", []any{"cores-per-socket", "0"}, api.ErrInvalidValue("platform:cores-per-socket", "0")},
		{"VM.set_bios_strings", []any{map[string]string{"bios": "x"}}, api.ErrInvalidValue("bios", "unknown key")},
		{"VM.set_bios_strings", []any{map[string]string{"bios-vendor": ""}}, api.ErrInvalidValue("bios-vendor", "must have 1 to 512 characters")},
		{"VM.set_bios_strings", []any{map[string]string{"bios-vendor": " x"}}, api.ErrInvalidValue("bios-vendor", "has white space at an end")},
		{"VM.set_bios_strings", []any{map[string]string{"bios-vendor": "ü"}}, api.ErrInvalidValue("bios-vendor", "has a character that is not printable ASCII")},
		{"VM.set_bios_strings", []any{map[string]string{"bios-vendor": strings.Repeat("x", 513)}}, api.ErrInvalidValue("bios-vendor", "must have 1 to 512 characters")},
		{"VM.copy_bios_strings", []any{nowhere}, api.ErrHandleInvalid("host", nowhere)},
		{"VM.maximise_memory", []any{-1, true}, api.ErrInvalidValue("total", "-1")},
	}...)
	s.Must(nil, "VM.start", ref, false, false)
	s.state(ref, api.VMPowerStateRunning)
	running := api.ErrVMBadPowerState(ref, "halted", "running")
	s.unchanged(ref,
		refusal{"VM.set_HVM_boot_policy", []any{""}, running},
		refusal{"VM.set_domain_type", []any{"hvm"}, running},
		refusal{"VM.set_has_vendor_device", []any{true}, running},
		refusal{"VM.set_NVRAM", []any{map[string]string{}}, running},
		refusal{"VM.set_HVM_shadow_multiplier", []any{2.0}, running},
	)
}

// TestProtectionFollowsState: a VM that is up when it comes under protection
// shall always run, and none without protection.
func TestProtectionFollowsState(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("protected")
	s.Must(nil, "VM.set_ha_restart_priority", ref, "restart")
	if s.record(ref).HAAlwaysRun {
		t.Error("a halted VM always runs")
	}
	s.Must(nil, "VM.set_ha_restart_priority", ref, "")
	s.Must(nil, "VM.start", ref, false, false)
	s.state(ref, api.VMPowerStateRunning)
	s.Must(nil, "VM.set_ha_restart_priority", ref, "restart")
	if !s.record(ref).HAAlwaysRun {
		t.Error("a running VM does not always run")
	}
	s.Must(nil, "VM.set_ha_restart_priority", ref, "best-effort")
	if s.record(ref).HAAlwaysRun {
		t.Error("best effort is no promise")
	}
}

func TestTemplatesHaveNoPlacement(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("t")
	appliance, group := insert(s, &api.VMAppliance{}), insert(s, api.NewVMGroup())
	s.Must(nil, "VM.set_is_a_template", ref, true)
	s.unchanged(ref,
		refusal{"VM.set_appliance", []any{appliance}, api.ErrVMIsTemplate(ref)},
		refusal{"VM.set_ha_restart_priority", []any{"restart"}, api.ErrVMIsTemplate(ref)},
		refusal{"VM.set_groups", []any{[]string{group}}, api.ErrOperationNotAllowed("control domains, templates and snapshots have no group")},
	)
	s.Must(nil, "VM.set_is_default_template", ref, true)
	if vm := s.record(ref); !vm.IsDefaultTemplate || slices.Contains(vm.AllowedOperations, api.VMOperationsDestroy) {
		t.Errorf("a default template: %t, allows %v", vm.IsDefaultTemplate, vm.AllowedOperations)
	}
	s.Covers("VM.set_is_default_template")
}

func TestMaps(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("maps")
	for _, tt := range []struct {
		field, key, value string
		at                func(*api.VM) map[string]string
	}{
		{"other_config", "folder", "/a", func(vm *api.VM) map[string]string { return vm.OtherConfig }},
		{"platform", "cores-per-socket", "2", func(vm *api.VM) map[string]string { return vm.Platform }},
		{"NVRAM", "EFI-variables", "AAAA", func(vm *api.VM) map[string]string { return vm.NVRAM }},
	} {
		now := func() map[string]string { return tt.at(s.record(ref)) }
		s.Must(nil, "VM.set_"+tt.field, ref, map[string]string{"k": "v"})
		if !maps.Equal(now(), map[string]string{"k": "v"}) {
			t.Errorf("%s was set and is %v", tt.field, now())
		}
		s.Must(nil, "VM.add_to_"+tt.field, ref, tt.key, tt.value)
		if !maps.Equal(now(), map[string]string{"k": "v", tt.key: tt.value}) {
			t.Errorf("%s was added to and is %v", tt.field, now())
		}
		s.unchanged(ref, refusal{"VM.add_to_" + tt.field, []any{tt.key, "x"}, api.ErrMapDuplicateKey("VM", tt.field, ref, tt.key)})
		s.Must(nil, "VM.remove_from_"+tt.field, ref, tt.key)
		s.Must(nil, "VM.remove_from_"+tt.field, ref, "never there")
		if !maps.Equal(now(), map[string]string{"k": "v"}) {
			t.Errorf("%s was removed from and is %v", tt.field, now())
		}
		s.Covers("VM.set_"+tt.field, "VM.add_to_"+tt.field, "VM.remove_from_"+tt.field)
	}
}

func TestBlockedOperations(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("blocked")
	startable := func() bool { return slices.Contains(s.record(ref).AllowedOperations, api.VMOperationsStart) }
	s.Must(nil, "VM.add_to_blocked_operations", ref, "start", "because")
	if startable() {
		t.Error("start is blocked and allowed")
	}
	s.refused(api.CodeOperationBlocked, []string{ref, "because"}, "VM.start", ref, false, false)
	s.unchanged(ref, refusal{"VM.add_to_blocked_operations", []any{"start", "x"}, api.ErrMapDuplicateKey("VM", "blocked_operations", ref, "start")})
	s.Must(nil, "VM.remove_from_blocked_operations", ref, "start")
	if !startable() {
		t.Error("start is blocked no more and not allowed")
	}
	s.Must(nil, "VM.set_blocked_operations", ref, map[string]string{"destroy": "mine"})
	s.refused(api.CodeOperationBlocked, []string{ref, "mine"}, "VM.destroy", ref)
	s.Covers("VM.add_to_blocked_operations", "VM.remove_from_blocked_operations", "VM.set_blocked_operations")
}

func TestBIOSStrings(t *testing.T) {
	s := newStack(t)
	ref, other := s.makeVM("a"), s.makeVM("b")
	s.Must(nil, "VM.set_bios_strings", ref, map[string]string{"system-manufacturer": "Maker"})
	if b := s.record(ref).BIOSStrings; b["system-manufacturer"] != "Maker" || b["bios-vendor"] == "" {
		t.Errorf("strings %v", b)
	}
	s.unchanged(ref,
		refusal{"VM.set_bios_strings", []any{map[string]string{}}, api.ErrVMBIOSStringsAlreadySet()},
		refusal{"VM.copy_bios_strings", []any{s.host.ref}, api.ErrVMBIOSStringsAlreadySet()})
	must(t, s.DB.Update(s.ctx, func(tx *db.Tx) error {
		h, err := db.Edit(tx, s.host.ref)
		if err == nil {
			h.BIOSStrings = map[string]string{"bios-vendor": "Phoenix", "hp-rombios": "x"}
		}
		return err
	}))
	s.Must(nil, "VM.copy_bios_strings", other, s.host.ref)
	if b := s.record(other).BIOSStrings; b["bios-vendor"] != "Phoenix" || b["hp-rombios"] != "" {
		t.Errorf("copied strings %v", b)
	}
	s.Covers("VM.set_bios_strings", "VM.copy_bios_strings")
}

func TestFreeDevices(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("devices")
	vbd, vif := api.NewVBD(), api.NewVIF()
	vbd.VM, vbd.Userdevice = api.VMRef(ref), "1"
	vif.VM, vif.Device = api.VMRef(ref), "0"
	insert(s, vbd)
	insert(s, vif)
	var disks, nics []string
	s.Must(&disks, "VM.get_allowed_VBD_devices", ref)
	s.Must(&nics, "VM.get_allowed_VIF_devices", ref)
	if len(disks) != 254 || disks[0] != "0" || disks[1] != "2" {
		t.Errorf("%d positions for disks: %v …", len(disks), disks[:3])
	}
	if want := []string{"1", "2", "3", "4", "5", "6"}; !slices.Equal(nics, want) {
		t.Errorf("positions for NICs: %v, want %v", nics, want)
	}
	s.Covers("VM.get_allowed_VBD_devices", "VM.get_allowed_VIF_devices")
}

func TestMaximiseMemory(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("big")
	for _, total := range []int64{0, 1 << 20, 60 << 20, 1 << 30, 1<<40 + 12345} {
		var exact, rough, overhead int64
		s.Must(&exact, "VM.maximise_memory", ref, total, false)
		s.Must(&rough, "VM.maximise_memory", ref, total, true)
		if rough%(1<<20) != 0 || rough > exact || exact-rough >= 1<<20 {
			t.Errorf("of %d: %d, roughly %d", total, exact, rough)
		}
		if exact < 16<<20 {
			continue
		}
		s.Must(nil, "VM.set_memory", ref, exact)
		s.Must(&overhead, "VM.compute_memory_overhead", ref)
		if left := total - exact - overhead; left < 0 || left > 256 {
			t.Errorf("of %d: %d with an overhead of %d", total, exact, overhead)
		}
	}
	s.Covers("VM.maximise_memory")
}

func TestAgile(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("agile")
	s.Must(nil, "VM.assert_agile", ref)
	sr, vdi, vbd := api.NewSR(), api.NewVDI(), api.NewVBD()
	vdi.SR = api.SRRef(insert(s, sr))
	vbd.VM, vbd.VDI = api.VMRef(ref), api.VDIRef(insert(s, vdi))
	insert(s, vbd)
	s.unchanged(ref, refusal{"VM.assert_agile", nil, api.ErrHAConstraintViolationSRNotShared(string(vdi.SR))})
	must(t, s.DB.Update(s.ctx, func(tx *db.Tx) error {
		r, err := db.Edit(tx, vdi.SR)
		if err == nil {
			r.Shared = true
		}
		return err
	}))
	s.Must(nil, "VM.assert_agile", ref)
	network, pif, vif := api.NewNetwork(), api.NewPIF(), api.NewVIF()
	vif.VM, vif.Network = api.VMRef(ref), api.NetworkRef(insert(s, network))
	insert(s, vif)
	s.unchanged(ref, refusal{"VM.assert_agile", nil, api.ErrHAConstraintViolationNetworkNotShared(string(vif.Network))})
	pif.Network, pif.Host = vif.Network, s.host.ref
	insert(s, pif)
	s.Must(nil, "VM.assert_agile", ref)
	var cooperative bool
	if s.Must(&cooperative, "VM.get_cooperative", ref); !cooperative {
		t.Error("a guest that was asked for nothing does not cooperate")
	}
	s.Covers("VM.assert_agile", "VM.get_cooperative")
}
