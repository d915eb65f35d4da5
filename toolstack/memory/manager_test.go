package memory_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/memory"
)

const mib = 1 << 20

// clock stands still until it is told to move.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[chan time.Time]time.Time
	over   bool // whatever is waited for has passed already
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	if c.over {
		ch <- c.now
		return ch
	}
	c.timers[ch] = c.now.Add(d)
	return ch
}

// waiting counts who waits for a time to come.
func (c *clock) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for ch, at := range c.timers {
		if !c.now.Before(at) {
			ch <- c.now
			delete(c.timers, ch)
		}
	}
}

type host struct {
	ref   api.HostRef
	total int64
}

func (h *host) Ref() api.HostRef   { return h.ref }
func (h *host) GuestMemory() int64 { return h.total }

// bench is a host with a fake hypervisor, its rows and an accountant.
type bench struct {
	t     *testing.T
	ctx   context.Context
	db    *db.DB
	hv    *hypervisor.Fake
	host  *host
	clock *clock
	m     *memory.Manager
}

func newBench(t *testing.T, total int64) *bench {
	t.Helper()
	d, err := db.Open(t.Context(), db.NewMemory(), db.Options{})
	must(t, err)
	t.Cleanup(func() { d.Close() })
	b := &bench{
		t: t, ctx: t.Context(), db: d, hv: hypervisor.NewFake(), host: &host{api.NewRef[api.Host](), total * mib},
		clock: &clock{now: time.Unix(1e9, 0), timers: map[chan time.Time]time.Time{}},
	}
	b.update(func(tx *db.Tx) error {
		h := api.NewHost()
		h.Metrics = db.Insert(tx, api.NewHostMetrics())
		db.InsertAs(tx, b.host.ref, h)
		return nil
	})
	b.restart()
	return b
}

// restart is another process on the same rows.
func (b *bench) restart() {
	b.m = memory.New(memory.Config{DB: b.db, Sites: []memory.Site{{Host: b.host, Balloons: b.hv}}, Clock: b.clock})
}

func (b *bench) update(f func(*db.Tx) error) {
	b.t.Helper()
	must(b.t, b.db.Update(b.ctx, f))
}

// vm makes the row of a halted VM of one vCPU with these sizes in MiB.
func (b *bench) vm(lo, hi, static int64) (ref api.VMRef) {
	b.t.Helper()
	vm := api.NewVM()
	vm.UUID, vm.VCPUsMax, vm.PowerState = api.NewUUID(), 1, api.VMPowerStateHalted
	vm.MemoryDynamicMin, vm.MemoryDynamicMax, vm.MemoryStaticMax = lo*mib, hi*mib, static*mib
	b.update(func(tx *db.Tx) error {
		vm.Metrics = db.Insert(tx, api.NewVMMetrics())
		ref = db.Insert(tx, vm)
		return nil
	})
	return ref
}

// schedule enters a start in the ledger, and start lets the domain run.
func (b *bench) schedule(ref api.VMRef) {
	b.t.Helper()
	b.edit(ref, func(vm *api.VM) { vm.ScheduledToBeResidentOn = b.host.ref })
}

func (b *bench) edit(ref api.VMRef, f func(*api.VM)) {
	b.t.Helper()
	must(b.t, db.Modify(b.ctx, b.db, ref, func(_ *db.Tx, vm *api.VM) error { f(vm); return nil }))
}

func (b *bench) start(ref api.VMRef) {
	b.t.Helper()
	vm := b.record(ref)
	must(b.t, b.hv.Start(b.ctx, hypervisor.Spec{
		UUID: vm.UUID, Kind: hypervisor.Accelerated, Machine: hypervisor.DefaultMachine, MemoryBytes: vm.MemoryStaticMax,
		MemoryTargetBytes: vm.MemoryDynamicMax, VCPUs: 1, VCPUsMax: 1, Boot: hypervisor.DirectBoot{Kernel: "/k"},
	}, false))
	b.update(func(tx *db.Tx) error {
		vm, err := db.Edit(tx, ref)
		must(b.t, err)
		vm.PowerState, vm.ResidentOn, vm.ScheduledToBeResidentOn = api.VMPowerStateRunning, b.host.ref, ""
		vm.MemoryTarget = vm.MemoryDynamicMax
		metrics, err := db.Edit(tx, vm.Metrics)
		metrics.MemoryActual, metrics.StartTime = vm.MemoryStaticMax, b.clock.Now()
		return err
	})
}

