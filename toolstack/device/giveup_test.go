package device_test

import (
	"errors"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/wire/wiretest"
)

// TestStartFailsAndSoDoesItsUndo: hostd is killed in the middle of a start. What the
// start had made ready and could not give back then is given back when hostd is there
// again.
func TestStartFailsAndSoDoesItsUndo(t *testing.T) {
	s := newStack(t)
	s.vbd(drive(s.vm, s.vdi(), "0"))
	s.vif("0")
	alive, beyond := make(chan bool), make(chan bool, 100)
	s.at.Before = func(step, _ string) error {
		select {
		case <-alive:
			if step == "unplug" { // which comes after the disk
				beyond <- true
			}
			return nil
		default:
		}
		if step == "attach" {
			return nil
		}
		return errors.New("hostd: EOF")
	}
	if _, err := s.Call("VM.start", s.vm.String(), false, false); err == nil {
		t.Fatal("started without hostd")
	}
	if len(s.at.Disks()) != 1 {
		t.Fatal("it was given back without hostd")
	}
	close(alive)
	select {
	case <-beyond:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody looks after what is left")
	}
	s.holds("hostd is back", nil, nil)
}

// TestPlugWithoutLibvirtd: libvirtd is killed before it has given a device, and for a
// moment cannot be asked whether it has. What nobody knows is not answered as done.
func TestPlugWithoutLibvirtd(t *testing.T) {
	s := newStack(t)
	disk := s.vdi()
	s.start()
	vbd, vif := s.vbd(drive(s.vm, disk, "1")), s.vif("1")
	for _, c := range []struct{ attach, method, ref string }{
		{"AttachDisk", "VBD.plug", vbd.String()}, {"AttachNIC", "VIF.plug", vif.String()},
	} {
		s.hv.FailNext(c.attach, hypervisor.ErrUnknownOutcome) // without effect
		s.hv.FailNext("Hardware", hypervisor.ErrUnknownOutcome)
		if _, err := s.Call(c.method, c.ref); err == nil {
			t.Errorf("%s is answered, and was not done", c.method)
		}
		s.agrees(c.method)
	}
	s.holds("nothing plugged", nil, nil)
}

// TestUnplugWhileQEMUEnds: QEMU ends in the middle of an unplug, and for a moment what is
// asked of it is answered in no known way. What the domain had it has not any more.
func TestUnplugWhileQEMUEnds(t *testing.T) {
	ending := errors.New("End of file from qemu monitor")
	s := newStack(t)
	vbd, vif := s.vbd(drive(s.vm, s.vdi(), "0")), s.vif("0")
	for _, c := range []struct{ detach, method, ref string }{
		{"DetachDisk", "VBD.unplug", vbd.String()}, {"DetachDisk", "VBD.unplug_force", vbd.String()},
		{"DetachNIC", "VIF.unplug", vif.String()}, {"DetachNIC", "VIF.unplug_force", vif.String()},
	} {
		s.start()
		for _, method := range []string{c.detach, "Settled", "Hardware"} {
			s.hv.FailNext(method, ending)
		}
		s.hv.Forget(wiretest.Get(s.Server, s.vm).UUID)
		s.Must(nil, c.method, c.ref)
		s.Must(nil, "VM.hard_shutdown", s.vm.String())
		s.holds(c.method, nil, nil)
	}
}

// TestUnplugIsRefusedByQEMU: what a domain that goes on did not give up it still has.
func TestUnplugIsRefusedByQEMU(t *testing.T) {
	s := newStack(t)
	vbd, vif := s.vbd(drive(s.vm, s.vdi(), "0")), s.vif("0")
	s.start()
	for _, c := range []struct{ detach, method, ref string }{
		{"DetachDisk", "VBD.unplug", vbd.String()}, {"DetachNIC", "VIF.unplug", vif.String()},
	} {
		s.hv.FailNext(c.detach, errors.New("no"))
		if _, err := s.Call(c.method, c.ref); err == nil {
			t.Errorf("%s is answered, and was not done", c.method)
		}
		s.agrees(c.method)
		s.hv.FailNext(c.detach, hypervisor.ErrBadState)
		s.Refused(api.ErrVMBadPowerState(s.vm.String(), "running", "halted"), c.method, c.ref)
		s.agrees(c.method)
	}
}

// TestPlugWhileQEMUEnds: a device for a domain that ends meanwhile is refused as for one
// that has ended.
func TestPlugWhileQEMUEnds(t *testing.T) {
	ending := errors.New("End of file from qemu monitor")
	s := newStack(t)
	disk := s.vdi()
	for _, c := range []struct{ attach, method, class string }{
		{"AttachDisk", "VBD.plug", "VBD"}, {"AttachNIC", "VIF.plug", "VIF"},
	} {
		s.start()
		var ref string
		if c.class == "VBD" {
			ref = s.vbd(drive(s.vm, disk, "1")).String()
		} else {
			ref = s.vif("1").String()
		}
		for _, method := range []string{c.attach, "Settled", "Hardware"} {
			s.hv.FailNext(method, ending)
		}
		s.hv.Forget(wiretest.Get(s.Server, s.vm).UUID)
		s.Refused(api.ErrVMBadPowerState(s.vm.String(), "running", "halted"), c.method, ref)
		s.holds(c.method, nil, nil)
		s.Must(nil, "VM.hard_shutdown", s.vm.String())
		s.Must(nil, c.class+".destroy", ref)
	}
}
