// Package device is what is plugged into virtual machines: the behaviour of
// VBDs, a disk or a CD drive each, and of VIFs, their network interfaces.
//
// A device lives twice, as a row and, while its machine runs, in the domain.
// currently_attached says what the domain has and is only ever written by who
// has just changed or just asked the domain. Between the two stands the host: a
// disk is attached by the storage, a network port made, before the domain gets
// them, and let go after the domain has none. current_operations of a device is
// its lock; the operations attach, plug and insert in it say that the host's side
// may be made at this moment, so nobody takes it away meanwhile.
//
// What a crash of the toolstack leaves is repaired from the domain: Found writes
// down what it has, unless an operation began or ended since it was asked, and
// Release lets go of what nothing uses.
//
// All methods may be called from many goroutines. Letting go of a disk and
// making it ready exclude each other, disk by disk.
package device

import (
	"context"
	"log/slog"
	"sync/atomic"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/lock"
)

// Storage makes disks ready on a host.
type Storage interface {
	// Attach makes a disk ready and says where it is; it is idempotent.
	Attach(ctx context.Context, host api.HostRef, vdi api.VDIRef, writable bool) (*hypervisor.Source, error)
	// Detach undoes Attach; it is idempotent.
	Detach(ctx context.Context, host api.HostRef, vdi api.VDIRef) error
}

// Network makes ports for NICs on a host.
type Network interface {
	// Plug makes the port a NIC will use, and says what the domain needs to know; it
	// is idempotent.
	Plug(ctx context.Context, host api.HostRef, vif api.VIFRef) (hypervisor.NIC, error)
	// Unplug removes the port; it is idempotent.
	Unplug(ctx context.Context, host api.HostRef, vif api.VIFRef) error
}

// Config is what a Manager needs.
type Config struct {
	DB      *db.DB
	Storage Storage
	Network Network
	// Hypervisor is the one of a host; nil for a host that is not spoken for.
	Hypervisor func(api.HostRef) hypervisor.Hypervisor
	// True is closed when the rows say what the domains have: until then a disk may
	// look free that a former process has plugged. Nil is from the beginning.
	True <-chan struct{}
	Log  *slog.Logger
}

// Manager runs the devices of the machines of some hosts.
type Manager struct {
	cfg   Config
	disks lock.Keyed[api.VDIRef] // held while the host's side of a disk changes
	ports lock.Keyed[api.VIFRef]
	// epoch grows inside each transaction that changes a device. They are one after
	// another, so a reader in a transaction sees every change before it.
	epoch atomic.Uint64
	left  chan struct{} // cap 1
}

// New returns a Manager; Register makes it serve.
func New(cfg Config) *Manager {
	if cfg.Log == nil {
		cfg.Log = journal.Discard()
	}
	return &Manager{cfg: cfg, disks: lock.NewKeyed[api.VDIRef](), ports: lock.NewKeyed[api.VIFRef](), left: make(chan struct{}, 1)}
}

// Register binds the behaviour of VBD and VIF.
func (m *Manager) Register(r *api.Registry) {
	api.HandleVBDCreate(r, m.createVBD)
	api.HandleVBDDestroy(r, m.destroyVBD)
	api.HandleVBDPlug(r, m.plugVBD)
	api.HandleVBDUnplug(r, m.unplugVBD)
	api.HandleVBDUnplugForce(r, m.unplugVBDForce)
	api.HandleVBDUnplugForceNoSafetyCheck(r, m.unplugVBDForce)
	api.HandleVBDInsert(r, m.insert)
	api.HandleVBDEject(r, m.eject)
	api.HandleVBDSetMode(r, m.setMode)
	api.HandleVBDAssertAttachable(r, m.assertAttachable)
	r.Override("VBD.set_type", m.setType)
	r.Override("VBD.set_userdevice", m.setUserdevice)
	api.HandleVIFCreate(r, m.createVIF)
	api.HandleVIFDestroy(r, m.destroyVIF)
	api.HandleVIFPlug(r, m.plugVIF)
	api.HandleVIFUnplug(r, m.unplugVIF)
	api.HandleVIFUnplugForce(r, m.unplugVIFForce)
	api.HandleVIFMove(r, m.moveVIF)
}
