package device_test

import (
	"context"
	"errors"
	"sync"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

var errKilled = errors.New("the toolstack was killed")

// gate stands between one life of the toolstack and all else. It lets so many
// steps pass, and from then on none.
type gate struct {
	mu     sync.Mutex
	passed int
	last   int // 0: any number
	dead   bool
}

// step is one more thing done to the world.
func (g *gate) step() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last > 0 && g.passed >= g.last {
		g.dead = true
	}
	if g.dead {
		return errKilled
	}
	g.passed++
	return nil
}

// alive is for what changes nothing.
func (g *gate) alive() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return errKilled
	}
	return nil
}

// allow begins to count: so many steps from now on.
func (g *gate) allow(steps int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed, g.last = 0, steps
}

func (g *gate) kill() (passed int, dead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	dead, g.dead = g.dead, true
	return g.passed, dead
}

// gatedEngine is the database's disk, which is written in steps.
type gatedEngine struct {
	*db.Memory
	g *gate
}

func (e gatedEngine) Commit(ctx context.Context, b db.Batch) error {
	if err := e.g.step(); err != nil {
		return err
	}
	return e.Memory.Commit(ctx, b)
}

// gatedHypervisor is the world's hypervisor in one life.
type gatedHypervisor struct {
	doing
	g *gate
}

func (h gatedHypervisor) List(ctx context.Context) ([]hypervisor.Domain, error) {
	if err := h.g.alive(); err != nil {
		return nil, err
	}
	return h.Fake.List(ctx)
}

func (h gatedHypervisor) Hardware(ctx context.Context, uuid string) (hypervisor.Hardware, error) {
	if err := h.g.alive(); err != nil {
		return hypervisor.Hardware{}, err
	}
	return h.Fake.Hardware(ctx, uuid)
}

func (g *gate) do(f func() error) error {
	if err := g.step(); err != nil {
		return err
	}
	return f()
}

// switchboard is the world's network: ports, and to which bridge each goes.
type switchboard struct {
	mu    sync.Mutex
	ports map[string]string
}

// gatedNetwork is the switchboard in one life.
type gatedNetwork struct {
	*switchboard
	g  *gate
	db *db.DB
}

func (n gatedNetwork) Plug(_ context.Context, _ api.HostRef, ref api.VIFRef) (hypervisor.NIC, error) {
	v, err := db.Get(n.db.Snapshot(), ref)
	if err != nil {
		return hypervisor.NIC{}, err
	}
	network, err := db.Get(n.db.Snapshot(), v.Network)
	if err != nil {
		return hypervisor.NIC{}, err
	}
	if err := n.g.step(); err != nil {
		return hypervisor.NIC{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports[v.UUID] = network.Bridge
	return hypervisor.NIC{ID: v.UUID, MAC: v.MAC, Bridge: network.Bridge, Tap: hypervisor.TapName(v.UUID)}, nil
}

func (n gatedNetwork) Unplug(_ context.Context, _ api.HostRef, ref api.VIFRef) error {
	v, err := db.Get(n.db.Snapshot(), ref)
	if err != nil {
		return err
	}
	if err := n.g.step(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.ports, v.UUID)
	return nil
}
