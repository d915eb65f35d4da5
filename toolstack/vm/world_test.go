package vm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/operation"
	"cairn/toolstack/storage"
	"cairn/toolstack/storage/storagetest"
	"cairn/toolstack/vm"
)

// errKilled is what a process that was killed gets: nothing it does has an effect
// any more, which is all that the world sees of its death.
var errKilled = errors.New("killed")

// gate counts what a process does to the world, and ends it before a chosen step.
type gate struct {
	mu    sync.Mutex
	armed bool
	left  int // steps until death; 0: it lives
	seen  int
	dead  bool
	die   context.CancelFunc
	yield func() // lets others go first; may be nil
}

// disturb has something done at each step.
func (g *gate) disturb(yield func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.yield = yield
}

func (g *gate) step() error {
	g.mu.Lock()
	yield := g.yield
	g.mu.Unlock()
	if yield != nil {
		yield()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return errKilled
	}
	if !g.armed {
		return nil
	}
	g.seen++
	if g.left--; g.left == 0 {
		g.kill()
		return errKilled
	}
	return nil
}

func (g *gate) kill() {
	g.dead = true
	g.die()
}

// arm lets a process live for so many steps more.
func (g *gate) arm(steps int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed, g.left, g.seen = true, steps, 0
}

// steps is how many there were since; the process is dead afterwards.
func (g *gate) steps() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.kill()
	return g.seen
}

type gatedEngine struct {
	*db.Memory
	*gate
}

func (e gatedEngine) Commit(ctx context.Context, b db.Batch) error {
	if err := e.step(); err != nil {
		return err
	}
	return e.Memory.Commit(ctx, b)
}

// gatedDomains keeps watch over memory: no image may run twice.
type gatedDomains struct {
	*hypervisor.Fake
	*gate
	w *world
}

func (d gatedDomains) Start(ctx context.Context, spec hypervisor.Spec, paused bool) error {
	return errors.Join(d.step(), ifAlive(d, func() error { return d.Fake.Start(ctx, spec, paused) }))
}

func (d gatedDomains) Pause(ctx context.Context, uuid string) error {
	return errors.Join(d.step(), ifAlive(d, func() error { return d.Fake.Pause(ctx, uuid) }))
}

func (d gatedDomains) Resume(ctx context.Context, uuid string) error {
	return errors.Join(d.step(), ifAlive(d, func() error { return d.w.ranFrom(uuid, d.Fake.Resume(ctx, uuid)) }))
}

func (d gatedDomains) Destroy(ctx context.Context, uuid string) error {
	return errors.Join(d.step(), ifAlive(d, func() error { return d.Fake.Destroy(ctx, uuid) }))
}

func (d gatedDomains) Snapshot(ctx context.Context, uuid string, o []hypervisor.Overlay) error {
	return errors.Join(d.step(), ifAlive(d, func() error { return d.Fake.Snapshot(ctx, uuid, o) }))
}

func (d gatedDomains) Save(ctx context.Context, uuid, path string) error {
	return errors.Join(d.step(), ifAlive(d, func() error {
		d.Fake.Tear(uuid, path)
		d.w.writing(uuid, path)
		return errors.Join(d.step(), ifAlive(d, func() error { return d.w.finishSave() }))
	}))
}

func (d gatedDomains) Restore(ctx context.Context, path string, spec hypervisor.Spec, paused bool) error {
	return errors.Join(d.step(), ifAlive(d, func() error {
		err := d.Fake.Restore(ctx, path, spec, paused)
		if err == nil {
			d.w.restored(spec.UUID, path)
		}
		return err
	}))
}

func (d gatedDomains) Erase(ctx context.Context, uuid string) error {
	return errors.Join(d.step(), ifAlive(d, func() error {
		d.w.nvram.set(uuid, remembered{})
		return d.Fake.Erase(ctx, uuid)
	}))
}

func ifAlive(d gatedDomains, f func() error) error {
	d.gate.mu.Lock()
	dead := d.dead
	d.gate.mu.Unlock()
	if dead {
		return nil
	}
	return f()
}

