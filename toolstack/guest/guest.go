// Package guest keeps in touch with the agents inside running machines: what they tell
// of their guest is in VM_guest_metrics, and they are asked to power off, and to hold
// still for a snapshot. Package qga has the protocol.
//
// Each running machine has a watcher, a goroutine that owns the one connection to the
// agent's port. All questions are its: those of every half a minute, soon after an agent
// has appeared more often, and those of calls, which are handed to it and come back
// within a limit. A guest that does not answer, or answers nonsense, costs its watcher's
// time and nobody else's: before an agent answers a watcher waits for it and holds
// nothing, and only so many do a round of questions at a time. A call is refused at once
// where no agent is known to answer.
//
// A row changes only when what it says does. Package vm makes it when a machine starts,
// and removes it when the machine ends. A watcher writes to it only while the machine
// runs, and makes one only where the machine was started before there were such rows.
//
// A guest that was frozen is thawed, whatever becomes of who wanted it: after a limit;
// when the conversation broke off, by the next one; when nobody remembers, as after a
// restart of the toolstack, because every round asks whether the guest is frozen, save
// those while a call holds it. Nobody but a watcher talks to an agent, so a guest that
// is frozen without a call that holds it was frozen by a process that is no more, or for
// a caller that is.
//
// All methods may be called from many goroutines.
package guest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Errors of calls to an agent, beside those of package qga.
var (
	// ErrAbsent: no agent is known to answer.
	ErrAbsent = errors.New("no agent answers in the guest")
	// ErrUnsupported: the agent cannot do that.
	ErrUnsupported = errors.New("the guest's agent cannot do that")
	// ErrThawed: the guest was let go on before it was told to.
	ErrThawed = errors.New("the guest was frozen for too long")
)

// Ports are the ports of agents on one host.
type Ports interface {
	DialAgent(ctx context.Context, uuid string) (net.Conn, error)
}

// Config is what a Manager needs.
type Config struct {
	DB *db.DB
	// Ports is nil for hosts this process does not speak for.
	Ports func(api.HostRef) Ports
	Log   *slog.Logger
}

// maxRounds is how many agents are asked about their guests at a time.
const maxRounds = 8

// Manager has a watcher for each running machine.
type Manager struct {
	cfg    Config
	rounds chan struct{}

	mu       sync.Mutex
	watchers map[api.VMRef]*watcher
}

// New returns a Manager; Run makes it work.
func New(cfg Config) *Manager {
	if cfg.Log == nil {
		cfg.Log = journal.Discard()
	}
	return &Manager{cfg: cfg, rounds: make(chan struct{}, maxRounds), watchers: map[api.VMRef]*watcher{}}
}

// Run follows the machines until the context ends.
func (m *Manager) Run(ctx context.Context) error {
	class := api.ClassOf[api.VM]()
	snap := m.cfg.DB.Snapshot()
	w := m.cfg.DB.WatchSince(snap.Generation(), func(c *db.Change) bool { return c.Class == class })
	defer w.Close()
	defer m.stopAll()
	m.followAll(ctx, snap)
	for {
		select {
		case <-w.C():
			snap, changes, ok := w.Next()
			if !ok {
				m.followAll(ctx, snap)
				continue
			}
			for _, c := range changes {
				m.follow(ctx, snap, api.VMRef(c.Ref))
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// followAll looks at every machine, and at those that had a watcher.
func (m *Manager) followAll(ctx context.Context, snap *db.Snapshot) {
	m.mu.Lock()
	refs := make([]api.VMRef, 0, len(m.watchers))
	for ref := range m.watchers {
		refs = append(refs, ref)
	}
	m.mu.Unlock()
	for ref := range db.All[api.VM](snap) {
		refs = append(refs, ref)
	}
	for _, ref := range refs {
		m.follow(ctx, snap, ref)
	}
}

// follow gives a machine that runs here a watcher, and takes it from any other.
func (m *Manager) follow(ctx context.Context, snap *db.Snapshot, ref api.VMRef) {
	vm, err := db.Get(snap, ref)
	var ports Ports
	if err == nil && vm.PowerState == api.VMPowerStateRunning && !vm.IsControlDomain && !vm.ResidentOn.IsNull() {
		ports = m.cfg.Ports(vm.ResidentOn)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watchers[ref]
	switch {
	case w != nil && (ports == nil || w.host != vm.ResidentOn):
		delete(m.watchers, ref)
		w.cancel()
		if ports == nil {
			return
		}
	case w != nil || ports == nil:
		return
	}
	m.watchers[ref] = m.watch(ctx, ref, vm, ports)
}

// stopAll returns when no watcher is left.
func (m *Manager) stopAll() {
	m.mu.Lock()
	left := m.watchers
	m.watchers = map[api.VMRef]*watcher{}
	m.mu.Unlock()
	for _, w := range left {
		w.cancel()
	}
	for _, w := range left {
		<-w.done
	}
}

// watcherOf finds the watcher of a machine, nil where there is none.
func (m *Manager) watcherOf(uuid string) *watcher {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.watchers {
		if w.uuid == uuid {
			return w
		}
	}
	return nil
}
