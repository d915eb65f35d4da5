package vm_test

import (
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
)

// newPool is a stack with further hosts, each with a hypervisor of its own.
func newPool(t *testing.T, memory ...int64) (s *stack, hosts []*fakeHost, hvs []*hypervisor.Fake) {
	t.Helper()
	var others []vm.Site
	for _, bytes := range memory {
		h, hv := &fakeHost{ref: api.NewRef[api.Host](), kind: hypervisor.Accelerated, memory: bytes}, hypervisor.NewFake()
		hosts, hvs = append(hosts, h), append(hvs, hv)
		others = append(others, vm.Site{Host: h, Hypervisor: hv})
	}
	return newStackWith(t, time.Minute, others...), hosts, hvs
}

// TestPlacement: the wanted host, else the VM's affinity, else most memory free.
func TestPlacement(t *testing.T) {
	s, hosts, hvs := newPool(t, 4<<30, 3<<30)
	where := func(ref string, want api.HostRef, hv *hypervisor.Fake) {
		t.Helper()
		r := s.record(ref)
		if r.ResidentOn != want || r.PowerState != api.VMPowerStateRunning || !r.ScheduledToBeResidentOn.IsNull() {
			t.Errorf("runs on %s, want %s (%s)", r.ResidentOn, want, r.PowerState)
		}
		if _, ok := hv.Spec(r.UUID); !ok {
			t.Error("the host has no such domain")
		}
	}
	first := s.makeVM("roomiest")
	s.Must(nil, "VM.start", first, false, false)
	where(first, hosts[0].ref, hvs[0])
	wanted := s.makeVM("wanted")
	s.Must(nil, "VM.start_on", wanted, s.host.ref, false, false)
	where(wanted, s.host.ref, s.hv)
	near := s.makeVM("near")
	s.Must(nil, "VM.set_affinity", near, hosts[1].ref)
	s.Must(nil, "VM.start", near, false, false)
	where(near, hosts[1].ref, hvs[1])
	s.Must(nil, "VM.clean_reboot", near)
	where(near, hosts[1].ref, hvs[1])
	s.Must(nil, "VM.pause", near)
	s.Must(nil, "VM.unpause", near)

	hosts[1].memory = 0 // no room where it would like to be
	far := s.makeVM("far")
	s.Must(nil, "VM.set_affinity", far, hosts[1].ref)
	s.Must(nil, "VM.start", far, false, false)
	where(far, hosts[0].ref, hvs[0])
	must(t, s.DB.Update(s.ctx, func(tx *db.Tx) error {
		h, err := db.Edit(tx, hosts[0].ref)
		h.Enabled = false
		return err
	}))
	other := s.makeVM("other")
	s.refused(api.CodeHostDisabled, []string{string(hosts[0].ref)}, "VM.start_on", other, hosts[0].ref, false, false)
	s.Must(nil, "VM.start", other, false, false)
	where(other, s.host.ref, s.hv)
	var possible []api.HostRef
	s.Must(&possible, "VM.get_possible_hosts", other)
	if len(possible) != 1 || possible[0] != s.host.ref { // one is disabled, one has no memory left
		t.Errorf("possible hosts %v", possible)
	}
}

// TestGuestEndsElsewhere: each host's events and domains count, and one that
// forgets a domain does not touch the others'.
func TestGuestEndsElsewhere(t *testing.T) {
	s, hosts, hvs := newPool(t, 2<<30, 2<<30)
	var refs []string
	for _, h := range hosts {
		ref := s.makeVM("x")
		s.Must(nil, "VM.start_on", ref, h.ref, false, false)
		refs = append(refs, ref)
	}
	hvs[0].End(s.uuid(refs[0]), hypervisor.ByGuest)
	s.state(refs[0], api.VMPowerStateHalted)
	hvs[1].Forget(s.uuid(refs[1]))
	hvs[1].Resync()
	s.state(refs[1], api.VMPowerStateHalted)
	s.Must(nil, "VM.start_on", refs[1], hosts[0].ref, false, false)
	s.Must(nil, "VM.clean_shutdown", refs[1])
	if all, _ := hvs[0].List(s.ctx); len(all) != 0 {
		t.Errorf("left %v", all)
	}
}
