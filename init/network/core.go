package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"cairn/init/config"
	"cairn/init/network/dhcp"
)

// retryAfter is when a failed step or a socket that did not open is tried
// again, should nothing change before.
const retryAfter = 5 * time.Second

// Transport carries the messages of a lease on one interface.
type Transport interface {
	Send(context.Context, dhcp.Query) error
	Replies() <-chan dhcp.Reply
	Close() error
}

// Leases keeps the lease, and which bridges there should be, over a restart of
// this process, but not of the host.
type Leases interface {
	// Load returns the lease last held on the interface with this MAC.
	Load(mac string) (dhcp.Lease, bool)
	Save(mac string, l dhcp.Lease) error
	Drop(mac string) error
	// Bridges are those that should be there, as they were saved last.
	Bridges() []Bridge
	SaveBridges([]Bridge) error
}

// Settings are the part of the document this package follows.
type Settings struct {
	Hostname   string
	Management config.Management
	// Bridge is the name of the management network's bridge; empty for none.
	Bridge string
}

// core is the manager without its goroutine and clock: each method is given
// the present time and leaves behind when it wants to be called again.
type core struct {
	kernel Kernel
	dial   func(iface string, id dhcp.Identity) (Transport, error)
	leases Leases
	random dhcp.Random
	log    *slog.Logger

	settings Settings
	since    map[string]time.Time
	carrier  map[string]bool
	bridges  map[string]Bridge
	current  Link // the chosen interface, zero while there is none
	port     Link // where its address is: current, or the bridge over it
	ready    bool // messages get from port to the wire
	machine  *dhcp.Machine
	conn     Transport
	failed   error // why the last attempt did not reach the desired state
	next     time.Time
	said     Status
	status   Status
}

// replies is the channel to listen on, nil while there is none.
func (c *core) replies() <-chan dhcp.Reply {
	if c.conn == nil {
		return nil
	}
	return c.conn.Replies()
}

// apply takes new settings. Those that change how the address is got start over.
func (c *core) apply(ctx context.Context, now time.Time, s Settings) {
	old := c.settings
	c.settings = s
	if old.Management.Mode != s.Management.Mode || old.Management.Interface != s.Management.Interface || old.Hostname != s.Hostname {
		c.stopLease()
	}
	if old.Management.Interface != s.Management.Interface {
		c.current, c.port = Link{}, Link{}
	}
	c.reconcile(ctx, now)
}

// receive takes a reply of the lease's server.
func (c *core) receive(ctx context.Context, now time.Time, r dhcp.Reply) {
	if c.machine != nil {
		c.act(ctx, c.machine.Receive(now, r))
	}
	c.reconcile(ctx, now)
}

// reconcile looks at the kernel and does what is missing. It is the answer to
// every wake.
func (c *core) reconcile(ctx context.Context, now time.Time) {
	if c.settings.Management.Mode == "" {
		return // before the first settings there is nothing to compare with
	}
	c.failed, c.next = nil, time.Time{}
	defer c.publish()
	found, err := c.kernel.Found()
	if err != nil {
		c.fail(now, err)
		return
	}
	c.track(found, now)
	c.choose(found, now)
	if found, err = c.bridge(found); err != nil {
		c.log.Warn("bridge-failed", "err", err)
		c.wakeAt(now.Add(retryAfter))
	}
	c.settle(ctx, found, now)
	c.lease(ctx, now)
	for _, step := range Plan(c.desired(), found) {
		c.log.Debug("network-step", "step", step)
		if err := c.kernel.Do(step); err != nil {
			c.fail(now, err)
		}
	}
}

func (c *core) fail(now time.Time, err error) {
	c.log.Warn("network-failed", "err", err)
	c.failed = errors.Join(c.failed, err)
	c.wakeAt(now.Add(retryAfter))
}

// wakeAt asks for a call at t, or earlier.
func (c *core) wakeAt(t time.Time) {
	if !t.IsZero() && (c.next.IsZero() || t.Before(c.next)) {
		c.next = t
	}
}

// track notes since when each link has its carrier state, and says so.
func (c *core) track(f Found, now time.Time) {
	for _, l := range f.Links {
		if had, known := c.carrier[l.Name]; !known || had != l.Carrier {
			c.since[l.Name], c.carrier[l.Name] = now, l.Carrier
			if l.Physical() && (known || l.Carrier) {
				c.log.Info("network-link", "if", l.Name, "link", l.Carrier)
			}
		}
	}
	for name := range c.carrier {
		if _, ok := f.link(name); !ok {
			delete(c.carrier, name)
			delete(c.since, name)
		}
	}
}