func (b *bench) run(lo, hi, static int64) api.VMRef {
	b.t.Helper()
	ref := b.vm(lo, hi, static)
	b.start(ref)
	return ref
}

func (b *bench) record(ref api.VMRef) *api.VM {
	b.t.Helper()
	vm, err := db.Get(b.db.Snapshot(), ref)
	must(b.t, err)
	return vm
}

func (b *bench) room(but api.VMRef) memory.Room { return b.m.Rooms(b.db.Snapshot(), but)[b.host.ref] }

func (b *bench) look() {
	b.t.Helper()
	must(b.t, b.m.Look(b.ctx))
	b.clock.advance(time.Second)
}

// target is what the hypervisor's balloon was told, in MiB.
func (b *bench) target(ref api.VMRef) int64 {
	b.t.Helper()
	spec, ok := b.hv.Spec(b.record(ref).UUID)
	if !ok {
		b.t.Fatal("no such domain")
	}
	return spec.MemoryTargetBytes / mib
}

func (b *bench) targets(want int64, refs ...api.VMRef) {
	b.t.Helper()
	for i, ref := range refs {
		vm := b.record(ref)
		metrics, err := db.Get(b.db.Snapshot(), vm.Metrics)
		must(b.t, err)
		if got := b.target(ref); got != want || vm.MemoryTarget != want*mib || metrics.MemoryActual != want*mib {
			b.t.Errorf("guest %d: the balloon is told %d, the row has %d and %d; want %d", i, got, vm.MemoryTarget/mib, metrics.MemoryActual/mib, want)
		}
	}
}

// overhead of a VM of 1 GiB.
const overhead = 48 + 1 + 8

// TestSqueezeAndRelease: guests share what a starter leaves, and get it back.
func TestSqueezeAndRelease(t *testing.T) {
	b := newBench(t, 3000)
	one, two := b.run(256, 1024, 1024), b.run(256, 1024, 1024)
	b.look()
	b.targets(1024, one, two)
	three := b.vm(1024, 1024, 1024)
	room := b.room(three)
	if need := memory.Footprint(b.record(three)); room.Free >= need || room.Most < need {
		t.Fatalf("room %+v for %d", room, need)
	}
	b.schedule(three)
	granted := make(chan error, 1)
	go func() { granted <- b.m.Claim(b.ctx, b.host.ref, three) }()
	for waits := true; waits; {
		select {
		case err := <-granted:
			must(t, err)
			waits = false
		default:
			b.look()
		}
	}
	half := (3000 - 1024 - 3*overhead - 2 - 512) / 2 // each gets its minimum and half of what is left
	b.targets(int64(256+half), one, two)
	b.start(three)
	b.look()
	b.targets(int64(256+half), one, two)
	b.hv.End(b.record(three).UUID, hypervisor.ByGuest)
	b.edit(three, func(vm *api.VM) { vm.ResidentOn, vm.PowerState = "", api.VMPowerStateHalted })
	b.look()
	b.look()
	b.targets(1024, one, two)
	b.free(3000 - 2*(1024+overhead))
}

// TestAnswerOfTheLastMoment: a start whose memory is there has it, however long the
// process took to notice.
func TestAnswerOfTheLastMoment(t *testing.T) {
	b := newBench(t, 3000)
	b.clock.over = true
	ref := b.vm(512, 512, 512)
	b.schedule(ref)
	for range 64 { // of two that are ready either may be seen
		must(t, b.m.Claim(b.ctx, b.host.ref, ref))
	}
}

// free checks the figure clients see, in MiB.
func (b *bench) free(want int64) {
	b.t.Helper()
	h, err := db.Get(b.db.Snapshot(), b.host.ref)
	must(b.t, err)
	metrics, err := db.Get(b.db.Snapshot(), h.Metrics)
	must(b.t, err)
	if metrics.MemoryFree != want*mib {
		b.t.Errorf("host_metrics.memory_free is %d MiB, want %d", metrics.MemoryFree/mib, want)
	}
}

