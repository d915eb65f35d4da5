package memory_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/memory"
)

// lossy is a hypervisor some of whose answers get lost, the deed done or not. Its
// guests are slow: each time they are asked they have come half of the way.
type lossy struct {
	*hypervisor.Fake
	lose, deed bool // the next one

	mu     sync.Mutex
	actual map[string]int64
}

// MemoryStats implements memory.Balloons.
func (l *lossy) MemoryStats(_ context.Context, uuid string) (hypervisor.MemoryStats, error) {
	spec, ok := l.Spec(uuid)
	if !ok {
		return hypervisor.MemoryStats{}, hypervisor.ErrNotFound
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	has, seen := l.actual[uuid]
	if !seen {
		has = spec.MemoryBytes
	}
	if way := spec.MemoryTargetBytes - has; way > 2*mib || way < -2*mib {
		has += way / 2
	} else {
		has = spec.MemoryTargetBytes
	}
	l.actual[uuid] = has
	return hypervisor.MemoryStats{Actual: has, Total: has}, nil
}

// SetMemoryTarget implements memory.Balloons.
func (l *lossy) SetMemoryTarget(ctx context.Context, uuid string, bytes int64) error {
	l.mu.Lock()
	lose, deed := l.lose, l.deed
	l.lose = false
	l.mu.Unlock()
	if !lose || deed {
		if err := l.Fake.SetMemoryTarget(ctx, uuid, bytes); err != nil {
			return err
		}
	}
	if lose {
		return hypervisor.ErrUnknownOutcome
	}
	return nil
}

// model drives a Manager through what can happen to it.
type model struct {
	*bench
	r       *rapid.T
	hv      *lossy
	running []api.VMRef
}

// anew is another process: what the former told is forgotten.
func (m *model) anew() {
	m.m = memory.New(memory.Config{DB: m.db, Sites: []memory.Site{{Host: m.host, Balloons: m.hv}}, Clock: m.clock})
}

// start starts a VM as package vm does, and sees its refusal through.
func (m *model) start() {
	lo := rapid.Int64Range(16, 300).Draw(m.r, "min")
	hi := lo + rapid.Int64Range(0, 300).Draw(m.r, "range")
	ref := m.vm(lo, hi, hi+rapid.Int64Range(0, 100).Draw(m.r, "beyond"))
	if memory.Footprint(m.record(ref)) > m.room(ref).Most {
		return
	}
	m.schedule(ref)
	granted := make(chan error, 1)
	go func() { granted <- m.m.Claim(m.ctx, m.host.ref, ref) }()
	for {
		select {
		case err := <-granted:
			if err == nil {
				m.bench.start(ref)
				m.running = append(m.running, ref)
			} else {
				m.edit(ref, func(vm *api.VM) { vm.ScheduledToBeResidentOn = "" })
			}
			return
		default:
			m.look()
		}
	}
}

func (m *model) stop() {
	if i := m.pick(); i >= 0 {
		ref := m.running[i]
		m.running = slices.Delete(m.running, i, i+1)
		m.bench.hv.End(m.record(ref).UUID, hypervisor.ByGuest)
		m.edit(ref, func(vm *api.VM) { vm.ResidentOn, vm.PowerState = "", api.VMPowerStateHalted })
	}
}

func (m *model) pick() int {
	if len(m.running) == 0 {
		return -1
	}
	return rapid.IntRange(0, len(m.running)-1).Draw(m.r, "who")
}

// rerange changes a dynamic range, where the account has room for its minimum.
func (m *model) rerange() {
	i := m.pick()
	if i < 0 {
		return
	}
	ref := m.running[i]
	vm := m.record(ref)
	lo := rapid.Int64Range(16*mib, vm.MemoryStaticMax).Draw(m.r, "min")
	hi := rapid.Int64Range(lo, vm.MemoryStaticMax).Draw(m.r, "max")
	if lo+memory.Overhead(vm.MemoryStaticMax, vm.VCPUsMax) <= m.room(ref).Most {
		m.edit(ref, func(vm *api.VM) { vm.MemoryDynamicMin, vm.MemoryDynamicMax = lo, hi })
	}
}

// look looks once; a lost answer is an error that changes nothing for the ledger.
func (m *model) look() {
	_ = m.m.Look(m.ctx)
	m.clock.advance(1e9)
	m.check()
}

// check compares the ledger with what the hypervisor was really told.
func (m *model) check() {
	var told int64
	for _, ref := range m.running {
		vm := m.record(ref)
		spec, ok := m.bench.hv.Spec(vm.UUID)
		if !ok {
			m.r.Fatalf("%s does not run", ref)
		}
		overhead := memory.Overhead(vm.MemoryStaticMax, vm.VCPUsMax)
		told += spec.MemoryTargetBytes + overhead
		if held := memory.HeldBy(m.db.Snapshot())[m.host.ref]; held < told {
			m.r.Fatalf("guests were told they may have %d, the ledger holds %d", told, held)
		}
	}
	if told > m.host.total {
		m.r.Fatalf("guests were told they may have %d of %d", told, m.host.total)
	}
}

// TestLedgerIsOnTheSafeSide of what the hypervisor was told, whatever starts, stops,
// changes or fails, answers that are lost and a process that starts anew included; and
// once all is quiet nothing is held that could be had.
func TestLedgerIsOnTheSafeSide(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b := newBench(t, rapid.Int64Range(500, 4000).Draw(r, "total"))
		m := &model{bench: b, r: r, hv: &lossy{Fake: b.hv, actual: map[string]int64{}}}
		m.anew()
		for range rapid.IntRange(1, 25).Draw(r, "steps") {
			switch rapid.IntRange(0, 6).Draw(r, "step") {
			case 0, 1:
				m.start()
			case 2:
				m.stop()
			case 3:
				m.rerange()
			case 4:
				m.anew()
			case 5:
				m.hv.lose, m.hv.deed = true, rapid.Bool().Draw(r, "deed")
			}
			m.look()
		}
		m.hv.lose = false
		for range 40 {
			m.look()
		}
		m.quiet()
	})
}

// quiet checks what holds when all guests are where they should be.
func (m *model) quiet() {
	free := memory.Free(m.db.Snapshot(), m.host.ref, m.host.total)
	if free < 0 {
		m.r.Fatalf("%d bytes more are held than there are", -free)
	}
	slack := int64(len(m.running)+1) * 3 * mib
	for _, ref := range m.running {
		vm := m.record(ref)
		spec, _ := m.bench.hv.Spec(vm.UUID)
		least := max(vm.MemoryDynamicMin, 16*mib)
		if spec.MemoryTargetBytes < least || spec.MemoryTargetBytes > max(vm.MemoryDynamicMax, least) {
			m.r.Errorf("a guest is told %d, its range is %d to %d", spec.MemoryTargetBytes, vm.MemoryDynamicMin, vm.MemoryDynamicMax)
		}
		if free > slack && spec.MemoryTargetBytes < vm.MemoryDynamicMax-mib {
			m.r.Errorf("a guest has %d of %d, and %d are free", spec.MemoryTargetBytes, vm.MemoryDynamicMax, free)
		}
	}
}