func (c *core) choose(f Found, now time.Time) {
	name, wait := Select(Choice{
		Want: c.settings.Management.Interface, Links: f.Links, Current: c.before(f), Since: c.since, Now: now,
	})
	c.wakeAt(wait)
	link, _ := f.link(name)
	// A NIC that went and came back under its name is another one.
	if link.Name != c.current.Name || link.Index != c.current.Index || link.MAC != c.current.MAC {
		c.stopLease()
		if link.Name != "" {
			c.log.Info("network-interface", "if", link.Name, "mac", link.MAC)
		} else if c.current.Name != "" {
			c.log.Warn("network-interface-gone", "if", c.current.Name)
		}
	}
	c.current = link
}

// before is the interface in use, also when an earlier run of this process chose
// it.
func (c *core) before(f Found) string {
	for _, l := range f.Links {
		if c.current.Name == "" && c.settings.Bridge != "" && l.Master == c.settings.Bridge && l.Physical() {
			return l.Name
		}
	}
	return c.current.Name
}

// settle finds where the address belongs, and whether the wire is reached from
// there. A lease that was got elsewhere on the same wire is taken along.
func (c *core) settle(ctx context.Context, f Found, now time.Time) {
	port := c.portOf(f)
	if port.Name != c.port.Name || port.Index != c.port.Index {
		c.stopLease()
		c.ready = false
		if port.Name != c.current.Name {
			c.log.Info("network-bridge", "bridge", port.Name, "if", c.current.Name)
		}
	}
	c.port = port
	was := c.ready
	c.ready = c.current.Carrier && port.Carrier
	if c.ready && !was && c.machine != nil {
		c.act(ctx, c.machine.LinkUp(now))
	}
}

// lease drives the lease machine, starting it when there is a link to use.
func (c *core) lease(ctx context.Context, now time.Time) {
	if c.settings.Management.Mode != config.ModeDHCP {
		return
	}
	_, saved := c.saved()
	if c.machine == nil && (c.ready || saved) {
		c.startLease(ctx, now)
	}
	if c.machine != nil {
		c.act(ctx, c.machine.Tick(now))
		c.wakeAt(c.machine.Deadline())
	}
}

func (c *core) startLease(ctx context.Context, now time.Time) {
	mac, err := net.ParseMAC(c.current.MAC)
	if err != nil {
		c.fail(now, fmt.Errorf("dhcp on %s: %w", c.current.Name, err))
		return
	}
	conn, err := c.dial(c.port.Name, dhcp.Identity{MAC: mac, Hostname: c.settings.Hostname})
	if err != nil {
		c.fail(now, err)
		return
	}
	old, saved := c.saved()
	c.conn, c.machine = conn, dhcp.New(c.random)
	if saved {
		c.act(ctx, c.machine.Resume(now, old))
		return
	}
	c.act(ctx, c.machine.Start(now))
}

// saved is the lease an earlier run of this process held, if the interface
// still has its address.
func (c *core) saved() (dhcp.Lease, bool) {
	if c.machine != nil || c.current.Name == "" {
		return dhcp.Lease{}, false
	}
	l, ok := c.leases.Load(c.current.MAC)
	return l, ok && (slices.Contains(c.current.Addrs, l.Address) || slices.Contains(c.port.Addrs, l.Address))
}

func (c *core) stopLease() {
	if c.conn != nil {
		if err := c.conn.Close(); err != nil {
			c.log.Warn("dhcp-close-failed", "if", c.current.Name, "err", err)
		}
	}
	c.conn, c.machine = nil, nil
}

// act carries out what the lease machine asks for; addresses follow from its
// lease by Plan.
func (c *core) act(ctx context.Context, actions []dhcp.Action) {
	name, mac := c.current.Name, c.current.MAC
	for _, a := range actions {
		switch a := a.(type) {
		case dhcp.Send:
			// A message that did not leave is sent again by the machine's timer.
			if err := c.conn.Send(ctx, a.Query); err != nil {
				c.log.Warn("dhcp-send-failed", "if", name, "err", err)
			}
		case dhcp.Got:
			c.got(name, mac, a)
		case dhcp.Lost:
			c.log.Warn("network-address-lost", "if", name, "addr", a.Address, "reason", a.Reason)
			if err := c.leases.Drop(mac); err != nil {
				c.log.Warn("lease-not-dropped", "if", name, "err", err)
			}
		}
	}
}

func (c *core) got(name, mac string, a dhcp.Got) {
	if !a.Renewed {
		c.log.Info("dhcp-bound", "if", name, "addr", a.Lease.Address, "server", a.Lease.Server, "until", until(a.Lease))
	}
	if err := c.leases.Save(mac, a.Lease); err != nil {
		c.log.Warn("lease-not-saved", "if", name, "err", err)
	}
}

func until(l dhcp.Lease) string {
	if l.Expires.IsZero() {
		return "forever"
	}
	return l.Expires.UTC().Format(time.RFC3339)
}
