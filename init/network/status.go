package network

import (
	"net/netip"
	"time"

	"cairn/init/config"
	"cairn/init/network/dhcp"
)

// Status is the management network as it is.
type Status struct {
	Link Link
	// Bridge is the bridge over Link that has the address, empty while it is on
	// Link itself.
	Bridge  string
	Mode    config.Mode
	Address netip.Prefix
	Gateway netip.Addr
	DNS     []netip.Addr
	NTP     []netip.Addr
	Domain  string
	// LeaseState is empty in mode static.
	LeaseState dhcp.State
	Server     netip.Addr
	Expires    time.Time
	Err        error
}

// desired derives the kernel's state from the settings and the lease.
func (c *core) desired() Desired {
	d := Desired{Link: c.port.Name, NIC: c.current.Name}
	if d.Link == "" {
		return d
	}
	m := c.settings.Management
	if m.Mode == config.ModeStatic {
		d.Address = m.Address
		if m.Gateway.IsValid() {
			d.Routes = []Route{{To: defaultRoute, Via: m.Gateway, Link: d.Link}}
		}
		return d
	}
	if l := c.held(); l != nil {
		d.Address = l.Address
		for _, r := range l.Routes {
			d.Routes = append(d.Routes, Route{To: r.To, Via: r.Via, Link: d.Link})
		}
	}
	return d
}

func orNone(a netip.Addr) string {
	if !a.IsValid() {
		return "none"
	}
	return a.String()
}

var defaultRoute = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

func (c *core) held() *dhcp.Lease {
	if c.machine == nil {
		return nil
	}
	return c.machine.Lease()
}

// publish makes the new status and says what has changed for whoever reads
// the console.
func (c *core) publish() {
	d := c.desired()
	s := Status{
		Link: c.current, Mode: c.settings.Management.Mode, Address: d.Address,
		DNS: c.settings.Management.DNS, Err: c.failed,
	}
	if c.port.Name != c.current.Name {
		s.Bridge = c.port.Name
	}
	for _, r := range d.Routes {
		if r.To == defaultRoute {
			s.Gateway = r.Via
		}
	}
	if c.machine != nil {
		s.LeaseState = c.machine.State()
	}
	if l := c.held(); l != nil {
		s.NTP, s.Domain, s.Server, s.Expires = l.NTP, l.Domain, l.Server, l.Expires
		if len(s.DNS) == 0 {
			s.DNS = l.DNS
		}
	}
	c.status = s
	if s.Err != nil {
		return // not reached yet
	}
	if s.Address.IsValid() && (s.Address != c.said.Address || s.Link.Name != c.said.Link.Name) {
		c.log.Info("network-up", "if", s.Link.Name, "addr", s.Address, "gateway", orNone(s.Gateway), "mode", s.Mode)
	}
	c.said = s
}
