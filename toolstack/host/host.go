// Package host keeps the rows that describe this host, its pool and its control
// domain, and is the behaviour of the host class.
//
// What the host is made of comes from hostd; the database only repeats it for
// clients. Sync is idempotent and runs at each start and from time to time, since
// an address may come late and memory may be hot-plugged. It writes only what has
// changed.
//
// The host's identity is a UUID kept on STATE beside the database, so a host that
// lost its database, or is ejected from a pool, is still itself.
package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// Hostd is the part of hostd's client that is used here.
type Hostd interface {
	Version(ctx context.Context) (client.Version, error)
	Inventory(ctx context.Context) (client.Inventory, error)
	Config(ctx context.Context) (client.Config, error)
	Network(ctx context.Context) (client.Network, error)
	Power(ctx context.Context, action client.PowerAction) error
	LoadKVM(ctx context.Context) error
	PutConfig(ctx context.Context, text []byte) (client.Config, error)
	Logs(ctx context.Context, service string, lines int) (client.Logs, error)
	GuestLogs(ctx context.Context) ([]string, error)
	DeleteGuestLogs(ctx context.Context, uuid string) error
	KernelLog(ctx context.Context) (client.KernelLog, error)
	ClearKernelLog(ctx context.Context) (client.KernelLog, error)
	Time(ctx context.Context) (client.Time, error)
}

// Config is what a Manager needs.
type Config struct {
	DB         *db.DB
	Hypervisor hypervisor.Hypervisor
	Hostd      Hostd
	StateDir   string // where the identity is kept
	// Restart ends the toolstack, for PID 1 to start it again; without it nobody
	// can ask for that.
	Restart func()
	// Now is the time; nil is the real one.
	Now func() time.Time
	Log *slog.Logger
}

// Manager is this host. Its methods may be called from many goroutines, those
// that read facts only after the first Sync.
type Manager struct {
	cfg  Config
	uuid string
	boot string
	now  atomic.Pointer[facts]
	hv   atomic.Pointer[hypervisor.Version]

	document sync.Mutex // held from reading the configuration document to writing it
	face     atomic.Pointer[[]byte]

	certain   chan struct{} // closed once hostd has a verdict on KVM
	onVerdict sync.Once
}

// facts is what hostd said last, and the row that repeats it.
type facts struct {
	ref       api.HostRef
	version   client.Version
	inventory client.Inventory
	document  config.Document
	network   client.Network
	address   string
	asked     time.Time
}

