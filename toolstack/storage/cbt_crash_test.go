package storage_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
)

// moment is a snapshot, or a disk as it is: the one after all snapshots of its set.
type moment struct {
	set     *set
	index   int
	content map[int64]uint64
}

// set is what was written to a disk while its changes were known: between its
// snapshots, and since the last one.
type set struct {
	wrote []map[int64]bool
	open  map[int64]bool
}

// diary is a life of disks whose changes are tracked.
type diary struct {
	*life
	moments map[api.VDIRef]moment // snapshots, those without bytes too
	sets    map[api.VDIRef]*set   // of disks; nil before the first snapshot
}

func (d diary) row(ref api.VDIRef) *api.VDI {
	d.t.Helper()
	v, err := db.Get(d.db.Snapshot(), ref)
	if err != nil {
		d.t.Fatal(err)
	}
	return v
}

// taken enters a snapshot that is there now.
func (d diary) taken(disk, snapshot api.VDIRef) {
	d.moments[snapshot] = moment{content: d.read(snapshot)}
	if !d.row(snapshot).CBTEnabled {
		return
	}
	s := d.sets[disk]
	if s == nil {
		s = &set{}
		d.sets[disk] = s
	}
	s.wrote, s.open = append(s.wrote, s.open), map[int64]bool{}
	d.moments[snapshot] = moment{s, len(s.wrote) - 1, d.read(snapshot)}
}

// learn looks at what is there after a step that may not have come to its end.
func (d diary) learn() {
	there := map[api.VDIRef]bool{}
	for ref, v := range db.All[api.VDI](d.db.Snapshot()) {
		if !v.Managed {
			continue
		}
		there[ref] = true
		_, known := d.moments[ref]
		switch {
		case v.IsASnapshot && !known:
			d.taken(v.SnapshotOf, ref)
		case !v.IsASnapshot && !v.CBTEnabled:
			delete(d.sets, ref)
		}
	}
	maps.DeleteFunc(d.moments, func(ref api.VDIRef, _ moment) bool { return !there[ref] })
	maps.DeleteFunc(d.sets, func(ref api.VDIRef, _ *set) bool { return !there[ref] })
}

// forget drops the operations of a process that is no more, as every start does.
func (d diary) forget() {
	d.t.Helper()
	for ref := range db.All[api.VDI](d.db.Snapshot()) {
		err := db.Modify(context.Background(), d.db, ref, func(_ *db.Tx, v *api.VDI) error {
			v.CurrentOperations = nil
			return nil
		})
		if err != nil {
			d.t.Fatal(err)
		}
	}
}

func pick[K ~string, V any](d diary, all map[K]V) (key K, ok bool) {
	keys := slices.Sorted(maps.Keys(all))
	if len(keys) == 0 {
		return "", false
	}
	return keys[d.random.IntN(len(keys))], true
}

// disks are rows that are written to.
func (d diary) disks() map[api.VDIRef]bool {
	all := map[api.VDIRef]bool{}
	for ref, v := range db.All[api.VDI](d.db.Snapshot()) {
		if v.Managed && !v.IsASnapshot {
			all[ref] = true
		}
	}
	return all
}

// act does something at random.
func (d diary) act() error {
	ctx := context.Background()
	disk, ok := pick(d, d.disks())
	if !ok || len(d.disks()) < 3 && d.random.IntN(10) == 0 {
		ref, err := d.m.Create(ctx, storage.CreateSpec{SR: d.sr, Size: mib, Name: "disk", Type: api.VDITypeUser})
		if err == nil {
			err = d.m.Track(ctx, ref, true)
		}
		return err
	}
	snapshot, some := pick(d, d.moments)
	switch n := d.random.IntN(16); {
	case n < 6:
		d.writes(disk)
	case n < 9 && len(d.moments) < 9:
		_, err := d.m.Snapshot(ctx, []api.VDIRef{disk}, nil)
		return err
	case n == 9 && some:
		return d.m.Destroy(ctx, snapshot)
	case n == 10 && some && d.row(snapshot).CBTEnabled:
		return d.m.DataDestroy(ctx, snapshot)
	case n == 11 && len(d.disks()) < 4:
		_, err := d.m.Clone(ctx, disk, "clone")
		return err
	case n == 12:
		return d.m.Track(ctx, disk, d.random.IntN(3) > 0)
	case n == 13 && some && d.row(snapshot).Type != api.VDITypeCBTMetadata && d.disks()[d.row(snapshot).SnapshotOf]:
		return d.m.Revert(ctx, map[api.VDIRef]api.VDIRef{d.row(snapshot).SnapshotOf: snapshot})
	case n == 14 && d.random.IntN(4) == 0:
		return d.m.Destroy(ctx, disk)
	case n == 15:
		_, err := d.m.Snapshot(ctx, []api.VDIRef{snapshot}, nil)
		if !some || isAPI(err, api.CodeVDIIncompatibleType) || isAPI(err, api.CodeHandleInvalid) {
			return nil
		}
		return err
	}
	return nil
}

