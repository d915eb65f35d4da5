package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
		_, err := m.look(ctx, a, m.lines(a.Host.Ref()))
		failed = errors.Join(failed, err)
	}
	return failed
}

// look reports whether the host should be looked at again soon. lines are its ledger
// a moment ago: where they say that nothing can move, as on most hosts, they are all
// that is read.
func (m *Manager) look(ctx context.Context, a *account, lines []line) (restless bool, err error) {
	a.turn.Lock()
	defer a.turn.Unlock()
	if !a.moves(lines) {
		return false, m.recordFree(ctx, a, lines)
	}
	if err := m.record(ctx, a, m.ask(ctx, a)); err != nil {
		return false, err
	}
	changes := m.decide(a)
	failed := m.free(ctx, a, changes)
	if err := m.take(ctx, a, changes); err != nil {
		failed = errors.Join(failed, err)
	}
	m.admit(a)
	guests := a.guests(m.lines(a.Host.Ref()))
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(changes) > 0 || len(a.claims) > 0 || a.policy.Restless(guests), failed
}

// askAtOnce bounds how many guests are asked at the same time.
const askAtOnce = 8

// moves reports whether there is a guest that can have more or less, or one that
// waits for memory.
func (a *account) moves(lines []line) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.claims) > 0 || slices.ContainsFunc(lines, func(l line) bool { return l.balloons() })
}

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
	for _, l := range m.lines(a.Host.Ref()) {
		if l.Arriving || !l.balloons() {
			continue
		}
		group.Go(func() error {
			o, err := a.observe(ctx, l)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				seen[l.ref] = o
			} else if !errors.Is(err, hypervisor.ErrNotFound) && !errors.Is(err, hypervisor.ErrUnavailable) {
				m.cfg.Log.Warn("memory-ask", "uuid", l.vm.UUID, "err", err)
			}
			return nil
		})
	}
	_ = group.Wait() // none fails
	return seen
}

func (a *account) observe(ctx context.Context, l line) (o observation, err error) {
	if o.told, err = a.introduce(ctx, l); err != nil {
		return o, err
	}
	ctx, cancel := context.WithTimeout(ctx, balloonTimeout)
	defer cancel()
	stats, err := a.Balloons.MemoryStats(ctx, l.vm.UUID)
	o.actual, o.live = observe(l.Guest, stats)
	return o, err
}

