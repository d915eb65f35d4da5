package storage_test

import (
	"errors"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

// A toolstack that dies while a domain moves from one layer to another leaves a
// guest that is stopped; the next one finds out where the domain is and lets it
// go on. When the domain has died as well, nothing is lost either.
func TestDeathWhileADomainMoves(t *testing.T) {
	for _, moment := range []string{"ready", "moved", "snapshot"} {
		for _, survives := range []bool{true, false} {
			t.Run(moment, func(t *testing.T) { deathAt(t, moment, survives) })
		}
	}
}

func deathAt(t *testing.T, moment string, survives bool) {
	r := newBusy(t)
	sr, ref, guest := r.sr, r.ref, r.guest
	if moment != "snapshot" {
		var s api.VDIRef
		r.Must(&s, "VDI.snapshot", ref, noMap)
		r.domains.write(guest, 1, 2)
		r.Must(nil, "VDI.destroy", s)
	}
	want := r.content(ref)
	r.domains.during = func(what string) error {
		if what == moment {
			r.Engine.Fail = func(db.Batch) error { return errDead }
			r.hostd.Fail(func(string, string, string) error { return errDead })
			return errDead
		}
		return nil
	}
	if moment == "snapshot" {
		if _, err := r.Call("VDI.snapshot", ref, noMap); err == nil {
			t.Error("it is said to have worked")
		}
	} else {
		r.m.Coalesce(t.Context(), sr)
	}
	if _, err := r.m.Attach(t.Context(), r.host, ref, true); err == nil {
		t.Error("a disk that moves was attached")
	}
	r.Engine.Fail = nil
	r.hostd.Fail(nil)
	r.domains.during = nil
	if !survives {
		r.domains.stop(guest)
	}
	r.restart()
	r.reads("the disk", ref, want)
	if survives {
		r.writes(5, 5)
		want[5] = 5
		r.reads("the disk", ref, want)
	}
	r.ends(want)
}

// A guest that somebody has paused stays so.
func TestMergeUnderAPausedGuest(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	vm, _ := r.vm(ref)
	var s api.VDIRef
	r.Must(&s, "VDI.snapshot", ref, noMap)
	r.Must(nil, "VDI.destroy", s)
	guest := wiretest.Get(r.Server, vm).UUID
	r.domains.during = func(what string) error {
		if what == "ready" && r.domains.pauses > 0 {
			return errors.New("the merge has stopped a guest that was paused")
		}
		return nil
	}
	r.domains.before = func() {
		if err := r.DB.Update(t.Context(), func(tx *db.Tx) error {
			v, err := db.Edit(tx, vm)
			v.PowerState = api.VMPowerStatePaused
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	r.coalesce(sr)
	if r.domains.pauses != 0 || r.domains.resumes != 0 || r.domains.all[guest] == nil {
		t.Errorf("paused %d times, resumed %d times", r.domains.pauses, r.domains.resumes)
	}
	r.sound(sr)
}
