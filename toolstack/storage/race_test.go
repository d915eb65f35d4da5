package storage_test

import (
	"context"
	"maps"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/storage"
	"cairn/toolstack/wire/wiretest"
)

// edit changes a row behind everybody's back.
func edit[T any, P api.RecordPtr[T]](r *rig, ref api.Ref[T], change func(*T)) {
	r.T.Helper()
	err := db.Modify[T, P](r.T.Context(), r.DB, ref, func(_ *db.Tx, v *T) error { change(v); return nil })
	if err != nil {
		r.T.Fatal(err)
	}
}

// Whoever has decided which layer a domain will open must find it to be the top one
// still when the domain opens it.
func TestADiskStaysWhileADomainIsMade(t *testing.T) {
	r := newBusy(t)
	ref, vbd := r.ref, r.vbd
	for _, op := range []api.VBDOperations{api.VBDOperationsAttach, api.VBDOperationsPlug, api.VBDOperationsInsert} {
		edit(r.rig, vbd, func(v *api.VBD) { v.CurrentOperations = map[string]api.VBDOperations{"task": op} })
		was := r.vdi(ref).Location
		busy := api.ErrOtherOperationInProgress("VBD", vbd.String(), string(op), "task")
		r.Refused(busy, "VDI.snapshot", ref, noMap)
		r.Refused(busy, "VDI.clone", ref, noMap)
		r.Refused(busy, "VDI.resize_online", ref, 16*mib)
		r.Refused(api.ErrVDIInUse(ref.String(), "set_on_boot"), "VDI.set_on_boot", ref, api.OnBootReset)
		if r.vdi(ref).Location != was {
			t.Error("the disk has moved")
		}
	}
	r.sound(r.sr)
}

// A disk that a domain writes to does not move unless that domain is told, and only
// one domain can be.
func TestADiskDoesNotMoveUnderItsWriter(t *testing.T) {
	r := newBusy(t)
	ref := r.ref
	was, inUse := r.vdi(ref).Location, api.ErrVDIInUse(ref.String(), "snapshot")
	refused := func(live storage.Live) {
		t.Helper()
		if _, err := r.m.Snapshot(t.Context(), []api.VDIRef{ref}, live); err == nil || err.Error() != inUse.Error() {
			t.Errorf("%v, want %v", err, inUse)
		}
		if r.vdi(ref).Location != was {
			t.Error("the disk has moved")
		}
	}
	refused(nil) // the machine that is snapshotted is halted; another has the disk
	// Two have it, of which one is told.
	second := wiretest.Insert(r.Server, &api.VM{UUID: api.NewUUID(), PowerState: api.VMPowerStateRunning, ResidentOn: r.host})
	wiretest.Insert(r.Server, &api.VBD{UUID: api.NewUUID(), VM: second, VDI: ref, Type: api.VBDTypeDisk, Mode: api.VBDModeRW, CurrentlyAttached: true})
	refused(func(context.Context, map[api.VDIRef]hypervisor.Source) error { return nil })
	r.sound(r.sr)
}

// What a disk is may not change between a start that has attached it and the moment
// in which its drive is said to be attached.
func TestAttachedDisksKeepTheirNature(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	if _, err := r.m.Attach(t.Context(), r.host, ref, true); err != nil {
		t.Fatal(err)
	}
	r.Refused(api.ErrVDIInUse(ref.String(), "set_on_boot"), "VDI.set_on_boot", ref, api.OnBootReset)
	r.Refused(api.ErrVDIInUse(ref.String(), "set_sharable"), "VDI.set_sharable", ref, true)
	r.Refused(api.ErrVDIInUse(ref.String(), "set_read_only"), "VDI.set_read_only", ref, true)
	r.Refused(api.ErrVDIInUse(ref.String(), "copy"), "VDI.copy", ref, sr, "", "")
	edit(r, ref, func(v *api.VDI) {
		v.SMConfig = maps.Clone(v.SMConfig)
		delete(v.SMConfig, "host_"+string(r.host))
		v.CurrentOperations = map[string]api.VDIOperations{"task": api.VDIOperationsSnapshot}
	})
	r.Refused(api.ErrOtherOperationInProgress("VDI", ref.String(), "snapshot", "task"), "VDI.set_on_boot", ref, api.OnBootReset)
}

// A guest that ends between the snapshot of its domain and the transaction has its
// disk detached, which settles where the disk is: once.
func TestAGuestEndsDuringItsSnapshot(t *testing.T) {
	for _, method := range []string{"VDI.snapshot", "VDI.clone"} {
		t.Run(method, func(t *testing.T) {
			r := newBusy(t)
			r.domains.after = func() {
				r.domains.after = nil
				r.writes(1, 2)
				r.domains.stop(r.guest)
				r.halt(r.vm, r.vbd)
			}
			if _, err := r.Call(method, r.ref, noMap); err == nil {
				t.Error("it is said to be done")
			}
			r.reads("the disk", r.ref, map[int64]uint64{0: 1, 1: 2})
			r.merges(map[int64]uint64{0: 1, 1: 2})
		})
	}
}

// A guest that ends before its domain is switched writes nothing any more: the disk is
// kept as it left it.
func TestAGuestEndsBeforeItsSnapshot(t *testing.T) {
	for _, method := range []string{"VDI.snapshot", "VDI.clone"} {
		t.Run(method, func(t *testing.T) {
			r := newBusy(t)
			r.writes(0, 3)
			r.domains.stop(r.guest) // and nobody has recorded it
			var made api.VDIRef
			r.Must(&made, method, r.ref, noMap)
			r.halt(r.vm, r.vbd)
			r.reads("what was made", made, map[int64]uint64{0: 3})
			r.reads("the disk", r.ref, map[int64]uint64{0: 3})
			r.sound(r.sr)
		})
	}
}

// The caller of a snapshot hangs up while the domain is being switched: its new layer
// is not taken away before it is certain that the domain does not come to write to it.
func TestASwitchThatWasGivenUp(t *testing.T) {
	r := newBusy(t)
	r.domains.late = true
	if _, err := r.Call("VDI.snapshot", r.ref, noMap); err == nil {
		t.Error("it is said to be done")
	}
	if err := r.domains.Settled(t.Context(), r.guest); err != nil {
		t.Fatal(err)
	}
	r.writes(1, 2)
	r.reads("the disk", r.ref, map[int64]uint64{0: 1, 1: 2})
	r.ends(map[int64]uint64{0: 1, 1: 2})
}
