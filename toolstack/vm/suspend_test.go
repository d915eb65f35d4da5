package vm_test

import (
	"errors"
	"slices"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/operation"
	"cairn/toolstack/wire/wiretest"
)

func TestSuspendAndResume(t *testing.T) {
	for _, method := range []string{"VM.resume", "VM.resume_on"} {
		t.Run(method, func(t *testing.T) {
			r := newRig(t)
			r.Covers("VM.suspend", method)
			ref := r.install("x")
			r.bring(ref, api.VMPowerStateRunning)
			before, _ := r.hv.Hardware(r.ctx, r.uuid(ref))
			started := r.metrics(ref).StartTime
			r.Must(nil, "VM.suspend", ref)
			v := r.record(ref)
			if v.PowerState != api.VMPowerStateSuspended || !v.ResidentOn.IsNull() || len(v.Consoles) != 0 || v.SuspendVDI.IsNull() || len(v.CurrentOperations) != 0 {
				t.Fatalf("suspended: %+v", v)
			}
			image := r.vdi(v.SuspendVDI)
			if image.Type != api.VDITypeSuspend || image.SR != r.sr || image.VirtualSize < v.MemoryStaticMax || image.SMConfig["made-for"] != "" {
				t.Errorf("image %+v", image)
			}
			if list, _ := r.hv.List(r.ctx); len(list) != 0 {
				t.Errorf("domains %v", list)
			}
			for _, vdi := range append(r.vdis(ref), v.SuspendVDI) {
				if r.vdi(vdi).SMConfig["host_"+string(r.host.ref)] != "" {
					t.Errorf("%s is still attached: %v", vdi, r.vdi(vdi).SMConfig)
				}
			}
			if !slices.Contains(v.AllowedOperations, api.VMOperationsResume) || slices.Contains(v.AllowedOperations, api.VMOperationsStart) {
				t.Errorf("allowed %v", v.AllowedOperations)
			}
			if method == "VM.resume" {
				r.Must(nil, method, ref, false, false)
			} else {
				r.Must(nil, method, ref, string(r.host.ref), false, false)
			}
			r.state(ref, api.VMPowerStateRunning)
			if v = r.record(ref); !v.SuspendVDI.IsNull() || v.ResidentOn != r.host.ref || len(v.CurrentOperations) != 0 || r.metrics(ref).StartTime != started {
				t.Errorf("resumed: %+v", v)
			}
			after, err := r.hv.Hardware(r.ctx, r.uuid(ref))
			if err != nil || len(after.Disks) != len(before.Disks) || len(after.NICs) != 1 || after.NICs[0].MAC != before.NICs[0].MAC {
				t.Errorf("hardware %+v, was %+v", after, before)
			}
			r.onlyDisks(2)
			r.Must(nil, "VM.clean_shutdown", ref)
		})
	}
}

// TestResumeWithoutDrivesOfOthers: a drive the domain never had does not stand in its
// way, whoever has the disk by now.
func TestResumeWithoutDrivesOfOthers(t *testing.T) {
	for _, method := range []string{"VM.suspend", "VM.checkpoint"} {
		t.Run(method, func(t *testing.T) {
			r := newRig(t)
			ref := r.install("x")
			r.bring(ref, api.VMPowerStateRunning)
			var second api.VBDRef
			r.Must(&second, "VBD.create", r.vbd(ref, r.vdis(ref)[0], "9", "Disk"))
			if method == "VM.checkpoint" {
				r.Must(nil, method, ref, "c")
			} else {
				r.Must(nil, method, ref)
				r.Must(nil, "VM.resume", ref, false, false)
			}
			r.state(ref, api.VMPowerStateRunning)
			if v := wiretest.Get(r.Server, second); v.CurrentlyAttached || len(v.CurrentOperations) != 0 {
				t.Errorf("the drive that was never plugged in: %+v", v)
			}
		})
	}
}

// TestNoMemoryOfForgetfulDisks: memory is not kept where a disk does not keep what was
// written to it since.
func TestNoMemoryOfForgetfulDisks(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	err := db.Modify(r.ctx, r.DB, r.vdis(ref)[0], func(_ *db.Tx, v *api.VDI) error { v.OnBoot = api.OnBootReset; return nil })
	if err != nil {
		t.Fatal(err)
	}
	r.bring(ref, api.VMPowerStateRunning)
	r.Refused(api.ErrVDIOnBootModeIncompatibleWithOperation(), "VM.suspend", ref)
	r.Refused(api.ErrVDIOnBootModeIncompatibleWithOperation(), "VM.checkpoint", ref, "c")
	r.state(ref, api.VMPowerStateRunning)
	if v := r.record(ref); len(v.CurrentOperations) != 0 || !v.SuspendVDI.IsNull() {
		t.Errorf("%+v", v)
	}
}

