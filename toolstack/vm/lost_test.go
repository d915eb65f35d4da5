package vm_test

import (
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

// TestHardShutdownAsksAgain: libvirtd is killed before it has ended the domain. That is
// a pause for who wants the domain ended, and no error.
func TestHardShutdownAsksAgain(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, false, false)
	s.hv.FailNext("Destroy", hypervisor.ErrUnknownOutcome) // without effect
	s.Must(nil, "VM.hard_shutdown", ref)
	s.state(ref, api.VMPowerStateHalted)
}
