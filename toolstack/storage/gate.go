package storage

import (
	"context"
	"sync"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// gate keeps what changes layers apart: operations side by side, coalescing alone
// in its tree. An operation that comes makes a coalesce give way and waits until it
// has; a coalesce that finds operations is for later, and is told when that is.
//
// A tree has no name that lasts: a snapshot of the disk at its root puts a layer below
// it, a merge takes one away. So who is inside is known by a row that he holds, and where
// that belongs now is looked at whenever somebody comes. Two rows of one tree stay in one
// tree for as long as they are there.
type gate struct {
	now  func() db.Reader
	free func() // who kept a coalesce from its work has left; must not block

	mu     sync.Mutex
	inside map[*holder]bool
}

// holder is who is inside. The row may go meanwhile; that of the root it had when he
// came in then stands for it.
type holder struct {
	vdi  api.VDIRef
	root string             // uuid
	give context.CancelFunc // makes a coalesce give way; nil for an operation
	left chan struct{}      // closed when it has left
	kept bool               // a coalesce from its work
}

func newGate(now func() db.Reader, free func()) *gate {
	return &gate{now: now, free: free, inside: map[*holder]bool{}}
}

// place is the root of the tree that somebody is in.
func (h *holder) place(r db.Reader) string {
	if disk, err := db.Get(r, h.vdi); err == nil {
		return root(r, disk)
	}
	if disk := byUUID(r, h.root); disk != nil {
		return root(r, disk)
	}
	return h.root
}

// enter lets somebody in whom nobody inside is in the way of; who is, is returned.
func (g *gate) enter(h *holder) (others []*holder) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.now()
	h.root = h.place(r)
	for o := range g.inside {
		if (h.give != nil || o.give != nil) && o.place(r) == h.root {
			others = append(others, o)
			o.kept = o.kept || h.give != nil
		}
	}
	if len(others) == 0 {
		g.inside[h] = true
	}
	return others
}

func (g *gate) leave(h *holder) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.inside, h)
	close(h.left)
	if h.kept {
		g.free()
	}
}

// join enters an operation, unless a coalesce is in the way: then that is told to give
// way, and the channel says when it has. Who comes again after that says so.
func (g *gate) join(vdi api.VDIRef, again bool) (leave func(), wait <-chan struct{}) {
	h := &holder{vdi: vdi, left: make(chan struct{}), kept: again}
	if others := g.enter(h); len(others) > 0 {
		others[0].give() // it is alone
		return nil, others[0].left
	}
	return func() { g.leave(h) }, nil
}

// claim gives the tree of a disk to a coalesce; the context ends when an operation
// wants it.
func (g *gate) claim(ctx context.Context, vdi api.VDIRef) (context.Context, func(), bool) {
	ctx, give := context.WithCancel(ctx)
	h := &holder{vdi: vdi, give: give, left: make(chan struct{})}
	if len(g.enter(h)) > 0 {
		give()
		return nil, nil, false
	}
	return ctx, func() { give(); g.leave(h) }, true
}

// root is the uuid of the row at the bottom of a disk's chain.
func root(r db.Reader, disk *api.VDI) string {
	for range maxFound {
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
	for again := false; ; again = true {
		if _, err := db.Get(m.cfg.DB.Snapshot(), vdi); err != nil {
			return nil, err
		}
		leave, wait := m.gate.join(vdi, again)
		if wait == nil {
			return leave, nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
