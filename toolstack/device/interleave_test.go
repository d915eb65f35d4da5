package device_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/console"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/device/devicetest"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/operation"
	"cairn/toolstack/storage"
	"cairn/toolstack/storage/storagetest"
	"cairn/toolstack/vm"
)

var (
	interleaveSeeds = flag.Int("interleave.seeds", 4, "how many `times` clients disturb each other")
	interleaveFrom  = flag.Uint64("interleave.from", 1, "the first seed")
)

// arena is a host on which many clients do at once what they like to a few machines
// and disks, while the guests write. It knows what each disk holds.
type arena struct {
	t      *testing.T
	engine *db.Memory
	hostd  *storagetest.Hostd
	hv     *hypervisor.Fake
	host   api.HostRef
	guests string
	sr     api.SRRef
	srUUID string
	vms    []api.VMRef

	mu    sync.Mutex // makes one of a write and of where it goes
	want  map[api.VDIRef]map[int64]uint64
	fixed map[api.VDIRef]map[int64]uint64 // snapshots
}

// turn is one process.
type turn struct {
	*arena
	dead  *atomic.Bool
	db    *db.DB
	reg   *api.Registry
	store *storage.Manager
	ctx   context.Context
	end   func()
}

var errTurnDead = errors.New("the process is dead")

func (t *turn) alive() error {
	if t.dead.Load() {
		return errTurnDead
	}
	return nil
}

// tamed are the domains, which no dead process changes.
type tamed struct {
	doing
	t *turn
}

func (t *turn) do(f func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.alive(); err != nil {
		return err
	}
	err := f()
	t.oneWriter()
	return err
}

// Commit moves the data, too: most of it while the guest writes, the rest with the
// domain.
func (d tamed) Commit(ctx context.Context, uuid, id string, progress func(float64)) error {
	spec, _ := d.Fake.Spec(uuid)
	disk, there := hypervisor.Hardware{Disks: spec.Disks}.Disk(id)
	if !there {
		return hypervisor.ErrNotFound
	}
	merge := func() error { return d.t.hostd.CommitVolume(ctx, d.t.srUUID, path.Base(disk.Source.Path), nil) }
	if err := merge(); err != nil {
		return err
	}
	if progress(1); ctx.Err() != nil {
		return ctx.Err()
	}
	return d.do(func() error {
		if now, there := d.Fake.Spec(uuid); !there || !sameTop(now, id, disk) {
			return hypervisor.ErrNotFound
		}
		return errors.Join(merge(), d.Fake.Commit(ctx, uuid, id, nil))
	})
}

func sameTop(now hypervisor.Spec, id string, was hypervisor.Disk) bool {
	disk, there := hypervisor.Hardware{Disks: now.Disks}.Disk(id)
	return there && disk.Source.Equal(was.Source)
}

// oneWriter looks for a volume that two domains write to.
func (a *arena) oneWriter() {
	list, err := a.hv.List(context.Background())
	if err != nil {
		a.t.Error(err)
	}
	writers := map[string]string{}
	for _, d := range list {
		spec, _ := a.hv.Spec(d.UUID)
		for _, disk := range spec.Disks {
			if other := writers[disk.Source.Path]; other != "" && !disk.ReadOnly {
				a.t.Errorf("%s is written to by %s and %s", disk.Source.Path, other, d.UUID)
			}
			writers[disk.Source.Path] = d.UUID
		}
	}
}

