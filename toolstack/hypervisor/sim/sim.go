// Package sim is a pool that is not there: many hosts, each with a hypervisor of
// its own behind the interface libvirt has, and the rows clients expect of such a
// pool. It is for tests of scale, for user interfaces and for authors of clients.
//
// Life-cycle operations work and take time; guests end, crash and restart; events
// are those of a real hypervisor, which the conformance script holds them to.
// Disks are made, cloned and merged as real ones are, and have no bytes. Networks
// are rows only.
//
// A pool is made once, in few transactions, from a seed: equal seeds give equal
// pools, references included. After a restart on a kept database the hosts run
// what the rows say.
//
// All methods may be called from many goroutines, those that need the hosts' rows
// after Open.
package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/storage/storagetest"
	"cairn/toolstack/vm"
)

// Config says how large a pool to simulate.
type Config struct {
	Hosts, VMs int
	Seed       uint64
	Pace       Pace
	// GuestDir is where the VMs' kernel seems to be.
	GuestDir string
	// Now is the time of the pool's making; zero means the present.
	Now time.Time
}

// Limits of a pool, ten times what is promised of a real one.
const (
	maxHosts = 640
	maxVMs   = 40000
)

// indexKey of host.other_config says which simulated host a row is.
const indexKey = "cairn:simulated"

// Pool is the simulated hosts.
type Pool struct {
	cfg     Config
	hosts   []*Host
	storage *storagetest.Hostd // one for all hosts
}

var _ vm.Consoles = (*Pool)(nil)

// New makes the hypervisors; Open gives them hosts.
func New(cfg Config) (*Pool, error) {
	if cfg.Hosts < 1 || cfg.Hosts > maxHosts || cfg.VMs < 0 || cfg.VMs > maxVMs {
		return nil, fmt.Errorf("simulate %d hosts and %d VMs: at least 1 and at most %d and %d", cfg.Hosts, cfg.VMs, maxHosts, maxVMs)
	}
	if cfg.Now.IsZero() {
		cfg.Now = time.Now().UTC().Truncate(time.Second)
	}
	p := &Pool{cfg: cfg, storage: storagetest.New()}
	for i := range cfg.Hosts {
		p.hosts = append(p.hosts, NewHost(cfg.Pace, cfg.Seed+uint64(i)))
	}
	return p, nil
}

// Storage is what the hosts' storage is kept by; the rows decide what is in it.
func (p *Pool) Storage() *storagetest.Hostd { return p.storage }

// First is the hypervisor of the host that is asked.
func (p *Pool) First() hypervisor.Hypervisor { return p.hosts[0] }

// Open fills a database that has only its own host, and makes the hosts run what
// the rows say. It returns the hosts beside the own one.
func (p *Pool) Open(ctx context.Context, d *db.DB, own api.HostRef) ([]vm.Site, error) {
	f := filler{cfg: p.cfg, random: p.random(), own: own}
	if err := f.fill(ctx, d); err != nil {
		return nil, fmt.Errorf("fill the pool: %w", err)
	}
	s := d.Snapshot()
	where := map[api.HostRef]*Host{}
	sites := make([]vm.Site, p.cfg.Hosts)
	for ref, h := range db.All[api.Host](s) {
		i, err := strconv.Atoi(h.OtherConfig[indexKey])
		if err != nil || i < 0 || i >= len(p.hosts) {
			return nil, fmt.Errorf("host %s is of another pool", h.NameLabel)
		}
		where[ref] = p.hosts[i]
		sites[i] = vm.Site{Host: site{ref: ref, address: h.Address}, Hypervisor: p.hosts[i]}
	}
	if len(where) != p.cfg.Hosts {
		return nil, fmt.Errorf("%d hosts are there, not %d: the database is of another pool", len(where), p.cfg.Hosts)
	}
	revive(s, where)
	if err := stock(s, p.storage); err != nil {
		return nil, err
	}
	return sites[1:], p.Refresh(ctx, d)
}

// revive gives each host the domains its rows say it runs.
func revive(s *db.Snapshot, where map[api.HostRef]*Host) {
	for _, v := range db.All[api.VM](s) {
		h := where[v.ResidentOn]
		if h == nil || v.IsControlDomain {
			continue
		}
		state := hypervisor.Running
		if v.PowerState == api.VMPowerStatePaused {
			state = hypervisor.Paused
		}
		h.Adopt(hypervisor.Spec{
			UUID: v.UUID, Title: v.NameLabel, MemoryBytes: v.MemoryStaticMax,
			VCPUs: int(v.VCPUsAtStartup), VCPUsMax: int(v.VCPUsMax),
		}, state)
	}
}

// Crash makes a guest die, wherever it runs.
func (p *Pool) Crash(uuid string) error {
	for _, h := range p.hosts {
		if _, runs := h.Spec(uuid); runs {
			h.End(uuid, hypervisor.ByCrash)
			return nil
		}
	}
	return fmt.Errorf("crash %s: %w", uuid, hypervisor.ErrNotFound)
}

// Attach implements vm.Consoles. The consoles of thousands of guests that say
// nothing are dialled when somebody looks.
func (p *Pool) Attach(context.Context, string) error { return nil }

// Renew implements vm.Consoles.
func (p *Pool) Renew(context.Context, string) error { return nil }

// DialConsole finds the guest.
func (p *Pool) DialConsole(ctx context.Context, uuid string) (net.Conn, error) {
	return ask(p, "console", uuid, func(h *Host) (net.Conn, error) { return h.DialConsole(ctx, uuid) })
}

// DialVNC finds the guest's screen.
func (p *Pool) DialVNC(ctx context.Context, uuid string) (net.Conn, error) {
	return ask(p, "screen", uuid, func(h *Host) (net.Conn, error) { return h.DialVNC(ctx, uuid) })
}

// Screenshot finds the guest's screen.
func (p *Pool) Screenshot(ctx context.Context, uuid string) ([]byte, error) {
	return ask(p, "screen", uuid, func(h *Host) ([]byte, error) { return h.Screenshot(ctx, uuid) })
}

// ask asks the hosts in turn for what a guest has.
func ask[T any](p *Pool, what, uuid string, try func(*Host) (T, error)) (T, error) {
	for _, h := range p.hosts {
		if got, err := try(h); !errors.Is(err, hypervisor.ErrNotFound) {
			return got, err
		}
	}
	var none T
	return none, fmt.Errorf("%s of %s: %w", what, uuid, hypervisor.ErrNotFound)
}

// site is what the toolstack needs to know of a simulated host.
type site struct {
	ref     api.HostRef
	address string
}

var _ vm.Host = site{}

func (s site) Ref() api.HostRef                { return s.ref }
func (s site) AwaitKind(context.Context) error { return nil }
func (s site) Address() string                 { return s.address }
func (s site) Boot() string                    { return "simulated" }
func (s site) GuestMemory() int64              { return hostMemory - reserve }

func (s site) Kind() (hypervisor.Kind, bool) { return hypervisor.Accelerated, true }
