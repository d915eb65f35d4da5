// Package network is the behaviour of networks, virtual and physical interfaces:
// which bridges there are, what a guest's interface is joined to and what traffic
// it may have, what a network is for.
//
// The rows say what should be; hostd is told the whole of it each time something
// of it changes, by verbs that are idempotent. So a call that failed half-way, or
// a toolstack that died in it, is put right by the next one or by Reconcile. A
// port, which is what hostd enforces for one interface, is put before the
// interface exists and removed only once it is in no bridge any more: there is no
// moment at which a guest's frames pass unchecked.
//
// A value is checked in the transaction that writes it; a wrong one is answered
// with its error and changes nothing.
//
// All functions may be called by many goroutines.
package network

import (
	"context"
	"log/slog"
	"sync"

	"cairn/init/hostd/client"
	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/lock"
)

// Hostd is the part of hostd's client that is used here.
type Hostd interface {
	Inventory(ctx context.Context) (client.Inventory, error)
	PutBridge(ctx context.Context, b client.Bridge) error
	DeleteBridge(ctx context.Context, name string) error
	Bridges(ctx context.Context) ([]client.Bridge, error)
	PutPort(ctx context.Context, p client.Port) error
	DeletePort(ctx context.Context, iface string) error
	Ports(ctx context.Context) ([]client.Port, error)
}

// Config is what a Manager needs.
type Config struct {
	DB *db.DB
	// Hostd is the hostd of a host; nil for one that cannot be reached.
	Hostd func(api.HostRef) Hostd
	Log   *slog.Logger
}

// Manager joins guests to networks. Use New.
type Manager struct {
	settings
	hostd func(api.HostRef) Hostd
	log   *slog.Logger

	// ports has a lock for each interface. It is held from reading what its port should
	// be to telling hostd, so that the last one told is what the rows say; a host that
	// answers late keeps nobody from the ports of others.
	ports lock.Keyed[string]

	mu      sync.Mutex
	plugged map[api.VIFRef]api.HostRef // where ports were put
}

// settings edits records.
type settings struct{ db *db.DB }

// New returns a manager of the database's networks.
func New(cfg Config) *Manager {
	if cfg.Log == nil {
		cfg.Log = journal.Discard()
	}
	return &Manager{settings: settings{cfg.DB}, hostd: cfg.Hostd, log: cfg.Log, ports: lock.NewKeyed[string](), plugged: map[api.VIFRef]api.HostRef{}}
}

// Register binds the behaviour.
func (m *Manager) Register(r *api.Registry) {
	m.registerVIF(r)
	m.registerNetwork(r)
	m.registerSwitch(r)
	m.registerPIF(r)
}

// where says on which host a VIF's port was put.
func (m *Manager) where(vif api.VIFRef) (host api.HostRef, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	host, ok = m.plugged[vif]
	return host, ok
}

// at is the hostd of a host.
func (m *Manager) at(host api.HostRef) (Hostd, error) {
	if h := m.hostd(host); h != nil {
		return h, nil
	}
	return nil, api.ErrHostOffline(host.String())
}