func newArena(t *testing.T) *arena {
	a := &arena{
		t: t, engine: db.NewMemory(), hostd: storagetest.New(), hv: hypervisor.NewFake(), host: api.NewRef[api.Host](),
		guests: t.TempDir(), want: map[api.VDIRef]map[int64]uint64{}, fixed: map[api.VDIRef]map[int64]uint64{},
	}
	if err := os.WriteFile(filepath.Join(a.guests, "vmlinuz"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *arena) fatal(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// begin starts a process and waits until it has looked once.
func (a *arena) begin() *turn {
	ctx, cancel := context.WithCancel(context.Background())
	l := &turn{arena: a, dead: &atomic.Bool{}, ctx: ctx, reg: api.NewRegistry()}
	a.engine.Fail = func(db.Batch) error { return l.alive() }
	a.hostd.Fail(func(string, string, string) error { return l.alive() })
	var err error
	l.db, err = db.Open(ctx, a.engine, db.Options{})
	a.fatal(err)
	a.fatal(operation.Recover(ctx, l.db, journal.Discard()))
	hv := tamed{doing{a.hv, l.do}, l}
	l.store = storage.New(storage.Config{
		DB: l.db, Hostd: func(api.HostRef) storage.Hostd { return a.hostd }, Domains: func(api.HostRef) storage.Domains { return hv }, Quiet: time.Millisecond,
	})
	ready := make(chan struct{})
	net := devicetest.New()
	devices := device.New(device.Config{
		DB: l.db, Storage: l.store, Network: net, Hypervisor: func(api.HostRef) hypervisor.Hypervisor { return hv }, True: ready,
	})
	vms := vm.New(vm.Config{
		DB: l.db, Hypervisor: hv, Consoles: console.New(l.db, a.hv, nil), Host: fakeHost{a.host}, Devices: devices, Disks: l.store, GuestDir: a.guests,
	})
	l.store.Register(l.reg)
	devices.Register(l.reg)
	vms.Register(l.reg)
	if _, err := db.Get(l.db.Snapshot(), a.host); err != nil {
		a.fatal(l.db.Update(ctx, func(tx *db.Tx) error {
			db.InsertAs(tx, a.host, &api.Host{UUID: api.NewUUID(), Enabled: true})
			return nil
		}))
	}
	a.fatal(vms.Recover(ctx))
	var all sync.WaitGroup
	all.Go(func() { _ = l.store.Run(ctx) })
	all.Go(func() { _ = vms.Run(ctx, func() { close(ready) }) })
	<-l.store.Ready()
	<-ready
	l.end = func() { cancel(); all.Wait(); l.db.Close() }
	return l
}

// call sends a message as a client would, one that may hang up.
func (l *turn) call(ctx context.Context, out any, method string, args ...any) error {
	info := api.FindMessage(method)
	text, err := json.Marshal(args)
	if err != nil {
		return err
	}
	values, err := api.ParseJSON(text)
	if err != nil {
		return err
	}
	result, err := l.reg.Handler(info)(&api.Call{Context: ctx, Message: info, Task: callTask{api.NewRef[api.Task]()}}, values.Items)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(result.AppendValue(nil, api.JSON), out)
}

// furnish makes three machines with a disk each, and two disks that all of them want.
func (l *turn) furnish() {
	l.fatal(l.call(l.ctx, &l.sr, "SR.create", l.host, map[string]string{"location": "/srv"}, 0, "sr", "", "file", "", false, noKeys))
	sr, err := db.Get(l.db.Snapshot(), l.sr)
	l.fatal(err)
	l.srUUID = sr.UUID
	var spare []api.VDIRef
	for range 2 {
		spare = append(spare, l.disk())
	}
	for i := range 3 {
		v := api.NewVM()
		v.UUID, v.NameLabel, v.PowerState, v.PVKernel = api.NewUUID(), fmt.Sprint(i), api.VMPowerStateHalted, filepath.Join(l.guests, "vmlinuz")
		v.MemoryStaticMax, v.MemoryDynamicMax, v.MemoryDynamicMin, v.MemoryTarget = 256<<20, 256<<20, 256<<20, 256<<20
		v.VCPUsMax, v.VCPUsAtStartup = 1, 1
		var ref api.VMRef
		l.fatal(l.db.Update(l.ctx, func(tx *db.Tx) error { ref = db.Insert(tx, v); return nil }))
		l.vms = append(l.vms, ref)
		l.fatal(l.call(l.ctx, nil, "VBD.create", drive(ref, l.disk(), "0")))
		if i < 2 {
			l.fatal(l.call(l.ctx, nil, "VBD.create", drive(ref, spare[i], "1")))
		}
		l.fatal(l.call(l.ctx, nil, "VBD.create", drive(ref, spare[i%2], "2")))
	}
}

var noKeys = map[string]string{}

func (l *turn) disk() api.VDIRef {
	ref, err := l.store.Create(l.ctx, storage.CreateSpec{SR: l.sr, Size: 1 << 20, Name: "disk"})
	l.fatal(err)
	l.want[ref] = map[int64]uint64{}
	return ref
}

// write is what some guest writes to some disk, wherever that is at the moment.
func (l *turn) write(r *rand.Rand) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, err := l.hv.List(l.ctx)
	if err != nil || len(list) == 0 {
		return
	}
	d := list[r.IntN(len(list))]
	spec, there := l.hv.Spec(d.UUID)
	if !there || d.State != hypervisor.Running || len(spec.Disks) == 0 {
		return
	}
	disk := spec.Disks[r.IntN(len(spec.Disks))]
	row, err := db.ByUUID[api.VBD](l.db.Snapshot(), disk.ID)
	if err != nil {
		return
	}
	v, err := db.Get(l.db.Snapshot(), row)
	if err != nil {
		return
	}
	at, value := r.Int64N(4), r.Uint64()|1
	// Where others are based on its layer the write is refused; a snapshot that is being
	// taken is the one case in which that may be. See check for the rest.
	l.hostd.Fail(nil)
	err = l.hostd.Write(l.srUUID, path.Base(disk.Source.Path), at, value)
	l.hostd.Fail(func(string, string, string) error { return l.alive() })
	if err == nil && l.want[v.VDI] != nil {
		l.want[v.VDI][at] = value
	}
}

func pick[T any](r *rand.Rand, all []T) (x T) {
	if len(all) > 0 {
		x = all[r.IntN(len(all))]
	}
	return x
}

// act does something at random. What it answers is of no interest.
func (l *turn) act(r *rand.Rand) {
	ctx, hangUp := context.WithCancel(l.ctx)
	defer hangUp()
	if r.IntN(6) == 0 {
		time.AfterFunc(time.Duration(r.IntN(2000))*time.Microsecond, hangUp)
	}
	snap := l.db.Snapshot()
	var snapshots []api.VMRef
	for ref, v := range db.All[api.VM](snap) {
		if v.IsASnapshot {
			snapshots = append(snapshots, ref)
		}
	}
	var vdis, vbds []string
	for ref, v := range db.All[api.VDI](snap) {
		if v.Managed {
			vdis = append(vdis, string(ref))
		}
	}
	for ref := range db.All[api.VBD](snap) {
		vbds = append(vbds, string(ref))
	}
	v, vdi, vbd := pick(r, l.vms), pick(r, vdis), pick(r, vbds)
	if len(vdis) > 24 {
		l.thin(ctx, r, vdis)
		return
	}
	_ = l.one(ctx, r, v, pick(r, snapshots), vdi, vbd)
}

// thin removes a disk that no machine has.
func (l *turn) thin(ctx context.Context, r *rand.Rand, vdis []string) {
	for _, vdi := range vdis {
		if d, err := db.Get(l.db.Snapshot(), api.VDIRef(vdi)); err == nil && len(d.VBDs) == 0 && r.IntN(2) == 0 {
			_ = l.call(ctx, nil, "VDI.destroy", vdi)
		}
	}
	for ref, v := range db.All[api.VM](l.db.Snapshot()) {
		if v.IsASnapshot && r.IntN(2) == 0 {
			_ = l.call(ctx, nil, "VM.destroy", ref)
		}
	}
}

func (l *turn) one(ctx context.Context, r *rand.Rand, v, snapshot api.VMRef, vdi, vbd string) error {
	switch r.IntN(18) {
	case 0, 1, 2, 3:
		return l.call(ctx, nil, "VM.start", v, false, false)
	case 4:
		return l.call(ctx, nil, "VM.hard_shutdown", v)
	case 5:
		return l.call(ctx, nil, "VM.hard_reboot", v)
	case 6, 7:
		return l.call(ctx, nil, "VM.snapshot", v, "s", []string{})
	case 8:
		if snapshot.IsNull() {
			return nil
		}
		l.unknown(snapshot)
		defer l.unknown(snapshot)
		return l.call(ctx, nil, "VM.revert", snapshot)
	case 9, 10:
		return l.call(ctx, nil, "VDI.snapshot", vdi, noKeys)
	case 11:
		return l.call(ctx, nil, "VDI.clone", vdi, noKeys)
	case 12:
		return l.call(ctx, nil, "VDI.copy", vdi, l.sr, "", "")
	case 13:
		if d, err := db.Get(l.db.Snapshot(), api.VDIRef(vdi)); err != nil || len(d.VBDs) > 0 {
			return err
		}
		return l.call(ctx, nil, "VDI.destroy", vdi)
	case 14:
		return l.call(ctx, nil, "VBD.plug", vbd)
	case 15:
		return l.call(ctx, nil, "VBD.unplug", vbd)
	case 16:
		if !snapshot.IsNull() {
			return l.call(ctx, nil, "VM.destroy", snapshot)
		}
	default:
		l.store.Coalesce(ctx, l.sr)
	}
	return nil
}

// unknown is what the disks of a machine hold that may have gone back.
func (l *turn) unknown(snapshot api.VMRef) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, vdi := range disksUnder(l.db.Snapshot(), snapshot) {
		if d, err := db.Get(l.db.Snapshot(), vdi); err == nil {
			delete(l.want, d.SnapshotOf)
		}
	}
}

func disksUnder(r db.Reader, ref api.VMRef) (all []api.VDIRef) {
	v, err := db.Get(r, ref)
	if err != nil {
		return nil
	}
	for _, vbd := range v.VBDs {
		if b, err := db.Get(r, vbd); err == nil {
			all = append(all, b.VDI)
		}
	}
	return all
}

// round has clients and guests at it at once, for so many steps each.
func (l *turn) round(seed uint64, steps int) {
	var clients sync.WaitGroup
	for i := range 3 {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for range steps {
				if l.dead.Load() {
					return
				}
				l.act(r)
				l.write(r)
			}
		})
	}
	clients.Wait()
}

