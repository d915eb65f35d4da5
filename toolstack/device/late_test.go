package device_test

import (
	"testing"

	"cairn/toolstack/api"
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
