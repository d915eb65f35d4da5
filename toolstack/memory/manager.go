package memory

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

const (
	// interval is how often a host at rest is looked at.
	interval = 10 * time.Second
	// haste is how often, while guests are on their way or somebody waits.
	haste = 500 * time.Millisecond
	// balloonTimeout bounds a question to one guest's balloon.
	balloonTimeout = 3 * time.Second
	// claimTimeout bounds a start's wait for memory, where guests move but too slowly.
	claimTimeout = 2 * time.Minute
)

// Host is whose memory is accounted.
type Host interface {
	Ref() api.HostRef
	// GuestMemory is what all guests together may use, in bytes.
	GuestMemory() int64
}

// Balloons is what this package needs of a host's hypervisor.
type Balloons interface {
	SetMemoryTarget(ctx context.Context, uuid string, bytes int64) error
	MemoryStats(ctx context.Context, uuid string) (hypervisor.MemoryStats, error)
}

// Site is a host and its guests' balloons.
type Site struct {
	Host     Host
	Balloons Balloons
}

// Clock is the time; nil in a Config is the real one.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

type realClock struct{}

func (realClock) Now() time.Time                         { return time.Now() }
func (realClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Config is what a Manager is made of. Clock and Log may be nil.
type Config struct {
	DB    *db.DB
	Sites []Site
	Clock Clock
	Log   *slog.Logger
}

// Manager applies a Policy to each host.
type Manager struct {
	cfg      Config
	accounts map[api.HostRef]*account // never changes
	wake     chan struct{}            // capacity 1: look now

	mu     sync.Mutex
	read   *db.Snapshot // what ledger is of
	ledger map[api.HostRef][]line
}

// account is what is known of one host beside its ledger.
type account struct {
	Site
	turn sync.Mutex // one look at a time

	mu     sync.Mutex
	policy *Policy
	told   map[api.VMRef]told
	claims []*claim // the longest waiting first
}

// told is what a domain's balloon was told last.
type told struct {
	started time.Time // which domain of the VM
	target  int64
	live    bool // it answered, when asked last
}

// New returns a Manager. Without Run it keeps the ledger, and nobody is squeezed.
func New(cfg Config) *Manager {
	if cfg.Clock == nil {
		cfg.Clock = realClock{}
	}
	if cfg.Log == nil {
		cfg.Log = journal.Discard()
	}
	m := &Manager{cfg: cfg, accounts: map[api.HostRef]*account{}, wake: make(chan struct{}, 1)}
	for _, s := range cfg.Sites {
		m.accounts[s.Host.Ref()] = &account{Site: s, policy: NewPolicy(), told: map[api.VMRef]told{}}
	}
	return m
}

// Poke makes Run look at once: something has changed.
func (m *Manager) Poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run balances all hosts until the context ends: at its interval, soon after VMs have
// changed, and at once when poked.
func (m *Manager) Run(ctx context.Context) error {
	w := m.cfg.DB.Watch()
	defer w.Close()
	for {
		wait := interval
		before := m.all()
		for _, a := range m.accounts {
			restless, err := m.look(ctx, a, before[a.Host.Ref()])
			if err != nil && ctx.Err() == nil {
				m.cfg.Log.Warn("memory-balance", "host", a.Host.Ref(), "err", err)
			}
			if restless {
				wait = haste
			}
		}
		if err := m.pause(ctx, w, wait); err != nil {
			return err
		}
	}
}

// pause waits; less when VMs change meanwhile.
func (m *Manager) pause(ctx context.Context, w *db.Watch, wait time.Duration) error {
	over, hasty := m.cfg.Clock.After(wait), wait == haste
	for {
		select {
		case <-over:
			return nil
		case <-m.wake:
			return nil
		case <-w.C():
			if vmsChanged(w) && !hasty {
				over, hasty = m.cfg.Clock.After(haste), true
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func vmsChanged(w *db.Watch) bool {
	_, changes, lost := w.Changes()
	return lost || slices.ContainsFunc(changes, func(c db.Change) bool { return c.Class.Name == "VM" })
}

// Rooms is what each host has for one more guest, beside the one named.
func (m *Manager) Rooms(r db.Reader, but api.VMRef) map[api.HostRef]Room {
	rooms := make(map[api.HostRef]Room, len(m.accounts))
	lines := ledger(r)
	for host, a := range m.accounts {
		beside := slices.DeleteFunc(lines[host], func(l line) bool { return l.ref == but })
		guests := a.guests(beside)
		total := a.Host.GuestMemory()
		a.mu.Lock()
		rooms[host] = Room{Free: total - Held(guests), Most: total - a.policy.Floor(guests)}
		a.mu.Unlock()
	}
	return rooms
}

// Cooperative is false for a guest that does not do what its balloon is told.
func (m *Manager) Cooperative(vm api.VMRef) bool {
	for _, a := range m.accounts {
		a.mu.Lock()
		stuck := a.policy.Stuck(string(vm))
		a.mu.Unlock()
		if stuck {
			return false
		}
	}
	return true
}

// Live reports whether the balloon of a running VM answers.
func (m *Manager) Live(vm api.VMRef) bool {
	for _, a := range m.accounts {
		a.mu.Lock()
		t := a.told[vm]
		a.mu.Unlock()
		if t.live {
			return true
		}
	}
	return false
}

// lines are a host's ledger as it stands. Many hosts read it of one snapshot.
func (m *Manager) lines(host api.HostRef) []line { return m.all()[host] }

func (m *Manager) all() map[api.HostRef][]line {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.cfg.DB.Snapshot(); s != m.read {
		m.read, m.ledger = s, ledger(s)
	}
	return m.ledger
}

// guests adds what is known of balloons to lines of the ledger.
func (a *account) guests(lines []line) []Guest {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]Guest, 0, len(lines))
	for _, l := range lines {
		if t, known := a.told[l.ref]; known && t.started.Equal(l.started) {
			l.Live = t.live && l.balloons()
			l.Asked = min(t.target, l.Promise)
		}
		all = append(all, l.Guest)
	}
	return all
}

// balloons reports whether a guest has less than static_max, or may. A paused one moves
// nothing.
func (l line) balloons() bool {
	return l.vm.PowerState == api.VMPowerStateRunning && min(l.Min, l.Actual, l.Promise) < l.StaticMax
}
