package storage_test

import (
	"context"
	"errors"
	"maps"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

// volumes counts what a repository has.
func (r *rig) volumes(sr api.SRRef) int {
	r.T.Helper()
	all, err := r.hostd.Volumes(r.T.Context(), wiretest.Get(r.Server, sr).UUID)
	if err != nil {
		r.T.Fatal(err)
	}
	return len(all)
}

func (r *rig) coalesce(sr api.SRRef) {
	r.T.Helper()
	if !r.m.Coalesce(r.T.Context(), sr) {
		r.T.Error("something is left to coalesce")
	}
}

// snapshots makes n snapshots of a disk, with a write of its own cluster after each.
func (r *rig) snapshots(ref api.VDIRef, n int) (all []api.VDIRef) {
	r.T.Helper()
	for i := range n {
		var s api.VDIRef
		r.Must(&s, "VDI.snapshot", ref, noMap)
		all = append(all, s)
		r.write(ref, int64(i), uint64(10+i))
	}
	return all
}

func TestMergeAll(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	taken := r.snapshots(ref, 5)
	keep := taken[2]
	kept := r.content(keep)
	want := r.content(ref)
	for _, s := range taken {
		if s != keep {
			r.Must(nil, "VDI.destroy", s)
		}
	}
	r.coalesce(sr)
	r.reads("the disk", ref, want)
	r.reads("the snapshot", keep, kept)
	if n := r.volumes(sr); n != 2 {
		t.Errorf("%d volumes are left, want those of the disk and of the snapshot", n)
	}
	r.sound(sr)
	r.Must(nil, "VDI.destroy", keep)
	r.coalesce(sr)
	r.reads("the disk", ref, want)
	if n := r.volumes(sr); n != 1 || r.vdi(ref).SMConfig["vhd-parent"] != "" {
		t.Errorf("%d volumes are left, want one", n)
	}
	r.sound(sr)
	if d := r.vdi(ref); d.PhysicalUtilisation != wiretest.Get(r.Server, sr).PhysicalUtilisation {
		t.Errorf("the only disk takes %d bytes of %d", d.PhysicalUtilisation, wiretest.Get(r.Server, sr).PhysicalUtilisation)
	}
}

// Clones share a layer as long as there are two of them.
func TestMergeAfterClones(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	r.write(ref, 0, 1)
	var c, c2 api.VDIRef
	r.Must(&c, "VDI.clone", ref, noMap)
	r.Must(&c2, "VDI.clone", c, noMap)
	r.write(c, 1, 2)
	r.write(c2, 2, 3)
	before := r.volumes(sr)
	r.coalesce(sr)
	if n := r.volumes(sr); n != before {
		t.Errorf("%d volumes, want %d: all are needed", n, before)
	}
	r.Must(nil, "VDI.destroy", ref)
	r.coalesce(sr)
	r.reads("a clone", c, map[int64]uint64{0: 1, 1: 2})
	r.reads("the other", c2, map[int64]uint64{0: 1, 2: 3})
	if n := r.volumes(sr); n != 3 {
		t.Errorf("%d volumes, want the two clones' and the shared one", n)
	}
	r.Must(nil, "VDI.destroy", c)
	r.Must(nil, "VDI.destroy", c2)
	r.coalesce(sr)
	if n := r.volumes(sr); n != 0 {
		t.Errorf("%d volumes are left of nothing", n)
	}
	r.sound(sr)
}

// A disk that is larger than the layer below keeps its size and its end.
func TestMergeOfGrownDisk(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", mib)
	s := r.snapshots(ref, 1)[0]
	r.Must(nil, "VDI.resize", ref, 4*mib)
	r.write(ref, 60, 60)
	want := r.content(ref)
	r.Must(nil, "VDI.destroy", s)
	r.coalesce(sr)
	r.reads("the disk", ref, want)
	if d := r.vdi(ref); d.VirtualSize != 4*mib {
		t.Errorf("size %d", d.VirtualSize)
	}
	r.sound(sr)
}

func TestLiveSnapshotAndMerge(t *testing.T) {
	r := newBusy(t)
	sr, ref := r.sr, r.ref
	var s, s2 api.VDIRef
	r.Must(&s, "VDI.snapshot", ref, noMap)
	r.writes(0, 2)
	r.Must(&s2, "VDI.snapshot", ref, noMap)
	r.writes(1, 3)
	r.reads("the snapshot", s, map[int64]uint64{0: 1})
	r.reads("the second", s2, map[int64]uint64{0: 2})
	r.Must(nil, "VDI.destroy", s)
	r.Must(nil, "VDI.destroy", s2)
	written := false
	r.domains.during = func(what string) error {
		if what == "ready" && !written {
			written = true
			if g := r.domains.all[r.guest]; !g.paused {
				t.Error("the guest may write while its disk moves")
			}
		}
		return nil
	}
	r.coalesce(sr)
	r.reads("the disk", ref, map[int64]uint64{0: 2, 1: 3})
	if n := r.volumes(sr); n != 1 || r.domains.pauses == 0 {
		t.Errorf("%d volumes, want one; paused %d times", n, r.domains.pauses)
	}
	r.writes(2, 4) // it goes on
	r.reads("the disk", ref, map[int64]uint64{0: 2, 1: 3, 2: 4})
	r.sound(sr)
	r.halt(r.vm, r.vbd)
	r.Must(nil, "PBD.unplug", wiretest.Get(r.Server, sr).PBDs[0])
}

// An answer of the hypervisor that was lost is settled by looking, whichever way
// it went, and whether or not the domain lives on.
func TestLostAnswers(t *testing.T) {
	for _, moment := range []string{"snapshot", "ready", "moved"} {
		for _, dies := range []bool{false, true} {
			t.Run(moment, func(t *testing.T) {
				r := newRig(t)
				sr := r.sr("ext", "/dev/sdb")
				ref := r.disk(sr, "root", 8*mib)
				r.write(ref, 0, 1)
				vm, vbd := r.vm(ref)
				guest := wiretest.Get(r.Server, vm).UUID
				var s api.VDIRef
				if moment != "snapshot" {
					r.Must(&s, "VDI.snapshot", ref, noMap)
					r.domains.write(guest, 1, 2)
					r.Must(nil, "VDI.destroy", s)
				}
				want := r.content(ref)
				r.domains.during = func(what string) error {
					if what != moment {
						return nil
					}
					if dies {
						delete(r.domains.all, guest)
					}
					return errors.New("the answer was lost")
				}
				if moment == "snapshot" {
					if _, err := r.Call("VDI.snapshot", ref, noMap); err == nil {
						t.Error("it is said to have worked")
					}
				} else {
					r.m.Coalesce(t.Context(), sr)
				}
				r.domains.during = nil
				r.reads("the disk", ref, want)
				if !dies {
					if err := r.domains.write(guest, 3, 4); err != nil {
						t.Fatal(err)
					}
					want[3] = 4
				}
				r.reads("the disk after it", ref, want)
				r.halt(vm, vbd)
				r.coalesce(sr)
				r.reads("the disk in the end", ref, want)
				r.sound(sr)
				if n := r.volumes(sr); n != 1 {
					t.Errorf("%d volumes, want one", n)
				}
			})
		}
	}
}

// TestMergeLeftBehind: a merge that a former process began, and that the disk's snapshots
// forbid by now, is forgotten: its mark would keep the layers beside it apart for ever.
func TestMergeLeftBehind(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	s := r.snapshots(ref, 1)[0]
	want := r.content(ref)
	if err := db.Modify(t.Context(), r.DB, ref, func(_ *db.Tx, v *api.VDI) error {
		v.SMConfig = maps.Clone(v.SMConfig)
		v.SMConfig["cairn:coalesce"] = "leaf"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r.restart()
	if key := r.vdi(ref).SMConfig["cairn:coalesce"]; key != "" {
		t.Errorf("the step is still recorded: %s", key)
	}
	r.reads("the disk", ref, want)
	r.Must(nil, "VDI.destroy", s)
	r.coalesce(sr)
	r.reads("the disk, merged", ref, want)
	if n := r.volumes(sr); n != 1 {
		t.Errorf("%d volumes, want one", n)
	}
}

// Operations do not wait for a merge to end, and none begins beside them.
func TestMergeGivesWay(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	s := r.snapshots(ref, 1)[0]
	r.write(ref, 9, 9)
	r.Must(nil, "VDI.destroy", s)
	want := r.content(ref)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.hostd.Fail(func(verb, _, _ string) error {
		if verb == "commit-cluster" {
			cancel() // what an operation does to the merge that is in its way
		}
		return nil
	})
	r.m.Coalesce(ctx, sr)
	r.hostd.Fail(nil)
	if key := r.vdi(ref).SMConfig["cairn:coalesce"]; key != "" {
		t.Errorf("the step is still recorded: %s", key)
	}
	if _, err := r.m.Attach(t.Context(), r.host, ref, true); err != nil {
		t.Fatal(err)
	}
	r.reads("the disk", ref, want)
	r.m.Coalesce(t.Context(), sr)
	r.reads("the disk, in use", ref, want)
	if err := r.m.Detach(t.Context(), r.host, ref); err != nil {
		t.Fatal(err)
	}
	r.coalesce(sr)
	r.reads("the disk in the end", ref, want)
	r.sound(sr)
}

// What a client hides is not for the toolstack to remove.
func TestHiddenByAClient(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", mib)
	r.write(ref, 0, 1)
	r.Must(nil, "VDI.set_managed", ref, false)
	r.coalesce(sr)
	r.reads("the disk", ref, map[int64]uint64{0: 1})
}

func TestRunMerges(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", mib)
	s := r.snapshots(ref, 1)[0]
	r.run()
	r.Must(nil, "VDI.destroy", s)
	r.Until("the layers are merged", func() bool { return r.vdi(ref).SMConfig["vhd-parent"] == "" })
	r.Until("all is cleaned up", func() bool {
		n := 0
		for range db.All[api.VDI](r.DB.Snapshot()) {
			n++
		}
		return n == 1
	})
	tasks := 0
	for _, task := range db.All[api.Task](r.DB.Snapshot()) {
		if task.Status == api.TaskStatusTypeSuccess {
			tasks++
		}
	}
	if tasks == 0 {
		t.Error("no task has shown it")
	}
}