// introduce tells a domain seen for the first time the target its row promises: what
// a former process told it is not known.
func (a *account) introduce(ctx context.Context, l line) (told, error) {
	a.mu.Lock()
	t, known := a.told[l.ref]
	a.mu.Unlock()
	if known && t.started.Equal(l.started) {
		return t, nil
	}
	if l.Promise < leastMemory {
		return t, fmt.Errorf("vm %s: a memory target of %d bytes", l.vm.UUID, l.Promise)
	}
	t = told{started: l.started, target: l.Promise}
	return t, a.tell(ctx, l.ref, l.vm.UUID, t)
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
func observe(g Guest, stats hypervisor.MemoryStats) (actual int64, live bool) {
	live = stats.Total > 0 || stats.Actual > 0 && stats.Actual < g.StaticMax-tolerance
	actual = stats.Actual
	if !live || actual <= 0 || actual > g.StaticMax {
		actual = g.StaticMax
	}
	if used := stats.RSS - g.Overhead; used > actual+disbelief {
		actual = min(used, g.StaticMax)
	}
	return actual, live
}

// record writes what was seen, and lowers what is promised to what was told before.
func (m *Manager) record(ctx context.Context, a *account, seen map[api.VMRef]observation) error {
	lines := m.lines(a.Host.Ref())
	a.note(lines, seen)
	if !slices.ContainsFunc(lines, func(l line) bool { return seen[l.ref].outdates(l) }) {
		return m.recordFree(ctx, a, lines)
	}
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		for ref, o := range seen {
			if vm, err := db.Get(tx, ref); err != nil || vm.ResidentOn != a.Host.Ref() || !o.outdates(lineOf(tx, ref, vm)) {
				continue
			}
			if err := o.write(tx, ref, m.cfg.Clock.Now()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record memory: %w", err)
	}
	return m.recordFree(ctx, a, m.lines(a.Host.Ref()))
}

// note remembers what was seen, and forgets who is gone.
func (a *account) note(lines []line, seen map[api.VMRef]observation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	here := map[api.VMRef]bool{}
	for _, l := range lines {
		here[l.ref] = !l.Arriving
	}
	maps.DeleteFunc(a.told, func(ref api.VMRef, _ told) bool { return !here[ref] })
	for ref, o := range seen {
		if here[ref] {
			a.told[ref] = o.told
		}
	}
}

// row is what is written: whole MiB, so that a few pages more or less write nothing.
func (o observation) row(l line) int64 { return min((o.actual+mib-1)/mib*mib, l.StaticMax) }

// outdates reports whether a row says otherwise than what was seen of the same domain.
func (o observation) outdates(l line) bool {
	return o.actual > 0 && o.started.Equal(l.started) && (l.Actual != o.row(l) || l.vm.MemoryTarget > o.target)
}

func (o observation) write(tx *db.Tx, ref api.VMRef, now time.Time) error {
	vm, err := db.Edit(tx, ref)
	if err != nil {
		return err
	}
	vm.MemoryTarget = min(vm.MemoryTarget, o.target)
	metrics, err := db.Edit(tx, vm.Metrics)
	if err == nil {
		metrics.MemoryActual, metrics.LastUpdated = o.row(lineOf(tx, ref, vm)), now.UTC()
	}
	return err
}

// recordFree keeps the host's figure for clients that show it.
func (m *Manager) recordFree(ctx context.Context, a *account, lines []line) error {
	free := a.Host.GuestMemory()
	for _, l := range lines {
		free -= l.hold()
	}
	free = max(free, 0)
	s := m.cfg.DB.Snapshot()
	host, err := db.Get(s, a.Host.Ref())
	if err != nil {
		return err
	}
	if metrics, err := db.Get(s, host.Metrics); err != nil || metrics.MemoryFree == free {
		return nil // hosts of tests may have none
	}
	return db.Modify(ctx, m.cfg.DB, host.Metrics, func(_ *db.Tx, metrics *api.HostMetrics) error {
		metrics.MemoryFree, metrics.LastUpdated = free, m.cfg.Clock.Now().UTC()
		return nil
	})
}

func (m *Manager) decide(a *account) []Change {
	guests := a.guests(m.lines(a.Host.Ref()))
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.policy.Decide(m.cfg.Clock.Now(), a.Host.GuestMemory(), guests)
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
	taken := slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return !c.Takes })
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
		ref := api.VMRef(c.ID)
		vm, err := db.Edit(tx, ref)
		if err != nil || vm.ResidentOn != a.Host.Ref() {
			return errTaken
		}
		before := lineOf(tx, ref, vm)
		if c.Target > before.Max {
			return errTaken
		}
		vm.MemoryTarget = max(vm.MemoryTarget, c.Target)
		costs = costs || lineOf(tx, ref, vm).hold() > before.hold()
	}
	if costs && Free(tx, a.Host.Ref(), a.Host.GuestMemory()) < 0 {
		return errTaken
	}
	return nil
}

// tell passes a change on to a balloon that was asked before.
func (m *Manager) tell(ctx context.Context, a *account, c Change) error {
	lines := m.lines(a.Host.Ref())
	i := slices.IndexFunc(lines, func(l line) bool { return l.ID == c.ID && !l.Arriving })
	if i < 0 {
		return nil // it has ended meanwhile
	}
	l := lines[i]
	a.mu.Lock()
	t, known := a.told[l.ref]
	a.mu.Unlock()
	if !known || !t.started.Equal(l.started) {
		return nil
	}
	t.target = c.Target
	if err := a.tell(ctx, l.ref, l.vm.UUID, t); err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		return fmt.Errorf("memory target of vm %s: %w", l.vm.UUID, err)
	}
	return nil
}
