package vm_test

import (
	"maps"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

func (s *stack) schedule(ref string) *api.VMSS {
	s.T.Helper()
	v, err := db.Get(s.DB.Snapshot(), api.VMSSRef(ref))
	must(s.T, err)
	return v
}

func TestSchedule(t *testing.T) {
	s := newStack(t)
	var ref string
	s.Must(&ref, "VMSS.create", map[string]any{
		"name_label": "nightly", "name_description": "", "enabled": true, "type": "snapshot", "retained_snapshots": 7,
		"frequency": "daily", "schedule": map[string]string{"hour": "3"},
	})
	want := map[string]string{"min": "0", "hour": "3", "days": "monday"}
	if v := s.schedule(ref); v.NameLabel != "nightly" || v.RetainedSnapshots != 7 || !maps.Equal(v.Schedule, want) {
		t.Errorf("made %+v", v)
	}
	for _, tt := range []struct {
		method string
		args   []any
		holds  func(*api.VMSS) bool
	}{
		{"VMSS.set_frequency", []any{"weekly"}, func(v *api.VMSS) bool { return v.Frequency == api.VMSSFrequencyWeekly }},
		{"VMSS.set_type", []any{"checkpoint"}, func(v *api.VMSS) bool { return v.Type == api.VMSSTypeCheckpoint }},
		{"VMSS.set_retained_snapshots", []any{10}, func(v *api.VMSS) bool { return v.RetainedSnapshots == 10 }},
		{"VMSS.set_last_run_time", []any{"20260102T03:04:05Z"}, func(v *api.VMSS) bool { return v.LastRunTime.Year() == 2026 }},
		{"VMSS.set_schedule", []any{map[string]string{"min": "45"}}, func(v *api.VMSS) bool {
			return v.Schedule["min"] == "45" && v.Schedule["hour"] == "0"
		}},
		{"VMSS.add_to_schedule", []any{"days", "Monday,friday"}, func(v *api.VMSS) bool {
			return v.Schedule["days"] == "Monday,friday" && v.Schedule["min"] == "45"
		}},
		{"VMSS.remove_from_schedule", []any{"days"}, func(v *api.VMSS) bool { return v.Schedule["days"] == "monday" }},
	} {
		s.Must(nil, tt.method, append([]any{ref}, tt.args...)...)
		if v := s.schedule(ref); !tt.holds(v) {
			t.Errorf("%s(%v) has no effect: %+v", tt.method, tt.args, v)
		}
		s.Covers(tt.method)
	}
	vm := s.makeVM("snapped")
	s.Must(nil, "VM.set_snapshot_schedule", vm, ref)
	s.refused(api.CodeVMSSHasVM, []string{}, "VMSS.destroy", ref)
	s.Must(nil, "VM.set_snapshot_schedule", vm, "OpaqueRef:NULL")
	s.Must(nil, "VMSS.destroy", ref)
	s.refused(api.CodeHandleInvalid, []string{"VMSS", ref}, "VMSS.get_record", ref)
	s.Covers("VMSS.create", "VMSS.destroy")
}

func TestScheduleRefused(t *testing.T) {
	s := newStack(t)
	v := api.NewVMSS()
	v.RetainedSnapshots, v.Schedule = 1, map[string]string{"min": "0", "hour": "0", "days": "monday"}
	ref := insert(s, v)
	before := s.schedule(ref)
	for _, tt := range []struct {
		method string
		args   []any
		params []string
	}{
		{"VMSS.set_retained_snapshots", []any{0}, []string{"retained_snapshots", "0"}},
		{"VMSS.set_retained_snapshots", []any{11}, []string{"retained_snapshots", "11"}},
		{"VMSS.add_to_schedule", []any{"min", "10"}, []string{"schedule:min", "10"}},
		{"VMSS.add_to_schedule", []any{"hour", "24"}, []string{"schedule:hour", "24"}},
		{"VMSS.add_to_schedule", []any{"hour", "+1"}, []string{"schedule:hour", "+1"}},
		{"VMSS.add_to_schedule", []any{"days", "someday"}, []string{"schedule:days", "someday"}},
		{"VMSS.add_to_schedule", []any{"days", ""}, []string{"schedule:days", ""}},
		{"VMSS.set_schedule", []any{map[string]string{"second": "1"}}, []string{"schedule:second", "1"}},
	} {
		s.refused(api.CodeInvalidValue, tt.params, tt.method, append([]any{ref}, tt.args...)...)
	}
	if s.schedule(ref) != before {
		t.Error("a refused call has written")
	}
}
