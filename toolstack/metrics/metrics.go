// Package metrics samples what a host and its guests use, every five seconds, and keeps
// it over time: one round-robin database (package rrd) for the host, one for each VM that
// runs here and one for each storage repository attached here. Clients read them as
// documents, as updates and source by source.
//
// The sampler is off the path of every request. It asks the kernel (package proc) and,
// with one question for all VMs, the hypervisor; one that is slow or does not answer
// costs samples and nothing else. The next look waits for the last: looks never pile up.
//
// Tick is one look, at a time that it is given. A Manager may be used by many
// goroutines; Tick is called by one at a time. The lock is held while figures are copied,
// never while anybody is waited for.
//
// A VM that does not run here is not in memory: its database is a file (see store) until
// it comes back or somebody reads it. Memory is thereby bounded by what runs.
package metrics

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/metrics/proc"
	"cairn/toolstack/metrics/rrd"
)

// Guests is what this package asks of a hypervisor.
type Guests interface {
	Stats(ctx context.Context) ([]hypervisor.Stats, error)
}

// Config is what a Manager is made of. Log may be nil.
type Config struct {
	DB       *db.DB
	ThisHost func() api.HostRef
	Guests   Guests
	Kernel   proc.Root
	Alerts   Alerts
	// FileSystems are the host's own by the names alarms know them by, with a directory
	// on each.
	FileSystems map[string]string
	// Dir keeps databases over restarts.
	Dir string
	Log *slog.Logger
}

// Manager samples and answers.
type Manager struct {
	cfg   Config
	store store
	since func(time.Time) time.Duration // how long an answer took; tests have time stand still

	// What follows is Tick's alone.
	host    hostBefore
	guests  map[string]guestBefore // by VM's uuid
	swept   time.Time              // files of the dead
	watches map[watchKey]*watch

	mu     sync.Mutex
	series map[Owner]*series
	told   map[string]bool // troubles that were logged, and last on
}

// New returns a manager; nothing is sampled until Run.
func New(cfg Config) *Manager {
	if cfg.Log == nil {
		cfg.Log = journal.Discard()
	}
	return &Manager{
		cfg: cfg, since: time.Since, store: store{dir: cfg.Dir, log: cfg.Log, most: maxKept},
		guests: map[string]guestBefore{}, told: map[string]bool{}, series: map[Owner]*series{},
	}
}

// statsLimit bounds the question to the hypervisor, so that a look is over before the
// next is due.
const statsLimit = 4 * time.Second

// Run samples until the context ends, and then writes down what is not on disk yet.
func (m *Manager) Run(ctx context.Context) error {
	ticker := time.NewTicker(rrd.Step)
	defer ticker.Stop()
	for first := true; ; first = false {
		m.Tick(ctx, time.Now())
		if first {
			m.cfg.Log.Info("metrics-begun", "owners", len(m.owners()))
		}
		m.saveDue(time.Now())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			m.SaveAll()
			return ctx.Err()
		}
	}
}

// Tick takes one look at everything.
func (m *Manager) Tick(ctx context.Context, now time.Time) {
	w := newWorld(m.cfg.DB.Snapshot(), m.cfg.ThisHost())
	if w.host == nil {
		return // its row is not there yet
	}
	kernel, err := m.cfg.Kernel.Read()
	m.trouble("kernel", err)
	sctx, cancel := context.WithTimeout(ctx, statsLimit)
	defer cancel()
	asked := time.Now()
	stats, err := m.cfg.Guests.Stats(sctx)
	if ctx.Err() != nil {
		return // it ends; an answer cut short is no trouble
	}
	if !errors.Is(err, hypervisor.ErrUnavailable) { // of a connection that is lost others tell
		m.trouble("hypervisor", err)
	}
	answered := now.Add(m.since(asked))
	flow := ioBySR{}
	if err == nil {
		m.sampleGuests(w, answered, stats, flow)
	}
	figures := m.host.figures(now, w, kernel)
	if err == nil {
		figures = append(append(figures, busyGuests(stats)...), flow.ofHost(w)...)
	}
	m.record(Owner{HostKind, w.host.UUID}, now, figures)
	for ref, sr := range w.srs {
		m.record(Owner{SRKind, sr.UUID}, now, append(srFigures(sr), flow.of(ref)...))
	}
	m.retire(w, err == nil)
	m.alarms(ctx, w, now)
}

// sampleGuests takes in what the hypervisor said of the VMs.
func (m *Manager) sampleGuests(w *world, now time.Time, stats []hypervisor.Stats, flow ioBySR) {
	before := m.guests
	m.guests = make(map[string]guestBefore, len(stats))
	for _, s := range stats {
		vm := w.guest(s.UUID)
		if vm == nil {
			continue // not one of ours
		}
		figures, io := guestFigures(before[s.UUID], now, vm, s)
		m.guests[s.UUID] = guestBefore{now, s}
		m.record(Owner{VMKind, s.UUID}, now, figures)
		flow.add(vm, io)
	}
}

// retire takes those out of memory that are not here any more. When the hypervisor did
// not answer nobody knows which VMs those are.
func (m *Manager) retire(w *world, answered bool) {
	for _, o := range m.owners() {
		gone := false
		switch o.Kind {
		case VMKind:
			_, runs := m.guests[o.UUID]
			gone = answered && !runs
		case SRKind:
			gone = !w.hasSR(o.UUID)
		}
		if gone {
			m.save(o)
			m.mu.Lock()
			delete(m.series, o)
			m.mu.Unlock()
		}
	}
}

// trouble logs what does not work, once until it works again.
func (m *Manager) trouble(with string, err error) {
	m.mu.Lock()
	known := (err != nil) == m.told[with]
	m.told[with] = err != nil
	m.mu.Unlock()
	if known {
		return
	}
	if err != nil {
		m.cfg.Log.Warn("metrics-missing", "of", with, "err", err)
		return
	}
	m.cfg.Log.Info("metrics-back", "of", with)
}

// errGone is the end of a look at what is not kept.
var errGone = errors.New("nothing is kept")
