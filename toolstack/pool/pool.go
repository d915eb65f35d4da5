// Package pool is the behaviour of the pool class and of what belongs to a pool
// as a whole: its settings, the certificates it trusts, the repositories its
// updates come from.
//
// A setting is checked in the transaction that writes it; a wrong value is
// answered with its error and changes nothing. Trusted certificates are rows of
// the database, their texts are files beside it: a text is on disk before its row
// is written and removed after its row, so a row always has its text, and a text
// without a row is swept away at the next start.
//
// A Manager may be used by many goroutines.
package pool

import (
	"context"
	"log/slog"
	"sync"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Config is what a Manager needs.
type Config struct {
	DB *db.DB
	// ThisHost is the host this process speaks for.
	ThisHost func() api.HostRef
	// Dir is where the texts of certificates are kept, on STATE.
	Dir string
	Log *slog.Logger
}

// Manager is the pool.
type Manager struct {
	cfg   Config
	files sync.Mutex // of store: held while a certificate is installed or removed
	store store
}

// New opens the pool's store of certificates.
func New(cfg Config) (*Manager, error) {
	if cfg.Log == nil {
		cfg.Log = journal.Discard()
	}
	m := &Manager{cfg: cfg, store: store{cfg.Dir}}
	return m, m.sweep()
}

// Register binds the behaviour of the pool class.
func (m *Manager) Register(r *api.Registry) {
	m.registerSettings(r)
	m.registerFixed(r)
	m.registerUpdates(r)
	m.registerCertificates(r)
	m.registerMembers(r)
	m.registerHA(r)
}

// edit changes the pool's row.
func (m *Manager) edit(ctx context.Context, ref api.PoolRef, change func(*db.Tx, *api.Pool) error) error {
	return db.Modify(ctx, m.cfg.DB, ref, change)
}

// set makes a handler of what checks a value and puts it into the row.
func set[V any](m *Manager, change func(p *api.Pool, value V) error) func(*api.Call, api.PoolRef, V) error {
	return func(c *api.Call, ref api.PoolRef, value V) error {
		return m.edit(c, ref, func(_ *db.Tx, p *api.Pool) error { return change(p, value) })
	}
}

// the finds the pool; there is exactly one.
func the(r db.Reader) (api.PoolRef, *api.Pool, error) {
	for ref, p := range db.All[api.Pool](r) {
		return ref, p, nil
	}
	return "", nil, api.ErrInternalError("there is no pool")
}
