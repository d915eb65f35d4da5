package storage_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
	"cairn/toolstack/storage/storagetest"
)

// seeds is small where every change is tested, and large in make chaos-coalesce.
var seeds = flag.Int("seeds", 60, "how many `times` to crash")

// errDead is what everything answers when the process is no more.
var errDead = errors.New("the process is dead")

// life is a toolstack that can be killed before any change it makes, of rows or of
// volumes, and started again on what is left.
type life struct {
	t      *testing.T
	engine *db.Memory
	hostd  *storagetest.Hostd
	db     *db.DB
	m      *storage.Manager
	host   api.HostRef
	sr     api.SRRef
	uuid   string
	left   int // changes until death; negative for never
	random *rand.Rand

	// model is what each disk reads.
	model map[api.VDIRef]map[int64]uint64
}

func (l *life) step() error {
	if l.left == 0 {
		return errDead
	}
	l.left--
	return nil
}

func newLife(t *testing.T, seed uint64) *life {
	l := &life{
		t: t, engine: db.NewMemory(), hostd: storagetest.New(), left: -1,
		random: rand.New(rand.NewPCG(seed, 1)), model: map[api.VDIRef]map[int64]uint64{},
	}
	l.engine.Fail = func(db.Batch) error { return l.step() }
	l.hostd.Fail(func(verb, _, _ string) error {
		if verb == "probe" {
			return nil
		}
		return l.step()
	})
	l.open()
	if err := l.m.EnsureDrivers(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.uuid = api.NewUUID()
	config := map[string]string{"location": "/srv"}
	err := l.db.Update(t.Context(), func(tx *db.Tx) error {
		l.host = db.Insert(tx, api.NewHost())
		sr := api.NewSR()
		sr.UUID, sr.Type = l.uuid, "file"
		l.sr = db.Insert(tx, sr)
		p := api.NewPBD()
		p.SR, p.Host, p.CurrentlyAttached, p.DeviceConfig = l.sr, l.host, true, config
		db.Insert(tx, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.hostd.Adopt(l.uuid, storage.DriverConfig("file", config), 1<<40, nil); err != nil {
		t.Fatal(err)
	}
	l.start()
	return l
}

func (l *life) open() {
	d, err := db.Open(context.Background(), l.engine, db.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	l.db = d
	l.m = storage.New(storage.Config{DB: d, Hostd: func(api.HostRef) storage.Hostd { return l.hostd }})
}

// start is the recovery every start begins with.
func (l *life) start() {
	l.t.Helper()
	if err := l.m.Recover(context.Background()); err != nil {
		l.t.Fatal(err)
	}
}

// again is another process on what the dead one left.
func (l *life) again() {
	l.left = -1
	l.db.Close()
	l.hostd.Forget()
	l.open()
	l.start()
}

func (l *life) read(ref api.VDIRef) map[int64]uint64 {
	d, err := db.Get(l.db.Snapshot(), ref)
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := l.hostd.Content(l.uuid, d.Location)
	if err != nil {
		l.t.Fatalf("disk %s: %v", d.UUID, err)
	}
	return c
}

// act does something and enters it in the model. What it failed to do may have
// happened all the same: undecided is what such disks may read, if they are there.
func (l *life) act() (undecided map[api.VDIRef][]map[int64]uint64, err error) {
	ctx := context.Background()
	undecided = map[api.VDIRef][]map[int64]uint64{}
	refs := slices.Sorted(maps.Keys(l.model))
	if len(refs) == 0 || len(refs) < 4 && l.random.IntN(3) == 0 {
		ref, err := l.m.Create(ctx, storage.CreateSpec{SR: l.sr, Size: mib, Name: "disk"})
		if err == nil {
			l.model[ref] = map[int64]uint64{}
		}
		return undecided, err
	}
	ref := refs[l.random.IntN(len(refs))]
	d, err := db.Get(l.db.Snapshot(), ref)
	if err != nil {
		return nil, err
	}
	switch l.random.IntN(10) {
	case 0, 1:
		if len(refs) > 12 {
			break
		}
		var taken map[api.VDIRef]api.VDIRef
		taken, err = l.m.Snapshot(ctx, []api.VDIRef{ref}, nil)
		if err == nil {
			l.model[taken[ref]] = maps.Clone(l.model[ref])
		}
	case 2:
		if len(refs) > 12 {
			break
		}
		var c api.VDIRef
		if c, err = l.m.Clone(ctx, ref, "clone"); err == nil {
			l.model[c] = maps.Clone(l.model[ref])
		}
	case 3:
		var c api.VDIRef
		if c, err = l.m.Copy(ctx, ref, l.sr, nil); err == nil {
			l.model[c] = maps.Clone(l.model[ref])
		}
	case 4, 5:
		was := l.model[ref]
		delete(l.model, ref)
		if err = l.m.Destroy(ctx, ref); err != nil {
			undecided[ref] = []map[int64]uint64{was}
		}
	case 6:
		if d.IsASnapshot && l.model[d.SnapshotOf] != nil {
			was := l.model[d.SnapshotOf]
			l.model[d.SnapshotOf] = maps.Clone(l.model[ref])
			if err = l.m.Revert(ctx, map[api.VDIRef]api.VDIRef{d.SnapshotOf: ref}); err != nil {
				undecided[d.SnapshotOf] = []map[int64]uint64{was, maps.Clone(l.model[ref])}
				delete(l.model, d.SnapshotOf)
			}
		}
	default:
		if !d.IsASnapshot {
			at := l.random.Int64N(8)
			value := l.random.Uint64() | 1
			if err := l.hostd.Write(l.uuid, d.Location, at, value); err != nil {
				l.t.Fatalf("a disk that nobody is based on cannot be written to: %v", err)
			}
			l.model[ref] = maps.Clone(l.model[ref])
			l.model[ref][at] = value
		}
	}
	return undecided, err
}

// check compares all disks with the model, and learns what became of the undecided.
func (l *life) check(when string, undecided map[api.VDIRef][]map[int64]uint64) {
	l.t.Helper()
	for ref, v := range db.All[api.VDI](l.db.Snapshot()) {
		if !v.Managed {
			continue
		}
		got := l.read(ref)
		want, known := l.model[ref]
		switch choice := undecided[ref]; {
		case known && !maps.Equal(got, want):
			l.t.Fatalf("%s: disk %s reads %v, want %v", when, v.UUID, got, want)
		case known:
		case choice != nil:
			if !slices.ContainsFunc(choice, func(c map[int64]uint64) bool { return maps.Equal(c, got) }) {
				l.t.Fatalf("%s: disk %s reads %v, want one of %v", when, v.UUID, got, choice)
			}
			l.model[ref] = got
		default: // it was made although nobody was told: then it reads as another does
			l.model[ref] = got
		}
	}
	for ref := range l.model {
		if _, err := db.Get(l.db.Snapshot(), ref); err != nil {
			l.t.Fatalf("%s: disk %s is lost", when, ref)
		}
	}
}

// sound checks that rows, volumes and headers say the same and nothing is left.
func (l *life) sound(when string) {
	l.t.Helper()
	volumes, err := l.hostd.Volumes(context.Background(), l.uuid)
	if err != nil {
		l.t.Fatal(err)
	}
	location := map[string]string{}
	rows := map[string]*api.VDI{}
	for _, v := range db.All[api.VDI](l.db.Snapshot()) {
		location[v.UUID], rows[v.Location] = v.Location, v
		for key := range v.SMConfig {
			if strings.HasPrefix(key, "cairn:") && key != "cairn:layer" {
				l.t.Fatalf("%s: row of %s is left with %s=%s", when, v.Location, key, v.SMConfig[key])
			}
		}
	}
	for _, v := range volumes {
		row := rows[v.Name]
		if row == nil {
			l.t.Fatalf("%s: volume %s has no row", when, v.Name)
		}
		if below := location[row.SMConfig["vhd-parent"]]; below != v.Backing {
			l.t.Fatalf("%s: %s is based on %q, its row says %q", when, v.Name, v.Backing, below)
		}
	}
	if len(volumes) != len(rows) {
		l.t.Fatalf("%s: %d volumes and %d rows", when, len(volumes), len(rows))
	}
}

// TestCrashes kills the toolstack before one of the changes it makes, in the middle
// of random operations and merges, twice in a row at times, and looks what is left.
func TestCrashes(t *testing.T) {
	for seed := range uint64(*seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLife(t, seed)
			for range 3 {
				l.left = 5 + l.random.IntN(60)
				var undecided map[api.VDIRef][]map[int64]uint64
				for {
					var err error
					if undecided, err = l.act(); errors.Is(err, errDead) || l.left == 0 {
						break
					}
					if l.random.IntN(4) == 0 {
						if l.m.Coalesce(context.Background(), l.sr); l.left == 0 {
							break
						}
					}
				}
				if l.random.IntN(2) == 0 { // and the next process dies young
					l.left = -1
					l.db.Close()
					l.hostd.Forget()
					l.open()
					l.left = l.random.IntN(12)
					l.m.Recover(context.Background())
					l.m.Coalesce(context.Background(), l.sr)
				}
				l.again()
				l.check("after the crash", undecided)
				for i := 0; !l.m.Coalesce(context.Background(), l.sr); i++ {
					if i > 3 {
						t.Fatal("something is left to merge for ever")
					}
				}
				l.check("after the merge", nil)
				l.sound("after the merge")
			}
		})
	}
}
