package vm_test

import (
	"errors"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/wire/wiretest"
)

// TestLateDomain: nobody knows what became of a start, its domain is not there
// when it is undone, and appears then.
func TestLateDomain(t *testing.T) {
	for _, destroyed := range []bool{false, true} {
		s := newStack(t)
		ref := s.makeVM("x")
		s.Must(nil, "VM.start", ref, false, false)
		spec, _ := s.hv.Spec(s.uuid(ref))
		s.Must(nil, "VM.hard_shutdown", ref)
		s.state(ref, api.VMPowerStateHalted)

		s.hv.FailNext("Start", hypervisor.ErrUnknownOutcome)
		s.refused(api.CodeInternalError, nil, "VM.start", ref, false, false)
		if destroyed {
			s.Must(nil, "VM.destroy", ref)
		}
		events, cancel := s.hv.Subscribe()
		must(t, s.hv.Start(s.ctx, spec, true))
		for e := range events {
			if e.Kind == hypervisor.Stopped {
				break
			}
		}
		cancel()
		if _, runs := s.hv.Spec(spec.UUID); runs {
			t.Error("a domain is left")
		}
		if destroyed {
			continue
		}
		s.Must(nil, "VM.start", ref, false, false) // a start that succeeds is not undone
		s.state(ref, api.VMPowerStateRunning)
	}
}

// TestEndIsRecordedLater: the database refuses the end of a start; the VM is not
// locked for good.
func TestEndIsRecordedLater(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	refused := false
	s.Engine.Fail = func(b db.Batch) error {
		for _, p := range b.Puts {
			if !refused && strings.Contains(string(p.Value), `"Running"`) {
				refused = true
				return errors.New("no quorum")
			}
		}
		return nil
	}
	s.refused(api.CodeInternalError, nil, "VM.start", ref, false, false)
	s.Until("no operation left", func() bool { return len(s.record(ref).CurrentOperations) == 0 })
	s.state(ref, api.VMPowerStateRunning)
}

// TestDiskOfNobodyIsLetGo: hostd is dead when a disk has to be let go of, and its
// drive, or the whole machine, is gone before hostd is back.
func TestDiskOfNobodyIsLetGo(t *testing.T) {
	for what, lose := range map[string]func(r *rig, ref string, disk api.VDIRef){
		"a start that failed": func(r *rig, ref string, _ api.VDIRef) {
			r.hostd.Fail(noHostd)
			if _, err := r.Call("VM.start", ref, false, false); err == nil {
				r.T.Error("started without hostd")
			}
			r.Must(nil, "VM.destroy", ref)
		},
		"an unplug": func(r *rig, ref string, disk api.VDIRef) {
			r.bring(ref, api.VMPowerStateRunning)
			r.hostd.Fail(noHostd)
			vbd := r.vdi(disk).VBDs[0]
			r.Must(nil, "VBD.unplug_force", vbd)
			r.Must(nil, "VBD.destroy", vbd)
		},
		"a guest that gives it up by itself": func(r *rig, ref string, disk api.VDIRef) {
			r.bring(ref, api.VMPowerStateRunning)
			r.hostd.Fail(noHostd)
			vbd := r.vdi(disk).VBDs[0]
			drive := wiretest.Get(r.Server, vbd)
			if err := r.hv.DetachDisk(r.ctx, r.uuid(ref), drive.UUID); err != nil {
				r.T.Fatal(err)
			}
			r.Until("the drive is seen to be gone", func() bool { return !wiretest.Get(r.Server, vbd).CurrentlyAttached })
			r.Must(nil, "VBD.destroy", vbd)
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			ref := r.install("x")
			disk := r.vdis(ref)[0]
			lose(r, ref, disk)
			r.refused(api.CodeVDIInUse, nil, "VDI.destroy", disk)
			r.hostd.Fail(nil)
			r.Until("the disk is let go of", func() bool { return r.vdi(disk).SMConfig["host_"+string(r.host.ref)] == "" })
			r.Must(nil, "VDI.destroy", disk)
		})
	}
}

func noHostd(string, string, string) error { return errors.New("hostd: connection refused") }
