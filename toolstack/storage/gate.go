package storage

import (
	"context"
	"sync"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// gate keeps what changes layers apart: operations side by side, coalescing alone
// in its tree. An operation that comes makes a coalesce give way and waits until it
// has; a coalesce that finds operations is for later.
type gate struct {
	mu    sync.Mutex
	trees map[string]*tree // by the uuid of the row at the root
}

type tree struct {
	operations int
	yield      context.CancelFunc // ends the coalesce in progress
	ended      chan struct{}      // closed when it has
}

func newGate() *gate { return &gate{trees: map[string]*tree{}} }

func (g *gate) tree(root string) *tree {
	t := g.trees[root]
	if t == nil {
		t = &tree{}
		g.trees[root] = t
	}
	return t
}

func (g *gate) drop(root string) {
	if t := g.trees[root]; t != nil && t.operations == 0 && t.ended == nil {
		delete(g.trees, root)
	}
}

// join enters an operation, unless a coalesce is in the way: then it is told to
// end, and the channel says when it has.
func (g *gate) join(root string) (wait <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tree(root)
	if t.ended != nil {
		t.yield()
		return t.ended
	}
	t.operations++
	return nil
}

func (g *gate) leave(root string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trees[root].operations--
	g.drop(root)
}

// claim gives a tree to a coalesce; the context ends when an operation wants it.
func (g *gate) claim(ctx context.Context, root string) (context.Context, func(), bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tree(root)
	if t.operations > 0 || t.ended != nil {
		return nil, nil, false
	}
	ctx, t.yield = context.WithCancel(ctx)
	ended := make(chan struct{})
	t.ended = ended
	return ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		t.yield()
		t.ended = nil
		g.drop(root)
		close(ended)
	}, true
}

// root is the uuid of the row at the bottom of a disk's chain.
func root(r db.Reader, disk *api.VDI) string {
	for range 2 * maxChain {
		_, p, ok := parent(r, disk)
		if !ok {
			break
		}
		disk = p
	}
	return disk.UUID
}

// enter holds the tree a disk is in until release is called. The context is not
// consulted once it is held.
func (m *Manager) enter(ctx context.Context, vdi api.VDIRef) (release func(), err error) {
	for {
		snap := m.cfg.DB.Snapshot()
		disk, err := db.Get(snap, vdi)
		if err != nil {
			return nil, err
		}
		key := root(snap, disk)
		wait := m.gate.join(key)
		if wait == nil {
			// The tree may have changed hands before it was joined.
			if now, err := db.Get(m.cfg.DB.Snapshot(), vdi); err == nil && root(m.cfg.DB.Snapshot(), now) != key {
				m.gate.leave(key)
				continue
			}
			return func() { m.gate.leave(key) }, nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
