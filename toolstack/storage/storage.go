// Package storage is the behaviour of storage repositories, of how hosts reach
// them, and of virtual disks: the classes SR, PBD, VDI and SM.
//
// A volume is what hostd keeps: one layer of a disk's bytes. Every volume has
// one VDI row, whose location is the volume's name; the name says nothing else
// and moves from row to row. Rows that are not managed are layers which nobody
// sees. sm_config["vhd-parent"] is the uuid of the row of the layer beneath.
//
// Invariants, which every order of steps here serves and which hold after a crash
// at any moment:
//   - Nobody writes to a volume that others are based on. A snapshot or a clone
//     gives the disk a new, empty layer, and the old one to the snapshot.
//   - The rows decide. A change has one transaction that makes it so: before it
//     only new volumes are made, each with a row that says so first; after it
//     only volumes are removed whose row says that they are garbage.
//   - A volume without a row is never removed, only reported.
//   - A disk that is attached for writing is not attached anywhere else, unless it
//     is sharable. Who has it is in its sm_config, as host_<reference> = RW or RO,
//     before its volume is activated and until it no longer is.
//
// A hypervisor changes which volume it writes to at an instant that no transaction
// can hold. Such a step is recorded first, and afterwards, or after a crash, what
// the domain has says which way it went; a disk with an open step is not attached.
//
// Settings are checked in the transaction that writes them; a wrong one is
// answered with its error and changes nothing.
//
// All methods may be called by many goroutines. Operations of the API hold their
// objects through current_operations (package operation). What changes layers
// holds the tree they are in, one at a time (package coalesce does so too, and
// gives way).
package storage

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/storage/coalesce"
	"cairn/toolstack/task"
)

// Domains is what storage asks of the hypervisor of a host.
type Domains interface {
	Hardware(ctx context.Context, uuid string) (hypervisor.Hardware, error)
	Settled(ctx context.Context, uuid string) error
	ResizeDisk(ctx context.Context, uuid, id string, bytes int64) error
	Snapshot(ctx context.Context, uuid string, o []hypervisor.Overlay) error
	Commit(ctx context.Context, uuid, id string, progress func(float64)) error
	Pause(ctx context.Context, uuid string) error
	Resume(ctx context.Context, uuid string) error
}

// Alerts tells operators. *alert.Manager is one.
type Alerts interface {
	Raise(ctx context.Context, name string, cls api.Cls, uuid, body string) (api.MessageRef, error)
}

// Config is what a Manager needs.
type Config struct {
	DB *db.DB
	// Hostd is that of a host; nil for a host this process does not speak for.
	Hostd func(api.HostRef) Hostd
	// Domains is the hypervisor of such a host. Without one nothing runs.
	Domains func(api.HostRef) Domains
	Alerts  Alerts        // may be nil
	Tasks   *task.Manager // may be nil: then work in the background shows no progress
	Log     *slog.Logger
	Now     func() time.Time
	// Quiet is how long a repository must not have changed before layers are merged;
	// 0 is some seconds.
	Quiet time.Duration
}

// Manager is the behaviour of storage.
type Manager struct {
	cfg   Config
	gate  *gate
	ready chan struct{} // closed once
	begun chan struct{} // closed when Run begins
	wake  chan struct{} // cap 1: something may have to be removed or coalesced

	mu     sync.Mutex
	making map[api.VDIRef]bool                // intents of this process
	full   map[api.SRRef]time.Time            // repositories that were told to be full, and when they last were
	wanted map[api.PBDRef]time.Time           // to be attached again, and when to try next
	strays map[api.SRRef]map[string]time.Time // logs that no row names, and since when

	local *beginning // of Run alone, once that has begun

	working sync.WaitGroup
	workers map[api.SRRef]*coalesce.Worker
}

// New returns a manager. Run makes it keep its promises.
func New(c Config) *Manager {
	if c.Hostd == nil {
		c.Hostd = func(api.HostRef) Hostd { return nil }
	}
	if c.Domains == nil {
		c.Domains = func(api.HostRef) Domains { return nil }
	}
	if c.Log == nil {
		c.Log = journal.Discard()
	}
	if c.Quiet == 0 {
		c.Quiet = 5 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	m := &Manager{
		cfg: c, ready: make(chan struct{}), begun: make(chan struct{}), wake: make(chan struct{}, 1),
		making: map[api.VDIRef]bool{}, full: map[api.SRRef]time.Time{}, wanted: map[api.PBDRef]time.Time{},
		strays:  map[api.SRRef]map[string]time.Time{},
		workers: map[api.SRRef]*coalesce.Worker{},
	}
	m.gate = newGate(func() db.Reader { return c.DB.Snapshot() }, m.poke)
	return m
}

// Ready is closed when repositories that were attached before a restart have been
// attached again, or were found to be out of reach.
func (m *Manager) Ready() <-chan struct{} { return m.ready }

// started waits until a start has attached what it can.
func (m *Manager) started(ctx context.Context) error {
	select {
	case <-m.begun:
	default:
		return nil // it is not run at all
	}
	select {
	case <-m.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// poke makes Run look.
func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Register binds the behaviour.
func (m *Manager) Register(r *api.Registry) {
	m.registerSR(r)
	m.registerVDI(r)
	m.registerDisks(r)
	m.registerConfig(r)
	m.registerPBD(r)
}

// set makes a handler of what puts a value into a record.
func set[V any, T any, P api.RecordPtr[T]](m *Manager, f func(tx *db.Tx, r *T, value V) error) func(*api.Call, api.Ref[T], V) error {
	return func(c *api.Call, ref api.Ref[T], value V) error {
		return db.Modify[T, P](c, m.cfg.DB, ref, func(tx *db.Tx, r *T) error { return f(tx, r, value) })
	}
}