func (d diary) writes(disk api.VDIRef) {
	for range 1 + d.random.IntN(3) {
		at, value := d.random.Int64N(16), d.random.Uint64N(3)
		if err := d.hostd.Write(d.uuid, d.row(disk).Location, at, value); err != nil {
			d.t.Fatal(err)
		}
		if s := d.sets[disk]; s != nil {
			s.open[at] = true
		}
	}
}

// merge merges what there is to merge, at times without room for logs.
func (d diary) merge() {
	full := d.random.IntN(2) == 0
	d.hostd.Fail(func(verb, _, name string) error {
		if full && verb == "write-log" {
			return &client.Error{Code: client.CodeNoSpace, Message: "no room for log " + name}
		}
		return d.step()
	})
	d.m.Coalesce(context.Background(), d.sr)
	full = false
}

// check asks for the changes between any two moments.
func (d diary) check(when string) {
	d.t.Helper()
	all := maps.Clone(d.moments)
	for disk := range d.disks() {
		m := moment{content: d.read(disk)}
		if s := d.sets[disk]; s != nil {
			m.set, m.index = s, len(s.wrote)
		}
		all[disk] = m
	}
	refs := slices.Sorted(maps.Keys(all))
	for range 12 {
		from, to := refs[d.random.IntN(len(refs))], refs[d.random.IntN(len(refs))]
		if from != to {
			d.compare(fmt.Sprintf("%s: %s to %s", when, from, to), from, to, all[from], all[to])
		}
	}
}

func (d diary) compare(what string, from, to api.VDIRef, a, b moment) {
	d.t.Helper()
	changed, err := d.m.ListChangedBlocks(context.Background(), from, to)
	if a.set == nil || a.set != b.set || a.index >= b.index {
		if !isAPI(err, "SR_BACKEND_FAILURE_460") {
			d.t.Fatalf("%s: they are unrelated, and the answer is %v", what, err)
		}
		return
	}
	if err != nil {
		d.t.Fatalf("%s: moments %d and %d: %v", what, a.index, b.index, err)
	}
	wrote := map[int64]bool{}
	for i := a.index + 1; i <= b.index; i++ {
		if i < len(b.set.wrote) {
			maps.Copy(wrote, b.set.wrote[i])
		} else {
			maps.Copy(wrote, b.set.open)
		}
	}
	for at := range int64(16) {
		if a.content[at] != b.content[at] && !changed.Has(at) {
			d.t.Fatalf("%s: moments %d and %d: block %d has changed", what, a.index, b.index, at)
		}
		if changed.Has(at) && !wrote[at] {
			d.t.Fatalf("%s: moments %d and %d: nobody wrote block %d", what, a.index, b.index, at)
		}
	}
}

// tidy checks that nothing is left that no row names.
func (d diary) tidy() {
	d.t.Helper()
	named := map[string]bool{}
	for _, v := range db.All[api.VDI](d.db.Snapshot()) {
		if v.SMConfig["cairn:owed"] != "" {
			d.t.Fatalf("row of %s is still owed to %s", v.Location, v.SMConfig["cairn:owed"])
		}
		for _, name := range strings.Fields(v.SMConfig["cairn:log"]) {
			named[name] = true
		}
	}
	have, err := d.hostd.ChangeLogs(context.Background(), d.uuid)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, l := range have {
		delete(named, l.Name)
	}
	if len(named) > 0 {
		d.t.Fatalf("rows name logs that are not there: %v", named)
	}
}

// TestChangesOverCrashes does things in random order, among them the death of the
// toolstack before any change it makes. What is then said of changes is never less than
// what differs, and never more than what was written.
func TestChangesOverCrashes(t *testing.T) {
	for seed := range uint64(*seeds / 20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := diary{newLife(t, seed+1000), map[api.VDIRef]moment{}, map[api.VDIRef]*set{}}
			for range 3 {
				d.left = 40 + d.random.IntN(200)
				for range 60 {
					err := d.act()
					if d.left == 0 {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					d.learn()
					if d.random.IntN(3) == 0 {
						if d.merge(); d.left == 0 {
							break
						}
					}
					if left := d.left; len(d.moments) > 1 {
						d.left = -1
						d.check("in between")
						d.left = left
					}
				}
				d.again()
				d.forget()
				d.learn()
				if len(d.moments) > 1 {
					d.check("after the crash")
				}
				if !d.m.Coalesce(context.Background(), d.sr) {
					t.Fatal("something is left to merge")
				}
				if len(d.moments) > 1 {
					d.check("after the merge")
				}
				d.tidy()
			}
		})
	}
}