// TestBootingGuestCountsWhole: before its balloon answers a guest has static_max.
func TestBootingGuestCountsWhole(t *testing.T) {
	b := newBench(t, 2000)
	ref := b.run(256, 512, 1024)
	b.hv.SetMemoryStats(b.record(ref).UUID, hypervisor.MemoryStats{Actual: 1024 * mib, RSS: 600 * mib})
	b.look()
	b.look()
	if room := b.room(""); room.Most != (2000-1024-overhead)*mib || room.Free != room.Most {
		t.Errorf("room %+v beside a guest that boots", room)
	}
	if b.target(ref) != 512 || b.m.Live(ref) {
		t.Errorf("it is told %d", b.target(ref))
	}
	b.hv.SetMemoryStats(b.record(ref).UUID, hypervisor.MemoryStats{Actual: 512 * mib, Total: 500 * mib})
	b.look()
	if room := b.room(""); room.Free != (2000-512-overhead)*mib || room.Most != (2000-256-1-overhead)*mib {
		t.Errorf("room %+v beside one whose balloon answers", room)
	}
	// Reset, its driver has not said so yet: what QEMU has on the host is believed.
	b.hv.SetMemoryStats(b.record(ref).UUID, hypervisor.MemoryStats{Actual: 512 * mib, Total: 500 * mib, RSS: 1024 * mib})
	b.look()
	if room := b.room(""); room.Free != (2000-1024)*mib {
		t.Errorf("room %+v beside one that was reset", room)
	}
}

// TestStubbornGuest: a start that needs what a guest does not give is refused, and
// the guest is named as one that does not cooperate.
func TestStubbornGuest(t *testing.T) {
	b := newBench(t, 2000)
	stubborn := b.run(256, 1024, 1024)
	b.look()
	b.hv.SetMemoryStats(b.record(stubborn).UUID, hypervisor.MemoryStats{Actual: 1024 * mib, Total: 1000 * mib})
	starter := b.vm(1024, 1024, 1024)
	b.schedule(starter)
	granted := make(chan error, 1)
	go func() { granted <- b.m.Claim(b.ctx, b.host.ref, starter) }()
	var err error
	for waits := true; waits; {
		select {
		case err = <-granted:
			waits = false
		default:
			b.look()
		}
	}
	var refused *api.Error
	if !errors.As(err, &refused) || refused.Code != api.CodeVMsFailedToCooperate {
		t.Errorf("the start is answered with %v", err)
	}
	if b.m.Cooperative(stubborn) || !b.m.Cooperative(starter) {
		t.Error("who cooperates is told wrong")
	}
}

