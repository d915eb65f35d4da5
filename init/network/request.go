package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// request is work for the manager's goroutine.
type request struct {
	change func(*core, Found) error
	look   bool // nothing is changed
	done   chan error
}

// BridgeStatus is a bridge as it is.
type BridgeStatus struct {
	Bridge
	MAC        string
	Management bool
	Guests     []string // interfaces in it beside the uplink
	// Missing says that the bridge should be there and is not.
	Missing bool
}

func bridgesBefore(l Leases) map[string]Bridge {
	all := map[string]Bridge{}
	for _, b := range l.Bridges() {
		all[b.Name] = b
	}
	return all
}

// PutBridge makes a bridge and keeps it until DeleteBridge, over restarts of this
// process; one that is there is changed. The error is ErrNoUplink or ErrInUse when
// it cannot be.
//
// What the kernel refuses is not kept.
func (m *Manager) PutBridge(ctx context.Context, b Bridge) error {
	if there, err := m.has(ctx, b); there || err != nil {
		return err
	}
	var old Bridge
	var had bool
	err := m.do(ctx, func(c *core, f Found) error {
		old, had = c.bridges[b.Name]
		return c.putBridge(b, f)
	})
	if err != nil {
		return err
	}
	var failed error
	err = m.do(ctx, func(c *core, f Found) error { // after the kernel was changed
		left := planBridgeNamed(c, b.Name, f)
		if len(left) == 0 {
			return nil
		}
		failed = fmt.Errorf("bridge %s: %s has failed", b.Name, left[0])
		return c.remember(func() {
			if delete(c.bridges, b.Name); had {
				c.bridges[b.Name] = old
			}
		})
	})
	return errors.Join(failed, err)
}

// has reports whether a bridge is as it was asked for before, which is what most
// starts of guests find.
func (m *Manager) has(ctx context.Context, b Bridge) (there bool, err error) {
	err = m.look(ctx, func(c *core, f Found) error {
		old, had := c.bridges[b.Name]
		there = had && old == b && len(planBridgeNamed(c, b.Name, f)) == 0
		return nil
	})
	return there, err
}

func planBridgeNamed(c *core, name string, f Found) []Step {
	for _, b := range c.wanted() {
		if b.Name == name {
			return planBridge(b, name == c.settings.Bridge, f)
		}
	}
	return nil
}

// DeleteBridge removes a bridge; one that is not there is no error. The error is
// ErrInUse for the management network's, and while a guest is in it.
func (m *Manager) DeleteBridge(ctx context.Context, name string) error {
	return m.do(ctx, func(c *core, f Found) error { return c.deleteBridge(name, f) })
}

// Bridges lists the bridges of this package, whether they are there or should be.
func (m *Manager) Bridges(ctx context.Context) ([]BridgeStatus, error) {
	var out []BridgeStatus
	err := m.look(ctx, func(c *core, f Found) error {
		out = c.bridgeStatus(f)
		return nil
	})
	return out, err
}

func (c *core) bridgeStatus(f Found) []BridgeStatus {
	var out []BridgeStatus
	for _, b := range c.wanted() {
		l, ok := f.link(b.Name)
		if ok {
			b.MTU = l.MTU
		}
		out = append(out, BridgeStatus{
			Bridge: b, MAC: l.MAC, Management: b.Name == c.settings.Bridge, Guests: f.guests(b.Name), Missing: !ok,
		})
	}
	for _, l := range f.Links { // nobody wants them, but guests are in them
		if l.Ours && !slices.ContainsFunc(out, func(b BridgeStatus) bool { return b.Name == l.Name }) {
			out = append(out, BridgeStatus{Bridge: Bridge{Name: l.Name, MTU: l.MTU}, MAC: l.MAC, Guests: f.guests(l.Name)})
		}
	}
	return out
}

// do has the manager's goroutine do it, which then looks at the kernel.
func (m *Manager) do(ctx context.Context, change func(*core, Found) error) error {
	return m.ask(ctx, request{change: change})
}

// look has the manager's goroutine look at the kernel.
func (m *Manager) look(ctx context.Context, look func(*core, Found) error) error {
	return m.ask(ctx, request{change: look, look: true})
}

func (m *Manager) ask(ctx context.Context, r request) error {
	r.done = make(chan error, 1)
	select {
	case m.requests <- r:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// serve answers a request with the kernel's state at hand, then reconciles.
func (c *core) serve(ctx context.Context, now time.Time, r request) error {
	f, err := c.kernel.Found()
	if err == nil {
		err = r.change(c, f)
	}
	if err != nil || r.look {
		return err
	}
	c.reconcile(ctx, now)
	return nil
}