func TestResumePaused(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	r.bring(ref, api.VMPowerStateSuspended)
	r.Must(nil, "VM.resume", ref, true, false)
	r.state(ref, api.VMPowerStatePaused)
	r.Must(nil, "VM.unpause", ref)
	r.state(ref, api.VMPowerStateRunning)
	r.onlyDisks(2)
}

// TestWhereMemoryIsSaved: the VM's choice, then the host's, then the pool's.
func TestWhereMemoryIsSaved(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	r.bring(ref, api.VMPowerStateRunning)
	own, hosts := r.makeSR("/srv/own"), r.makeSR("/srv/host")
	set := func(vm, host, pool api.SRRef) {
		must(t, r.DB.Update(r.ctx, func(tx *db.Tx) error {
			v, err := db.Edit(tx, api.VMRef(ref))
			v.SuspendSR = vm
			must(t, err)
			h, err := db.Edit(tx, r.host.ref)
			h.SuspendImageSR = host
			must(t, err)
			p, err := db.Edit(tx, r.pool)
			p.SuspendImageSR = pool
			return err
		}))
	}
	for _, tt := range []struct{ vm, host, pool, want api.SRRef }{
		{own, hosts, r.sr, own}, {"", hosts, r.sr, hosts}, {"", "", r.sr, r.sr}, {"OpaqueRef:gone", hosts, "", hosts},
	} {
		set(tt.vm, tt.host, tt.pool)
		r.Must(nil, "VM.suspend", ref)
		if got := r.vdi(r.record(ref).SuspendVDI).SR; got != tt.want {
			t.Errorf("%+v: saved on %s", tt, got)
		}
		r.Must(nil, "VM.resume", ref, false, false)
	}
	set("", "", "")
	r.refused(api.CodeVMNoSuspendSR, []string{ref}, "VM.suspend", ref)
	r.refused(api.CodeVMNoSuspendSR, []string{ref}, "VM.checkpoint", ref, "c")
	set("", "", r.sr)
	must(t, r.DB.Update(r.ctx, func(tx *db.Tx) error {
		sr, err := db.Edit(tx, r.sr)
		sr.PhysicalUtilisation = sr.PhysicalSize - gib
		return err
	}))
	r.refused(api.CodeSRSuspendSpaceInsufficient, []string{string(r.sr)}, "VM.suspend", ref)
	r.state(ref, api.VMPowerStateRunning)
}

func TestStopOfASuspendedVM(t *testing.T) {
	for _, method := range []string{"VM.hard_shutdown", "VM.shutdown", "VM.power_state_reset", "VM.destroy"} {
		t.Run(method, func(t *testing.T) {
			r := newRig(t)
			ref := r.install("x")
			r.bring(ref, api.VMPowerStateSuspended)
			r.Must(nil, method, ref)
			r.onlyDisks(2) // the memory is given up
			if method == "VM.destroy" {
				return
			}
			if v := r.record(ref); v.PowerState != api.VMPowerStateHalted || !v.SuspendVDI.IsNull() {
				t.Errorf("%s: %s with %s", method, v.PowerState, v.SuspendVDI)
			}
			r.refused(api.CodeVMBadPowerState, nil, "VM.resume", ref, false, false)
			r.Must(nil, "VM.start", ref, false, false)
		})
	}
}

