package device_test

import (
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/wire/wiretest"
)

// A caller hangs up while a disk is being plugged: it is not given back, and nobody
// else gets it, when the domain has it in the end.
func TestPlugThatWasGivenUp(t *testing.T) {
	s := newStack(t)
	disk := s.vdi()
	s.start()
	vbd := s.vbd(drive(s.vm, disk, "1"))
	s.hv.AnswerLate("AttachDisk")
	s.Must(nil, "VBD.plug", vbd.String())
	s.agrees("plugged late")
	s.holds("plugged late", []api.VDIRef{disk}, nil)
}

// A start finds a domain of its machine, as of a start that was given up: the disks
// are that one's until it is certain that it is gone.
func TestADomainIsThereAlready(t *testing.T) {
	s := newStack(t)
	s.vbd(drive(s.vm, s.vdi(), "0"))
	s.at.Before = func(step, _ string) error {
		if step == "detach" && len(wiretest.Get(s.Server, s.vm).CurrentOperations) > 0 {
			t.Error("the disk was taken from a domain that may be there")
		}
		return nil
	}
	s.hv.FailNext("Start", hypervisor.ErrExists)
	if _, err := s.Call("VM.start", s.vm.String(), false, false); err == nil {
		t.Error("started")
	}
	s.Until("the disk is let go of", func() bool { return len(s.at.Disks()) == 0 })
}
