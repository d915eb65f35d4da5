package host_test

import (
	"slices"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/wire/wiretest"
)

// TestLogsOfGuestsGone: logs stay as long as there is a VM, or a domain without one.
func TestLogsOfGuestsGone(t *testing.T) {
	s := newStack(t)
	vm, stray, gone := api.NewVM(), api.NewUUID(), api.NewUUID()
	vm.UUID = api.NewUUID()
	wiretest.Insert(s.Server, vm)
	spec := hypervisor.Spec{
		UUID: stray, Kind: hypervisor.Accelerated, Machine: hypervisor.DefaultMachine, MemoryBytes: 64 << 20, VCPUs: 1, VCPUsMax: 1,
		Boot: hypervisor.DirectBoot{Kernel: "/kernel", Initrd: "/initrd"},
	}
	if err := s.hv.Start(t.Context(), spec, false); err != nil {
		t.Fatal(err)
	}
	s.hostd.Set(func(h *hosttest.Hostd) { h.OfGuests = []string{vm.UUID, stray, gone} })
	if err := s.m.SweepLogs(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, _ := s.hostd.GuestLogs(t.Context()); !slices.Equal(left, []string{vm.UUID, stray}) {
		t.Errorf("logs of %v are left, of VM %s, domain %s and %s", left, vm.UUID, stray, gone)
	}
}