// world is what outlives a process: the database's engine, volumes, domains.
type world struct {
	t      testing.TB
	engine *db.Memory
	hostd  *storagetest.Hostd
	hv     *hypervisor.Fake
	nvram  *nvram
	host   *fakeHost

	sr      api.SRRef
	subject api.VMRef
	snap    api.VMRef
	disks   []api.VDIRef // of the subject, which may lose its VM

	loss  bool // the host lost its power, too
	lives int  // steps until the next process dies while it recovers; 0: it does not

	mu    sync.Mutex
	save  func() error      // an image that is being written
	fresh map[string]string // images written since they were last brought to their medium, and by whom
	from  map[string]string // images of domains, by uuid
	ran   map[string]bool   // images that have run
	twice []string
}

func newWorld(t testing.TB) *world {
	return &world{
		t: t, engine: db.NewMemory(), hostd: storagetest.New(), hv: hypervisor.NewFake(), nvram: newNVRAM(),
		host:  &fakeHost{ref: api.NewRef[api.Host](), kind: hypervisor.Accelerated, memory: 64 * gib},
		fresh: map[string]string{}, from: map[string]string{}, ran: map[string]bool{},
	}
}

// writing begins to save a domain, which goes on without whoever wanted it.
func (w *world) writing(uuid, path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fresh[path] = uuid
	w.save = func() error { return w.hv.Save(context.Background(), uuid, path) }
}

func (w *world) finishSave() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	save := w.save
	if w.save = nil; save == nil {
		return nil
	}
	return save()
}

// settled hears that a volume has been brought to its medium.
func (w *world) settled(sr, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.fresh, "/run/sr-mount/"+sr+"/"+name)
}

func (w *world) restored(uuid, path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.from[uuid] = path
}

func (w *world) ranFrom(uuid string, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if path := w.from[uuid]; err == nil && path != "" {
		if w.ran[path] {
			w.twice = append(w.twice, path)
		}
		w.ran[path] = true
		delete(w.from, uuid)
	}
	return err
}

// life is one process.
type life struct {
	*world
	gate  *gate
	db    *db.DB
	reg   *api.Registry
	store *storage.Manager
	ctx   context.Context
	end   func()
}

// losePower ends all domains, and what the host had at hand. Of images that were not
// brought to their medium some part is there; with luck, all.
func (w *world) losePower(luck bool) {
	w.loss = true
	w.host.boots++
	w.mu.Lock()
	for path, uuid := range w.fresh {
		if !luck {
			w.hv.Tear(uuid, path)
		}
	}
	w.save = nil
	w.mu.Unlock()
	list, err := w.hv.List(context.Background())
	must(w.t, err)
	for _, d := range list {
		w.hv.Forget(d.UUID)
	}
	w.hostd.Forget()
}

// boot starts a process and waits until it has looked at everything once.
func (w *world) boot() *life {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{world: w, gate: &gate{die: cancel}, ctx: ctx, reg: api.NewRegistry()}
	var err error
	l.db, err = db.Open(ctx, gatedEngine{w.engine, l.gate}, db.Options{})
	must(w.t, err)
	must(w.t, operation.Recover(ctx, l.db, journal.Discard()))
	hv := gatedDomains{w.hv, l.gate, w}
	w.nvram.step = l.gate.step
	w.hostd.Fail(func(verb, sr, name string) error {
		switch verb {
		case "deactivate":
			err := l.gate.step()
			if err == nil {
				w.settled(sr, name)
			}
			return err
		case "create", "delete", "resize", "activate", "rebase", "commit", "copy", "note":
			return l.gate.step()
		}
		return nil
	})
	l.store = storage.New(storage.Config{
		DB: l.db, Hostd: func(api.HostRef) storage.Hostd { return w.hostd }, Domains: func(api.HostRef) storage.Domains { return hv },
	})
	devices := device.New(device.Config{
		DB: l.db, Storage: l.store, Network: ports{l.db, func() error { return nil }}, Hypervisor: func(api.HostRef) hypervisor.Hypervisor { return hv },
	})
	vms := vm.New(vm.Config{
		Guests: agents{}, DB: l.db, Hypervisor: hv, Consoles: noConsoles{}, Host: w.host, Devices: devices, Disks: images{l.store, l.db, w.hv}, GuestDir: "/nowhere", NVRAM: w.nvram,
	})
	l.store.Register(l.reg)
	devices.Register(l.reg)
	vms.Register(l.reg)
	l.run(cancel, vms)
	return l
}