// TestMemoryIsNotTaken: while a VM or a snapshot names its memory, no call changes the
// disk that holds it.
func TestMemoryIsNotTaken(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	r.bring(ref, api.VMPowerStateSuspended)
	var snap string
	r.Must(&snap, "VM.checkpoint", ref, "checkpoint")
	other := r.install("y")
	go operation.NewKeeper(r.DB).Run(r.ctx)
	var images []api.VDIRef
	for _, of := range []string{ref, snap} {
		image := r.record(of).SuspendVDI
		images = append(images, image)
		v := r.vdi(image)
		r.Until("what is allowed is said", func() bool {
			return slices.Equal(r.vdi(image).AllowedOperations, []api.VDIOperations{
				api.VDIOperationsCopy, api.VDIOperationsUpdate, api.VDIOperationsListChangedBlocks,
			})
		})
		for op, args := range map[string][]any{
			"destroy": nil, "forget": nil, "resize": {v.VirtualSize * 2}, "resize_online": {v.VirtualSize * 2},
			"clone": {map[string]string{}}, "snapshot": {map[string]string{}}, "set_on_boot": {"reset"}, "set_read_only": {true},
		} {
			r.refused(api.CodeVDIInUse, []string{string(image), op}, "VDI."+op, append([]any{image}, args...)...)
		}
		r.refused(api.CodeVDIInUse, nil, "VDI.copy", r.vdis(other)[0], "", "", image)
		var vbd string
		r.Must(&vbd, "VBD.create", r.vbd(other, image, "7", "Disk"))
		r.refused(api.CodeVDIInUse, nil, "VM.start", other, false, false)
		r.Must(nil, "VBD.destroy", vbd)
		if after := r.vdi(image); after.Location != v.Location || after.VirtualSize != v.VirtualSize || after.OnBoot != v.OnBoot || after.ReadOnly {
			t.Errorf("the memory was changed: %+v", after)
		}
	}
	r.Must(nil, "VM.resume", ref, false, false)
	r.state(ref, api.VMPowerStateRunning)
	r.Must(nil, "VM.revert", snap)
	r.Must(nil, "VM.destroy", snap)
	images = append(images, r.record(ref).SuspendVDI)
	r.Must(nil, "VM.destroy", ref)
	for _, image := range images {
		r.Until("the memory is gone", func() bool { _, err := db.Get(r.DB.Snapshot(), image); return err != nil })
	}
}

// TestSuspendThatFails: the guest goes on.
func TestSuspendThatFails(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	r.bring(ref, api.VMPowerStateRunning)
	r.hv.FailNext("Save", errors.New("boom"))
	if _, err := r.Call("VM.suspend", ref); err == nil {
		t.Error("the suspend succeeds")
	}
	r.state(ref, api.VMPowerStateRunning)
	r.onlyDisks(2)
	if v := r.record(ref); !v.SuspendVDI.IsNull() || len(v.CurrentOperations) != 0 {
		t.Errorf("after a suspend that failed: %+v", v)
	}
	r.Must(nil, "VM.suspend", ref)
}

// TestResumeThatFails: the memory stays.
func TestResumeThatFails(t *testing.T) {
	for _, err := range []error{errors.New("boom"), hypervisor.ErrUnknownOutcome} {
		r := newRig(t)
		ref := r.install("x")
		r.bring(ref, api.VMPowerStateSuspended)
		image := r.record(ref).SuspendVDI
		r.hv.FailNext("Restore", err)
		if _, err := r.Call("VM.resume", ref, false, false); err == nil {
			t.Error("the resume succeeds")
		}
		if v := r.record(ref); v.PowerState != api.VMPowerStateSuspended || v.SuspendVDI != image || !v.ScheduledToBeResidentOn.IsNull() || len(v.CurrentOperations) != 0 {
			t.Errorf("after a resume that failed: %+v", v)
		}
		r.Until("let go of", func() bool { return len(wiretest.Get(r.Server, r.record(ref).VBDs[0]).CurrentOperations) == 0 })
		r.Must(nil, "VM.resume", ref, false, false)
		r.state(ref, api.VMPowerStateRunning)
		r.onlyDisks(2)
	}
}