// TestClaimEnds: with its caller, with its time, and at once when there is never room.
func TestClaimEnds(t *testing.T) {
	b := newBench(t, 1500)
	slow := b.run(256, 1024, 1024)
	b.look()
	starter := b.vm(512, 512, 512)
	b.schedule(starter)
	gone, cancel := context.WithCancelCause(b.ctx)
	cancel(api.ErrCancelled)
	if err := b.m.Claim(gone, b.host.ref, starter); !errors.Is(err, api.ErrCancelled) {
		t.Errorf("cancelled: %v", err)
	}
	b.edit(starter, func(vm *api.VM) { vm.MemoryStaticMax = 1400 * mib })
	var refused *api.Error
	if err := b.m.Claim(b.ctx, b.host.ref, starter); !errors.As(err, &refused) || refused.Code != api.CodeHostNotEnoughFreeMemory {
		t.Errorf("too large: %v", err)
	}
	b.edit(starter, func(vm *api.VM) { vm.MemoryStaticMax = 900 * mib })
	granted, before := make(chan error, 1), b.clock.waiting()
	go func() { granted <- b.m.Claim(b.ctx, b.host.ref, starter) }()
	for b.clock.waiting() == before { // its time has to run before this one's does
		runtime.Gosched()
	}
	left := int64(1024 * mib)
	for range 400 { // it moves all the time, and too little
		left -= mib / 2
		b.hv.SetMemoryStats(b.record(slow).UUID, hypervisor.MemoryStats{Actual: left, Total: 1})
		b.look()
		if left < 900*mib {
			break
		}
	}
	select {
	case err := <-granted:
		if !errors.As(err, &refused) || refused.Code != api.CodeHostNotEnoughFreeMemory {
			t.Errorf("after its time: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it waits for ever")
	}
	if err := b.m.Claim(b.ctx, "OpaqueRef:other", starter); err == nil {
		t.Error("memory of a host nobody knows was claimed")
	}
}

// TestClaimOfWhatHasEnded: a start whose end is recorded while it waits is told so by
// name.
func TestClaimOfWhatHasEnded(t *testing.T) {
	b := newBench(t, 1500)
	ref := b.vm(512, 512, 512) // scheduled to no host
	for _, c := range []struct {
		vm   api.VMRef
		code string
	}{{ref, api.CodeVMHalted}, {"OpaqueRef:destroyed", api.CodeHandleInvalid}} {
		var refused *api.Error
		if err := b.m.Claim(b.ctx, b.host.ref, c.vm); !errors.As(err, &refused) || refused.Code != c.code {
			t.Errorf("got %v, want %s", err, c.code)
		}
	}
}

// TestRowsAreTheLedger: another process knows from them what is promised, and tells
// the balloons again.
func TestRowsAreTheLedger(t *testing.T) {
	b := newBench(t, 3000)
	ref := b.run(256, 1024, 1024)
	b.look()
	b.edit(ref, func(vm *api.VM) { vm.MemoryDynamicMax = 512 * mib })
	b.look()
	b.look()
	b.targets(512, ref)
	must(t, b.hv.SetMemoryTarget(b.ctx, b.record(ref).UUID, 300*mib)) // a former process died after telling
	b.restart()
	b.look()
	b.look()
	b.targets(512, ref)
	b.hv.FailNext("SetMemoryTarget", hypervisor.ErrUnknownOutcome)
	b.edit(ref, func(vm *api.VM) { vm.MemoryDynamicMax = 800 * mib })
	if err := b.m.Look(b.ctx); err == nil {
		t.Error("an answer that was lost is no error")
	}
	if got := b.record(ref).MemoryTarget; got != 800*mib {
		t.Errorf("the balloon may have been told 800 MiB, and the row promises %d", got/mib)
	}
	b.look()
	b.look()
	b.targets(800, ref)
}

// TestNewDomainIsIntroduced: what was told the VM's domain before does not count.
func TestNewDomainIsIntroduced(t *testing.T) {
	b := newBench(t, 3000)
	ref := b.run(256, 1024, 1024)
	b.edit(ref, func(vm *api.VM) { vm.MemoryDynamicMax = 512 * mib })
	b.look()
	b.look()
	b.targets(512, ref)
	b.edit(ref, func(vm *api.VM) { vm.MemoryDynamicMax = 1024 * mib })
	b.hv.End(b.record(ref).UUID, hypervisor.ByCrash)
	b.start(ref)
	if free := memory.Free(b.db.Snapshot(), b.host.ref, b.host.total); free != (3000-1024-overhead)*mib {
		t.Errorf("free %d beside a domain just made", free/mib)
	}
	b.look()
	b.targets(1024, ref)
}

// TestRunLooks: at once when poked, else at its interval.
func TestRunLooks(t *testing.T) {
	b := newBench(t, 3000)
	ref := b.run(256, 1024, 1024)
	ctx, cancel := context.WithCancel(b.ctx)
	done := make(chan error, 1)
	w := b.db.Watch()
	defer w.Close()
	go func() { done <- b.m.Run(ctx) }()
	await := func(want int64) {
		t.Helper()
		limit := time.After(5 * time.Second)
		for b.record(ref).MemoryTarget != want*mib {
			select {
			case <-w.C():
				w.Changes()
				b.clock.advance(10 * time.Second)
			case <-limit:
				t.Fatalf("the target is %d", b.record(ref).MemoryTarget/mib)
			}
		}
	}
	b.edit(ref, func(vm *api.VM) { vm.MemoryDynamicMax = 600 * mib })
	b.m.Poke()
	await(600)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
