package device_test

import (
	"errors"
	"testing"
	"time"
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
