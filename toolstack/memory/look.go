package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// Look takes one look at every host: it asks the balloons, writes what they answer,
// decides and acts. Run does so again and again.
func (m *Manager) Look(ctx context.Context) error {
	var failed error
	for _, a := range m.accounts {
		_, err := m.look(ctx, a)
		failed = errors.Join(failed, err)
	}
	return failed
}

// look reports whether the host should be looked at again soon.
func (m *Manager) look(ctx context.Context, a *account) (restless bool, err error) {
	a.turn.Lock()
	defer a.turn.Unlock()
	if err := m.record(ctx, a, m.ask(ctx, a)); err != nil {
		return false, err
	}
	changes := m.decide(a)
	failed := m.free(ctx, a, changes)
	if err := m.take(ctx, a, changes); err != nil {
		failed = errors.Join(failed, err)
	}
	m.admit(a)
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(changes) > 0 || len(a.claims) > 0 || a.policy.Restless(a.guests(m.cfg.DB.Snapshot(), "")), failed
}

// askAtOnce bounds how many guests are asked at the same time.
const askAtOnce = 8

// observation is what a balloon answered.
type observation struct {
	told
	actual int64
}

// ask asks the balloons of those that have one. Of one that does not answer now,
// what was seen last stays.
func (m *Manager) ask(ctx context.Context, a *account) map[api.VMRef]observation {
	var mu sync.Mutex
	seen := map[api.VMRef]observation{}
	var group errgroup.Group
	group.SetLimit(askAtOnce)
	s := m.cfg.DB.Snapshot()
	for ref, vm := range db.All[api.VM](s) {
		if vm.ResidentOn != a.Host.Ref() || !vm.ScheduledToBeResidentOn.IsNull() || vm.IsControlDomain || !balloons(vm) {
			continue
		}
		group.Go(func() error {
			o, err := a.observe(ctx, ref, vm, startOf(s, vm))
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				seen[ref] = o
			} else if !errors.Is(err, hypervisor.ErrNotFound) {
				m.cfg.Log.Warn("memory-ask", "uuid", vm.UUID, "err", err)
			}
			return nil
		})
	}
	_ = group.Wait() // none fails
	return seen
}

func (a *account) observe(ctx context.Context, ref api.VMRef, vm *api.VM, started time.Time) (o observation, err error) {
	if o.told, err = a.introduce(ctx, ref, vm, started); err != nil {
		return o, err
	}
	ctx, cancel := context.WithTimeout(ctx, balloonTimeout)
	defer cancel()
	stats, err := a.Balloons.MemoryStats(ctx, vm.UUID)
	o.actual, o.live = observe(vm, stats)
	return o, err
}

// introduce tells a domain seen for the first time the target its row promises: what
// a former process told it is not known.
func (a *account) introduce(ctx context.Context, ref api.VMRef, vm *api.VM, started time.Time) (told, error) {
	a.mu.Lock()
	t, known := a.told[ref]
	a.mu.Unlock()
	if known && t.started.Equal(started) {
		return t, nil
	}
	t = told{started: started, target: min(vm.MemoryTarget, vm.MemoryStaticMax)}
	if t.target < leastMemory {
		return t, fmt.Errorf("vm %s: a memory target of %d bytes", vm.UUID, t.target)
	}
	return t, a.tell(ctx, ref, vm.UUID, t)
}

// tell sets a balloon's target and remembers it. After an error it is not known what
// the balloon was told, so the domain is introduced anew.
func (a *account) tell(ctx context.Context, ref api.VMRef, uuid string, t told) error {
	ctx, cancel := context.WithTimeout(ctx, balloonTimeout)
	defer cancel()
	err := a.Balloons.SetMemoryTarget(ctx, uuid, t.target)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		delete(a.told, ref)
		return err
	}
	a.told[ref] = t
	return nil
}

// disbelief is how much more than it should QEMU may have on the host before the
// balloon is not believed: a guest that was reset has its memory back before its driver says so.
const disbelief = 128 * mib

// observe makes a guest's memory of statistics. What a balloon that never answered
// leaves is static_max.
func observe(vm *api.VM, stats hypervisor.MemoryStats) (actual int64, live bool) {
	live = stats.Total > 0 || stats.Actual > 0 && stats.Actual < vm.MemoryStaticMax-tolerance
	actual = stats.Actual
	if !live || actual <= 0 || actual > vm.MemoryStaticMax {
		actual = vm.MemoryStaticMax
	}
	if used := stats.RSS - Overhead(vm.MemoryStaticMax, vm.VCPUsMax); used > actual+disbelief {
		actual = min(used, vm.MemoryStaticMax)
	}
	return actual, live
}