// New reads or makes the host's identity.
func New(cfg Config) (*Manager, error) {
	if cfg.Log == nil {
		cfg.Log = journal.Discard()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	uuid, err := identity(cfg.StateDir)
	if err != nil {
		return nil, fmt.Errorf("host identity: %w", err)
	}
	boot, err := os.ReadFile(bootID)
	if err != nil {
		return nil, fmt.Errorf("host boot: %w", err)
	}
	return &Manager{cfg: cfg, uuid: uuid, boot: strings.TrimSpace(string(boot)), certain: make(chan struct{})}, nil
}

func identity(dir string) (string, error) {
	path := filepath.Join(dir, "host-uuid")
	text, err := os.ReadFile(path)
	if err == nil {
		if id := strings.TrimSpace(string(text)); len(id) == 36 {
			return id, nil
		}
		return "", fmt.Errorf("%s holds no uuid", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	id := api.NewUUID()
	return id, writeDurably(path, id+"\n")
}

// writeDurably leaves either no file or the whole one.
func writeDurably(path, text string) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Ref is this host's row.
func (m *Manager) Ref() api.HostRef {
	if f := m.now.Load(); f != nil {
		return f.ref
	}
	return ""
}

// Address is where clients reach this host; its name while it has no address.
func (m *Manager) Address() string {
	f := m.now.Load()
	if f == nil {
		return ""
	}
	if f.address == "" {
		return f.inventory.Hostname
	}
	return f.address
}

// bootID is the kernel's name of the time since it was started.
const bootID = "/proc/sys/kernel/random/boot_id"

// Boot names the time since the host was started.
func (m *Manager) Boot() string { return m.boot }

// Hostname is the host's own name.
func (m *Manager) Hostname() string {
	if f := m.now.Load(); f != nil {
		return f.inventory.Hostname
	}
	return ""
}

// LocalStorage is what the configuration document names for the repository this
// host begins with.
func (m *Manager) LocalStorage() config.Local {
	if f := m.now.Load(); f != nil {
		return f.document.Storage.Local
	}
	return config.Local{}
}

// Kind says how guests are executed: by KVM, or by emulation where there is none
// and the configuration document allows it.
func (m *Manager) Kind() (hypervisor.Kind, bool) {
	f := m.now.Load()
	switch {
	case f == nil:
		return "", false
	case f.inventory.KVM.Usable:
		return hypervisor.Accelerated, true
	case f.document.Emulation == config.EmulationAllowed:
		return hypervisor.Emulated, true
	default:
		return "", false
	}
}

// Prepare makes the host ready to run guests, which a boot leaves for when the
// API answers. It does not wait.
func (m *Manager) Prepare(ctx context.Context) {
	if err := m.cfg.Hostd.LoadKVM(ctx); err != nil && ctx.Err() == nil {
		m.cfg.Log.Warn("kvm-not-asked-for", "err", err)
	}
}

// AwaitKind returns once Kind is certain: for the first seconds after a boot the
// host does not know yet whether it has KVM.
func (m *Manager) AwaitKind(ctx context.Context) error {
	select {
	case <-m.certain:
		return nil
	default:
		m.Prepare(ctx)
	}
	select {
	case <-m.certain:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// GuestMemory is what all guests together may use.
func (m *Manager) GuestMemory() int64 {
	f := m.now.Load()
	if f == nil {
		return 0
	}
	return guestMemory(f)
}

func guestMemory(f *facts) int64 {
	return max(f.inventory.Memory.Total-reserve(f.inventory.Memory.Total), 0)
}

// reserve is what the host keeps for itself: kernel and daemons, the database,
// and a share of large memories for their page structures.
func reserve(total int64) int64 { return 448<<20 + total/32 }

// RootHash is the hash a root login is checked against, straight from hostd: a
// password changed there counts from the next login on.
func (m *Manager) RootHash(ctx context.Context) (string, error) {
	c, err := m.cfg.Hostd.Config(ctx)
	if err != nil {
		return "", err
	}
	return c.Document.Root.PasswordHash, nil
}

// refreshInterval is how late a change of the hardware may show; a missing
// address or verdict on KVM is looked for more often.
const (
	refreshInterval = 30 * time.Second
	addressInterval = time.Second
)

// Run refreshes the rows, and removes the logs of guests that are no more, until the context ends.
func (m *Manager) Run(ctx context.Context) error {
	for {
		wait := refreshInterval
		if f := m.now.Load(); f == nil || f.address == "" || f.inventory.KVM.Pending {
			wait = addressInterval
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := m.Sync(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Log.Warn("host-sync-failed", "err", err)
		}
		if err := m.SweepLogs(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Log.Warn("guest-logs-left", "err", err)
		}
	}
}

// SetHypervisor records the hypervisor's version, once it has answered.
func (m *Manager) SetHypervisor(ctx context.Context, v hypervisor.Version) error {
	m.hv.Store(&v)
	return m.Sync(ctx)
}

// Sync makes the rows say what hostd says.
func (m *Manager) Sync(ctx context.Context) error {
	f, err := m.ask(ctx)
	if err != nil {
		return err
	}
	before := m.now.Load()
	err = m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		if f.ref, err = m.write(tx, f); err != nil {
			return err
		}
		return nil
	})
	if errors.Is(err, errUnchanged) {
		f.ref, err = before.ref, nil
	}
	if err != nil {
		return fmt.Errorf("host rows: %w", err)
	}
	m.now.Store(f)
	if f.inventory.KVM.Pending {
		return nil
	}
	m.onVerdict.Do(func() { close(m.certain) })
	if before == nil || before.inventory.KVM != f.inventory.KVM {
		m.cfg.Log.Info("host-kvm", "usable", f.inventory.KVM.Usable, "reason", f.inventory.KVM.Reason, "emulation", f.document.Emulation)
	}
	return nil
}

func (m *Manager) ask(ctx context.Context) (*facts, error) {
	version, err := m.cfg.Hostd.Version(ctx)
	if err != nil {
		return nil, err
	}
	inventory, err := m.cfg.Hostd.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	configuration, err := m.cfg.Hostd.Config(ctx)
	if err != nil {
		return nil, err
	}
	network, err := m.cfg.Hostd.Network(ctx)
	if err != nil {
		return nil, err
	}
	address, _, _ := strings.Cut(network.Address, "/")
	return &facts{
		version: version, inventory: inventory, document: configuration.Document,
		network: network, address: address, asked: m.cfg.Now().UTC().Truncate(time.Second),
	}, nil
}