// die kills a process after a while, unless it is spared before.
func (l *turn) die(after time.Duration) (spare func()) {
	spared := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		select {
		case <-time.After(after):
			l.dead.Store(true)
		case <-spared:
		}
	})
	return func() { close(spared); killer.Wait() }
}

// still is the last of the processes that it takes until all has come to rest: each is
// ended, because merging would go on, and may have begun to merge again by then.
func (l *turn) still() *turn {
	l.t.Helper()
	for range 10 {
		what := l.rest()
		if what != "" {
			l.t.Fatalf("it does not come to rest: %s", what)
		}
		if l.end(); l.busy() == "" {
			return l
		}
		l = l.begin()
	}
	l.t.Fatal("it merges whenever it is ended")
	return nil
}

// rest waits until nothing goes on, and says what still does.
func (l *turn) rest() string {
	w := l.db.Watch()
	defer w.Close()
	limit := time.After(10 * time.Second)
	for {
		what := l.busy()
		if what == "" {
			return ""
		}
		select {
		case <-w.C():
			w.Changes()
		case <-time.After(50 * time.Millisecond): // domains do not show in rows
		case <-limit:
			return what
		}
	}
}

func (l *turn) busy() string {
	snap := l.db.Snapshot()
	domains := map[string]bool{}
	list, err := l.hv.List(context.Background())
	l.fatal(err)
	for _, d := range list {
		domains[d.UUID] = true
	}
	for _, v := range db.All[api.VM](snap) {
		awake := v.PowerState == api.VMPowerStateRunning || v.PowerState == api.VMPowerStatePaused
		if len(v.CurrentOperations) > 0 || awake != domains[v.UUID] {
			return fmt.Sprintf("VM %s: %v, %s, domain %t", v.NameLabel, v.CurrentOperations, v.PowerState, domains[v.UUID])
		}
	}
	for _, v := range db.All[api.VDI](snap) {
		if len(v.CurrentOperations) > 0 || !slices.Contains([]string{"", "garbage", "scratch"}, v.SMConfig["cairn:state"]) || !slices.Contains([]string{"", "inner"}, v.SMConfig["cairn:coalesce"]) || v.SMConfig[storage.MarkKey] != "" && v.Managed {
			return fmt.Sprintf("VDI %s: %v %v", v.NameLabel, v.CurrentOperations, v.SMConfig)
		}
	}
	for _, v := range db.All[api.VBD](snap) {
		if len(v.CurrentOperations) > 0 {
			return fmt.Sprintf("VBD %v", v.CurrentOperations)
		}
	}
	return ""
}