func TestCheckpoint(t *testing.T) {
	for _, state := range []api.VMPowerState{api.VMPowerStateRunning, api.VMPowerStatePaused, api.VMPowerStateSuspended} {
		t.Run(string(state), func(t *testing.T) {
			r := newRig(t)
			r.Covers("VM.checkpoint")
			ref := r.install("x")
			r.bring(ref, state)
			var snap string
			r.Must(&snap, "VM.checkpoint", ref, "c")
			r.state(ref, state)
			v, s := r.record(ref), r.record(snap)
			if s.PowerState != api.VMPowerStateSuspended || s.SuspendVDI.IsNull() || !s.IsASnapshot || string(v.Parent) != snap ||
				s.SnapshotInfo["power-state-at-snapshot"] != string(state) || len(v.CurrentOperations) != 0 || v.SuspendVDI.IsNull() != (state != api.VMPowerStateSuspended) {
				t.Fatalf("checkpoint %+v of %+v", s, v)
			}
			if state == api.VMPowerStateRunning {
				r.guestWrites(ref, 0, 0, 77)
			}
			r.Must(nil, "VM.revert", snap)
			v = r.record(ref)
			if v.PowerState != api.VMPowerStateSuspended || v.SuspendVDI.IsNull() || v.SuspendVDI == s.SuspendVDI {
				t.Fatalf("reverted: %+v", v)
			}
			if got := r.read(r.vdis(ref)[0], 0); got != 10 {
				t.Errorf("the disk reads %d", got)
			}
			for _, vbd := range v.VBDs {
				if d := wiretest.Get(r.Server, vbd); d.CurrentlyAttached {
					t.Errorf("drive %+v", d)
				}
			}
			r.Must(nil, "VM.resume", ref, false, false)
			r.state(ref, api.VMPowerStateRunning)
			r.guestWrites(ref, 0, 0, 78)
			if got := r.read(r.vdis(snap)[0], 0); got != 10 {
				t.Errorf("the checkpoint's disk reads %d", got)
			}
			r.onlyDisks(5) // two, two of the checkpoint, and its memory
			r.Must(nil, "VM.revert", snap)
			r.Must(nil, "VM.resume", ref, false, false)
			r.Must(nil, "VM.hard_shutdown", ref)
			r.Must(nil, "VM.destroy", snap)
			r.onlyDisks(4) // its memory goes with it
		})
	}
}

// TestDisksAreWaitedFor: what somebody does with a disk meanwhile does not keep a VM
// from going on that is down for a moment.
func TestDisksAreWaitedFor(t *testing.T) {
	for method, args := range map[string][]any{"VM.checkpoint": {"c"}, "VM.hard_reboot": nil, "VM.clean_reboot": nil} {
		t.Run(method, func(t *testing.T) {
			r := newRig(t)
			ref := r.install("x")
			r.bring(ref, api.VMPowerStateRunning)
			busy := func(ops map[string]api.VDIOperations) {
				must(t, db.Modify(r.ctx, r.DB, r.vdis(ref)[0], func(_ *db.Tx, v *api.VDI) error { v.CurrentOperations = ops; return nil }))
			}
			busy(map[string]api.VDIOperations{"OpaqueRef:other": api.VDIOperationsSnapshot})
			done := make(chan error)
			go func() {
				_, err := r.Call(method, append([]any{ref}, args...)...)
				done <- err
			}()
			r.Until("down", func() bool { _, runs := r.hv.Spec(r.uuid(ref)); return !runs })
			busy(nil)
			if err := <-done; err != nil {
				t.Error(err)
			}
			r.state(ref, api.VMPowerStateRunning)
			if v := r.record(ref); len(v.CurrentOperations) != 0 || !v.ScheduledToBeResidentOn.IsNull() {
				t.Errorf("afterwards: %+v", v)
			}
		})
	}
}

// TestCheckpointThatFails: whatever fails, the VM goes on.
func TestCheckpointThatFails(t *testing.T) {
	for _, tt := range []struct {
		method, code string
	}{
		{"Save", api.CodeVMCheckpointSuspendFailed},
		{"Restore", api.CodeVMCheckpointResumeFailed},
	} {
		t.Run(tt.method, func(t *testing.T) {
			r := newRig(t)
			ref := r.install("x")
			r.bring(ref, api.VMPowerStateRunning)
			r.hv.FailNext(tt.method, errors.New("boom"))
			r.refused(tt.code, []string{ref}, "VM.checkpoint", ref, "c")
			r.state(ref, api.VMPowerStateRunning) // it is woken by the reconciler
			if v := r.record(ref); len(v.Snapshots) != 0 {
				t.Errorf("left: %+v", v)
			}
			r.onlyDisks(2)
		})
	}
	t.Run("disks", func(t *testing.T) {
		r := newRig(t)
		ref := r.install("x")
		r.bring(ref, api.VMPowerStateRunning)
		r.hostd.Fail(func(verb, _, name string) error {
			if verb == "create" && len(r.record(ref).SuspendVDI) > 0 {
				return errors.New("boom")
			}
			return nil
		})
		if _, err := r.Call("VM.checkpoint", ref, "c"); err == nil {
			t.Error("the checkpoint succeeds")
		}
		r.hostd.Fail(nil)
		r.state(ref, api.VMPowerStateRunning)
		r.onlyDisks(2)
	})
}
