package vm_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
	"cairn/toolstack/wire/wiretest"
)

// insertCD puts an image into a VM's CD drive.
func (r *rig) insertCD(ref string) api.VDIRef {
	r.T.Helper()
	image, err := r.disks.Create(r.ctx, storage.CreateSpec{SR: r.sr, Size: 1 << 20, Name: "cd.iso"})
	must(r.T, err)
	must(r.T, r.DB.Update(r.ctx, func(tx *db.Tx) error {
		for vbd, v := range db.All[api.VBD](tx) {
			if string(v.VM) != ref || v.Type != api.VBDTypeCD {
				continue
			}
			e, err := db.Edit(tx, vbd)
			e.VDI, e.Empty = image, false
			return err
		}
		return errors.New("no drive")
	}))
	return image
}

func TestCloneAndCopyWithDisks(t *testing.T) {
	for _, method := range []string{"VM.clone", "VM.copy"} {
		t.Run(method, func(t *testing.T) {
			r := newRig(t)
			r.Covers(method)
			ref := r.install("first")
			cd := r.insertCD(ref)
			other := r.makeSR("/srv/two")
			var made string
			if method == "VM.clone" {
				r.Must(&made, method, ref, "second")
			} else {
				r.Must(&made, method, ref, "second", other)
			}
			before, after := r.record(ref), r.record(made)
			if after.NameLabel != "second" || len(after.VBDs) != 3 || len(after.VIFs) != 1 || len(after.CurrentOperations)+len(before.CurrentOperations) != 0 ||
				after.OtherConfig["mac_seed"] == before.OtherConfig["mac_seed"] || after.OtherConfig["mac_seed"] == "" {
				t.Errorf("made %+v", after)
			}
			disks := r.vdis(made)
			for i, vdi := range r.vdis(ref) {
				if vdi == disks[i] || r.read(disks[i], 0) != uint64(10+i) || r.vdi(disks[i]).SMConfig["made-for"] != "" {
					t.Errorf("disk %d: %+v reads %d", i, r.vdi(disks[i]), r.read(disks[i], 0))
				}
				if on := r.vdi(disks[i]).SR; (on == other) != (method == "VM.copy") {
					t.Errorf("disk %d is on %s", i, on)
				}
				r.write(vdi, 0, 77)
				r.write(disks[i], 1, 78)
				if r.read(disks[i], 0) == 77 || r.read(vdi, 1) == 78 {
					t.Errorf("disk %d and its copy are not apart", i)
				}
			}
			if !slices.ContainsFunc(after.VBDs, func(v api.VBDRef) bool { return wiretest.Get(r.Server, v).VDI == cd }) {
				t.Error("the CD is not in the new drive")
			}
			if a, b := wiretest.Get(r.Server, before.VIFs[0]), wiretest.Get(r.Server, after.VIFs[0]); a.MAC == b.MAC || b.MAC == "" || a.Network != b.Network {
				t.Errorf("NICs %s and %s", a.MAC, b.MAC)
			}
			r.Must(nil, "VM.start", ref, false, false)
			r.Must(nil, "VM.start", made, false, false)
		})
	}
}

// TestCopyThatFailsLeavesNothing: nor does one that is cancelled.
func TestCopyThatFailsLeavesNothing(t *testing.T) {
	r := newRig(t)
	ref := r.install("first")
	n := 0
	r.hostd.Fail(func(verb, _, _ string) error {
		if verb == "copy" {
			if n++; n == 2 {
				return errors.New("boom")
			}
		}
		return nil
	})
	if _, err := r.Call("VM.copy", ref, "second", api.NullRef); err == nil {
		t.Error("a copy of which one disk cannot be read succeeds")
	}
	r.hostd.Fail(nil)
	r.onlyDisks(2)
	if v := r.record(ref); len(v.CurrentOperations) != 0 {
		t.Errorf("the original is left with %v", v.CurrentOperations)
	}
	r.refused(api.CodeHandleInvalid, []string{"SR", "OpaqueRef:x"}, "VM.copy", ref, "second", "OpaqueRef:x")
}

func TestDestroyLeavesDisks(t *testing.T) {
	r := newRig(t)
	r.Covers("VM.destroy")
	ref := r.install("x")
	v := r.record(ref)
	r.Must(nil, "VM.destroy", ref)
	for _, vbd := range v.VBDs {
		r.refused(api.CodeHandleInvalid, nil, "VBD.get_record", string(vbd))
	}
	r.refused(api.CodeHandleInvalid, nil, "VIF.get_record", string(v.VIFs[0]))
	r.onlyDisks(2)
}

func TestSetIsATemplate(t *testing.T) {
	r := newRig(t)
	r.Covers("VM.set_is_a_template")
	ref := r.install("x")
	r.Must(nil, "VM.start", ref, false, false)
	r.refused(api.CodeVMBadPowerState, []string{ref, "halted", "running"}, "VM.set_is_a_template", ref, true)
	r.Must(nil, "VM.hard_shutdown", ref)
	r.Must(nil, "VM.set_ha_restart_priority", ref, "restart")
	r.Must(nil, "VM.set_is_a_template", ref, true)
	v := r.record(ref)
	if !v.IsATemplate || v.HARestartPriority != "" || slices.Contains(v.AllowedOperations, api.VMOperationsStart) || !slices.Contains(v.AllowedOperations, api.VMOperationsProvision) {
		t.Errorf("a template: %+v", v)
	}
	r.refused(api.CodeVMIsTemplate, nil, "VM.start", ref, false, false)
	r.Must(nil, "VM.set_is_a_template", ref, false)
	r.Must(nil, "VM.start", ref, false, false)
	all := r.templates()
	r.refused(api.CodeVMIsTemplate, []string{all["rhel-9"]}, "VM.set_is_a_template", all["rhel-9"], false)
}

// TestManyClonesAtOnce: the disks of one VM are cloned one after another.
func TestManyClonesAtOnce(t *testing.T) {
	r := newRig(t)
	ref := r.install("first")
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() { _, err := r.Call("VM.clone", ref, "clone"); errs <- err }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for _, made := range db.ByName[api.VM](r.DB.Snapshot(), "clone") {
		if got := r.read(r.vdis(string(made))[1], 0); got != 11 {
			t.Errorf("a clone reads %d", got)
		}
	}
	r.onlyDisks(2 + 2*cap(errs))
}

func TestCancelOfACopy(t *testing.T) {
	r := newRig(t)
	ref := r.install("first")
	begun, cancelled := make(chan bool), make(chan bool)
	var once sync.Once
	r.hostd.Fail(func(verb, _, _ string) (err error) {
		if verb == "copy" {
			once.Do(func() {
				close(begun)
				<-cancelled
				err = context.Canceled
			})
		}
		return err
	})
	var task string
	r.Must(&task, "Async.VM.copy", ref, "second", api.NullRef)
	<-begun
	r.Must(nil, "task.cancel", task)
	close(cancelled)
	r.Until("cancelled", func() bool { return len(r.record(ref).CurrentOperations) == 0 })
	r.onlyDisks(2)
	var status string
	r.Until("told", func() bool { r.Must(&status, "task.get_status", task); return status == "cancelled" })
	if made := db.ByName[api.VM](r.DB.Snapshot(), "second"); len(made) != 0 {
		t.Errorf("a cancelled copy made %v", made)
	}
}