// check compares what disks hold with what was written, and snapshots with what they
// were; and each domain must write to the very top of its disks.
func (l *turn) check(when string) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	snap := l.db.Snapshot()
	based := map[string]bool{}
	for _, v := range db.All[api.VDI](snap) {
		based[v.SMConfig["vhd-parent"]] = true
	}
	for ref, v := range db.All[api.VDI](snap) {
		if !v.Managed {
			continue
		}
		has, err := l.hostd.Content(l.srUUID, v.Location)
		if err != nil {
			l.t.Fatalf("%s: disk %s: %v", when, v.UUID, err)
		}
		model := l.want
		if v.IsASnapshot {
			model = l.fixed
		}
		if want, known := model[ref]; !known {
			model[ref] = maps.Clone(has)
		} else if !maps.Equal(has, want) {
			l.t.Errorf("%s: disk %s (snapshot %t) reads %v, want %v", when, v.UUID, v.IsASnapshot, has, want)
			model[ref] = maps.Clone(has)
		}
	}
	l.tops(when, snap, based)
}

func (l *turn) tops(when string, snap db.Reader, based map[string]bool) {
	l.t.Helper()
	l.oneWriter()
	list, err := l.hv.List(context.Background())
	l.fatal(err)
	for _, d := range list {
		spec, _ := l.hv.Spec(d.UUID)
		for _, disk := range spec.Disks {
			row, err := db.ByUUID[api.VBD](snap, disk.ID)
			l.fatal(err)
			v, err := db.Get(snap, row)
			l.fatal(err)
			vdi, err := db.Get(snap, v.VDI)
			l.fatal(err)
			if path.Base(disk.Source.Path) != vdi.Location || based[vdi.UUID] {
				l.t.Errorf("%s: %s writes to %s, its disk is at %s (others based on it: %t)", when, d.UUID, disk.Source.Path, vdi.Location, based[vdi.UUID])
			}
		}
	}
}

// TestClientsDisturbEachOther has three clients do what they like, some hanging up in
// the middle, the guests write, and the toolstack die at any moment. No guest loses a
// write, no snapshot changes, no volume has two writers, no domain is left behind.
func TestClientsDisturbEachOther(t *testing.T) {
	for n := range uint64(*interleaveSeeds) {
		seed := *interleaveFrom + n
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 99))
			a := newArena(t)
			l := a.begin()
			l.furnish()
			for n := range 3 {
				spare := func() {}
				if r.IntN(3) > 0 {
					spare = l.die(time.Duration(r.IntN(150)) * time.Millisecond)
				}
				l.round(seed*10+uint64(n), 20)
				if spare(); l.dead.Load() {
					l.end()
					a.hostd.Forget()
					l = a.begin()
				}
				l.still().check(fmt.Sprintf("round %d", n))
				l = a.begin()
			}
			l.end()
		})
	}
}