// record writes what was seen, and lowers what is promised to what was told before.
func (m *Manager) record(ctx context.Context, a *account, seen map[api.VMRef]observation) error {
	a.mu.Lock()
	maps.DeleteFunc(a.told, func(ref api.VMRef, _ told) bool {
		vm, err := db.Get(m.cfg.DB.Snapshot(), ref)
		return err != nil || vm.ResidentOn != a.Host.Ref()
	})
	for ref, o := range seen {
		a.told[ref] = o.told
	}
	a.mu.Unlock()
	s := m.cfg.DB.Snapshot()
	stale := false
	for ref, o := range seen {
		stale = stale || outdated(s, ref, o)
	}
	if !stale {
		return m.recordFree(ctx, a)
	}
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		for ref, o := range seen {
			if err := o.write(tx, ref, m.cfg.Clock.Now()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record memory: %w", err)
	}
	return m.recordFree(ctx, a)
}

// ceil makes whole MiB of a guest's memory, so that a few pages more or less write
// nothing.
func ceil(bytes int64) int64 { return (bytes + mib - 1) / mib * mib }

func (o observation) row(vm *api.VM) int64 { return min(ceil(o.actual), vm.MemoryStaticMax) }

// outdated reports whether a row says otherwise than what was seen of the same domain.
func outdated(r db.Reader, ref api.VMRef, o observation) bool {
	vm, err := db.Get(r, ref)
	if err != nil || vm.ResidentOn.IsNull() || !o.started.Equal(startOf(r, vm)) {
		return false
	}
	metrics, err := db.Get(r, vm.Metrics)
	return err == nil && (metrics.MemoryActual != o.row(vm) || vm.MemoryTarget > o.target)
}

func (o observation) write(tx *db.Tx, ref api.VMRef, now time.Time) error {
	if !outdated(tx, ref, o) {
		return nil
	}
	vm, err := db.Edit(tx, ref)
	if err != nil {
		return err
	}
	vm.MemoryTarget = min(vm.MemoryTarget, o.target)
	metrics, err := db.Edit(tx, vm.Metrics)
	if err == nil {
		metrics.MemoryActual, metrics.LastUpdated = o.row(vm), now.UTC()
	}
	return err
}

// recordFree keeps the host's figure for clients that show it.
func (m *Manager) recordFree(ctx context.Context, a *account) error {
	free := func(r db.Reader) int64 { return max(Free(r, a.Host.Ref(), a.Host.GuestMemory()), 0) }
	s := m.cfg.DB.Snapshot()
	host, err := db.Get(s, a.Host.Ref())
	if err != nil {
		return err
	}
	if metrics, err := db.Get(s, host.Metrics); err != nil || metrics.MemoryFree == free(s) {
		return nil // hosts of tests may have none
	}
	return db.Modify(ctx, m.cfg.DB, host.Metrics, func(tx *db.Tx, metrics *api.HostMetrics) error {
		metrics.MemoryFree, metrics.LastUpdated = free(tx), m.cfg.Clock.Now().UTC()
		return nil
	})
}

func (m *Manager) decide(a *account) []Change {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.policy.Decide(m.cfg.Clock.Now(), a.Host.GuestMemory(), a.guests(m.cfg.DB.Snapshot(), ""))
}

// free tells the balloons that shall give. Their rows follow when that was seen.
func (m *Manager) free(ctx context.Context, a *account, changes []Change) (failed error) {
	for _, c := range changes {
		if !c.Takes {
			failed = errors.Join(failed, m.tell(ctx, a, c))
		}
	}
	return failed
}

// take raises targets: first in the ledger, all or none, if there is still room for
// them; then the balloons.
func (m *Manager) take(ctx context.Context, a *account, changes []Change) error {
	var taken []Change
	for _, c := range changes {
		if c.Takes {
			taken = append(taken, c)
		}
	}
	if len(taken) == 0 {
		return nil
	}
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error { return m.promise(tx, a, taken) })
	if errors.Is(err, errTaken) {
		m.Poke() // somebody came first
		return nil
	}
	if err != nil {
		return fmt.Errorf("promise memory: %w", err)
	}
	var failed error
	for _, c := range taken {
		failed = errors.Join(failed, m.tell(ctx, a, c))
	}
	return failed
}

// errTaken: a start was quicker.
var errTaken = errors.New("the memory is no longer free")

func (m *Manager) promise(tx *db.Tx, a *account, taken []Change) error {
	costs := false
	for _, c := range taken {
		vm, err := db.Edit(tx, api.VMRef(c.ID))
		if err != nil || vm.ResidentOn != a.Host.Ref() || c.Target > max(vm.MemoryDynamicMax, leastMemory) {
			return errTaken
		}
		before, _ := entry(tx, vm, a.Host.Ref())
		vm.MemoryTarget = max(vm.MemoryTarget, c.Target)
		after, _ := entry(tx, vm, a.Host.Ref())
		costs = costs || after.hold() > before.hold()
	}
	if costs && Free(tx, a.Host.Ref(), a.Host.GuestMemory()) < 0 {
		return errTaken
	}
	return nil
}

// tell passes a change on to a balloon that was asked before.
func (m *Manager) tell(ctx context.Context, a *account, c Change) error {
	ref := api.VMRef(c.ID)
	vm, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil || vm.ResidentOn != a.Host.Ref() {
		return nil // it has ended meanwhile
	}
	a.mu.Lock()
	t, known := a.told[ref]
	a.mu.Unlock()
	if !known || !t.started.Equal(startOf(m.cfg.DB.Snapshot(), vm)) {
		return nil
	}
	t.target = c.Target
	if err := a.tell(ctx, ref, vm.UUID, t); err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		return fmt.Errorf("memory target of vm %s: %w", vm.UUID, err)
	}
	return nil
}
