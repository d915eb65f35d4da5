package vm_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

// diary keeps, in virtual time, what started, stopped and waited.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) add(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func (d *diary) sleep(ctx context.Context, t time.Duration) error {
	d.add("wait " + t.String())
	return ctx.Err()
}

func (d *diary) take() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	text := strings.Join(d.lines, ", ")
	d.lines = nil
	return text
}

// diarist writes down starts and ends of domains.
type diarist struct {
	*hypervisor.Fake
	d *diary
}

func (h diarist) Start(ctx context.Context, spec hypervisor.Spec, paused bool) error {
	err := h.Fake.Start(ctx, spec, paused)
	if err == nil {
		h.d.add("start " + spec.Title)
	}
	return err
}

func (h diarist) Shutdown(ctx context.Context, uuid string) error {
	h.d.add("clean " + h.title(uuid))
	return h.Fake.Shutdown(ctx, uuid)
}

func (h diarist) Destroy(ctx context.Context, uuid string) error {
	h.d.add("hard " + h.title(uuid))
	return h.Fake.Destroy(ctx, uuid)
}

func (h diarist) title(uuid string) string {
	spec, _ := h.Spec(uuid)
	return spec.Title
}

// newAppliance is three VMs: two of them one after the other, with delays.
func newAppliance(t *testing.T) (s *stack, d *diary, appliance string, vms []string) {
	d = &diary{}
	s = newStackEdit(t, func(c *vm.Config) {
		c.Sleep = d.sleep
		c.Hypervisor = diarist{c.Hypervisor.(*hypervisor.Fake), d}
	})
	s.Must(&appliance, "VM_appliance.create", map[string]any{"name_label": "shop", "name_description": ""})
	for i, name := range []string{"database", "web", "front"} {
		ref := s.makeVM(name)
		vms = append(vms, ref)
		s.Must(nil, "VM.set_appliance", ref, appliance)
		s.Must(nil, "VM.set_order", ref, []string{"1", "5", "9"}[i])
		s.Must(nil, "VM.set_start_delay", ref, []string{"30", "7", "100"}[i])
		s.Must(nil, "VM.set_shutdown_delay", ref, []string{"3", "4", "0"}[i])
	}
	return s, d, appliance, vms
}

func TestAppliance(t *testing.T) {
	s, d, appliance, vms := newAppliance(t)
	s.Covers("VM_appliance.create", "VM_appliance.start", "VM_appliance.clean_shutdown",
		"VM_appliance.hard_shutdown", "VM_appliance.shutdown", "VM_appliance.destroy", "VM_appliance.get_VMs")
	var members []string
	s.Must(&members, "VM_appliance.get_VMs", appliance)
	slices.Sort(members)
	if want := slices.Sorted(slices.Values(vms)); !slices.Equal(members, want) {
		t.Errorf("members %v, want %v", members, want)
	}
	for _, tt := range []struct {
		method, args string
		want         string
	}{
		{"VM_appliance.start", "false", "start database, wait 30s, start web, wait 7s, start front"},
		{"VM_appliance.clean_shutdown", "", "clean front, clean web, wait 4s, clean database"},
		{"VM_appliance.start", "false", "start database, wait 30s, start web, wait 7s, start front"},
		{"VM_appliance.hard_shutdown", "", "hard front, hard web, wait 4s, hard database"},
		{"VM_appliance.start", "true", "start database, wait 30s, start web, wait 7s, start front"},
		{"VM_appliance.hard_shutdown", "", "hard front, hard web, wait 4s, hard database"},
		{"VM_appliance.start", "false", "start database, wait 30s, start web, wait 7s, start front"},
		{"VM_appliance.shutdown", "", "clean front, clean web, wait 4s, clean database"},
	} {
		args := []any{appliance}
		if tt.args != "" {
			args = append(args, tt.args == "true")
		}
		s.Must(nil, tt.method, args...)
		if got := d.take(); got != tt.want {
			t.Errorf("%s: %s; want %s", tt.method, got, tt.want)
		}
		a := wiretest.Get(s.Server, api.VMApplianceRef(appliance))
		if len(a.CurrentOperations) != 0 {
			t.Errorf("%s: still %v", tt.method, a.CurrentOperations)
		}
	}
	s.refused(api.CodeOperationNotAllowed, nil, "VM_appliance.clean_shutdown", appliance)
	s.Must(nil, "VM_appliance.destroy", appliance)
	if !s.record(vms[0]).Appliance.IsNull() {
		t.Error("a VM belongs to what is gone")
	}
	s.refused(api.CodeHandleInvalid, nil, "VM_appliance.start", appliance, false)
}

// TestApplianceMemberFails: the others go on, and the answer says so.
func TestApplianceMemberFails(t *testing.T) {
	s, d, appliance, vms := newAppliance(t)
	must(t, s.DB.Update(s.ctx, func(tx *db.Tx) error {
		r, err := db.Edit(tx, api.VMRef(vms[1]))
		r.PVKernel = ""
		return err
	}))
	s.refused(api.CodeOperationPartiallyFailed, []string{"VM_appliance.start"}, "VM_appliance.start", appliance, false)
	if got := d.take(); got != "start database, wait 30s, wait 7s, start front" {
		t.Error(got)
	}
	s.state(vms[2], api.VMPowerStateRunning)
	s.state(vms[1], api.VMPowerStateHalted)
	s.Must(nil, "VM.pause", vms[0])
	s.refused(api.CodeOperationPartiallyFailed, []string{"VM_appliance.clean_shutdown"}, "VM_appliance.clean_shutdown", appliance)
	s.state(vms[2], api.VMPowerStateHalted)
	s.Must(nil, "VM_appliance.shutdown", appliance)
	s.state(vms[0], api.VMPowerStateHalted)
}