func (l *life) run(cancel context.CancelFunc, vms *vm.Manager) {
	if _, err := db.Get(l.db.Snapshot(), l.host.ref); err != nil {
		must(l.t, l.db.Update(l.ctx, func(tx *db.Tx) error {
			db.InsertAs(tx, l.host.ref, &api.Host{UUID: api.NewUUID(), Enabled: true})
			return nil
		}))
	}
	var both sync.WaitGroup
	if l.lives > 0 {
		l.gate.arm(l.lives)
		l.lives = 0
	}
	both.Go(func() { _ = l.store.Run(l.ctx) })
	ready := make(chan struct{})
	await := func(c <-chan struct{}) {
		select {
		case <-c:
		case <-l.ctx.Done():
		}
	}
	await(l.store.Ready())
	both.Go(func() { _ = vms.Run(l.ctx, func() { close(ready) }) })
	await(ready)
	l.end = func() {
		cancel()
		both.Wait()
		l.db.Close()
	}
}

// call sends a message as a client would.
func (l *life) call(out any, method string, args ...any) error {
	info := api.FindMessage(method)
	var values []api.Value
	for _, a := range args {
		text, err := json.Marshal(a)
		must(l.t, err)
		v, err := api.ParseJSON(text)
		must(l.t, err)
		values = append(values, v)
	}
	result, err := l.reg.Handler(info)(&api.Call{Context: l.ctx, Message: info, Task: noTask{}}, values)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(result.AppendValue(nil, api.JSON), out)
}

func (l *life) must(out any, method string, args ...any) {
	l.t.Helper()
	if err := l.call(out, method, args...); err != nil {
		l.t.Fatalf("%s: %v", method, err)
	}
}

type noTask struct{}

func (noTask) Ref() api.TaskRef { return "" }
func (noTask) Set(float64)      {}

func (l *life) vm(ref api.VMRef) *api.VM {
	v, err := db.Get(l.db.Snapshot(), ref)
	if err != nil {
		return nil
	}
	return v
}

func (l *life) vdi(ref api.VDIRef) *api.VDI {
	v, err := db.Get(l.db.Snapshot(), ref)
	if err != nil {
		return nil
	}
	return v
}

func (l *life) srUUID() string {
	sr, err := db.Get(l.db.Snapshot(), l.sr)
	must(l.t, err)
	return sr.UUID
}

// reads is what the first clusters of a VM's disks hold.
func (l *life) reads(ref api.VMRef) (values []uint64) {
	for _, vdi := range disksOf(l.db.Snapshot(), string(ref)) {
		content, err := l.hostd.Content(l.srUUID(), l.vdi(vdi).Location)
		must(l.t, err)
		values = append(values, content[0])
	}
	return values
}

func (l *life) write(values ...uint64) {
	for i, vdi := range disksOf(l.db.Snapshot(), string(l.subject)) {
		must(l.t, l.hostd.Write(l.srUUID(), l.vdi(vdi).Location, 0, values[i]))
	}
}

// until waits until nothing is wrong.
func (l *life) until(wrong func() string) string {
	w := l.db.Watch()
	defer w.Close()
	limit := time.After(4 * time.Second)
	for {
		what := wrong()
		if what == "" || l.ctx.Err() != nil {
			return what
		}
		select {
		case <-w.C():
			w.Changes()
		case <-time.After(50 * time.Millisecond): // what is wrong with the world does not show in rows
		case <-limit:
			return what
		}
	}
}

// wrong says in what rows, domains and volumes disagree.
func (l *life) wrong() string {
	snap := l.db.Snapshot()
	domains := map[string]hypervisor.State{}
	list, err := l.hv.List(context.Background())
	must(l.t, err)
	for _, d := range list {
		domains[d.UUID] = d.State
	}
	for _, v := range db.All[api.VM](snap) {
		if what := l.wrongVM(v, domains[v.UUID]); what != "" {
			return what
		}
	}
	for _, v := range db.All[api.VBD](snap) {
		on, err := db.Get(snap, v.VM)
		if err != nil || len(v.CurrentOperations) > 0 {
			return fmt.Sprintf("drive %+v", v)
		}
		awake := on.PowerState == api.VMPowerStateRunning || on.PowerState == api.VMPowerStatePaused
		if v.CurrentlyAttached != awake && on.PowerState != api.VMPowerStateSuspended {
			return fmt.Sprintf("drive of a %s VM: attached %t", on.PowerState, v.CurrentlyAttached)
		}
	}
	if what := l.nvram.wrong(snap); what != "" {
		return what
	}
	return l.wrongDisks(snap)
}

func (l *life) wrongVM(v *api.VM, domain hypervisor.State) string {
	if len(v.CurrentOperations) > 0 || !v.ScheduledToBeResidentOn.IsNull() {
		return fmt.Sprintf("VM %s: %v, %s", v.NameLabel, v.CurrentOperations, v.ScheduledToBeResidentOn)
	}
	want := map[api.VMPowerState]hypervisor.State{api.VMPowerStateRunning: hypervisor.Running, api.VMPowerStatePaused: hypervisor.Paused}[v.PowerState]
	if want != domain {
		return fmt.Sprintf("VM %s is %s, its domain %q", v.NameLabel, v.PowerState, domain)
	}
	asleep := v.PowerState == api.VMPowerStateSuspended
	if asleep == v.SuspendVDI.IsNull() {
		return fmt.Sprintf("VM %s is %s with memory %q", v.NameLabel, v.PowerState, v.SuspendVDI)
	}
	if !asleep {
		return ""
	}
	if image := l.vdi(v.SuspendVDI); image != nil && image.SMConfig["cairn:wake"] != "" {
		return fmt.Sprintf("VM %s is to wake up", v.NameLabel)
	}
	path := images{db: l.db}.file(v.SuspendVDI)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.hv.Saved(path); !there {
		return fmt.Sprintf("VM %s: its memory is lost", v.NameLabel)
	}
	if l.ran[path] && !v.IsASnapshot {
		return fmt.Sprintf("VM %s: its memory has run", v.NameLabel)
	}
	return ""
}

func (l *life) wrongDisks(snap *db.Snapshot) string {
	used := map[api.VDIRef]bool{}
	for _, vdi := range l.disks {
		used[vdi] = true
	}
	awake := map[api.VDIRef]bool{}
	for _, v := range db.All[api.VBD](snap) {
		used[v.VDI] = true
		awake[v.VDI] = awake[v.VDI] || v.CurrentlyAttached
	}
	for _, v := range db.All[api.VM](snap) {
		used[v.SuspendVDI] = true
	}
	rows, parents := map[string]bool{}, map[string]bool{}
	for _, v := range db.All[api.VDI](snap) {
		rows[v.Location], parents[v.SMConfig["vhd-parent"]] = true, true
	}
	for ref, v := range db.All[api.VDI](snap) {
		switch {
		case v.Managed && !used[ref]:
			return fmt.Sprintf("disk %q %s is leaked: %v", v.NameLabel, v.Type, v.SMConfig)
		case v.SMConfig[storage.MarkKey] != "" && v.Managed || len(v.CurrentOperations) > 0:
			return fmt.Sprintf("disk %q: %v %v", v.NameLabel, v.SMConfig, v.CurrentOperations)
		case !v.Managed && !parents[v.UUID]:
			return fmt.Sprintf("a layer nobody needs: %v", v.SMConfig)
		}
		for key := range v.SMConfig {
			if strings.HasPrefix(key, "host_") && !awake[ref] {
				return fmt.Sprintf("disk %q %s is attached for nobody: %v", v.NameLabel, v.Type, v.SMConfig)
			}
		}
	}
	volumes, err := l.hostd.Volumes(context.Background(), l.srUUID())
	if err != nil {
		return err.Error()
	}
	if len(volumes) != len(rows) {
		return fmt.Sprintf("%d volumes, %d rows", len(volumes), len(rows))
	}
	return ""
}
