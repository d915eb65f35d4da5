package network

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"slices"
)

// Bridge is a switch that should be there.
type Bridge struct {
	Name string `json:"name"`
	// Uplink is the NIC by which the bridge reaches the outside, whose MAC it
	// takes; empty for a private one.
	Uplink string `json:"uplink,omitempty"`
	MTU    int    `json:"mtu,omitempty"` // 0 leaves it as it is
}

// Errors of what is asked of bridges.
var (
	ErrNoUplink = errors.New("there is no such NIC")
	ErrInUse    = errors.New("in use")
)

// bridgeKind is what the kernel calls a bridge.
const bridgeKind = "bridge"

// PlanBridges returns the steps from found to the bridges that are wanted, of
// which management carries the host's own address. Bridges this package once made
// go when nobody wants them, unless something else is in them; the management
// network's never goes.
//
// What there is is only ever added to or changed in place: at no step does a
// bridge's port, nor the host's address, go away and come back.
func PlanBridges(want []Bridge, management string, f Found) []Step {
	var steps []Step
	for _, b := range want {
		steps = append(steps, planBridge(b, b.Name == management, f)...)
	}
	for _, l := range f.Links {
		wanted := slices.ContainsFunc(want, func(b Bridge) bool { return b.Name == l.Name })
		if l.Kind == bridgeKind && l.Ours && !wanted && l.Name != management && len(f.guests(l.Name)) == 0 {
			steps = append(steps, Step{Op: BridgeDel, Link: l.Name, Bridge: l.Name})
		}
	}
	return steps
}

func planBridge(b Bridge, management bool, f Found) []Step {
	have, exists := f.link(b.Name)
	uplink, wired := f.link(b.Uplink)
	mac := privateMAC(b.Name)
	if wired {
		mac = uplink.MAC
	}
	var steps []Step
	if !exists || !have.Ours {
		steps = append(steps, Step{Op: BridgeAdd, Link: b.Name, MAC: mac, Host: management})
	} else if wired && have.MAC != mac {
		steps = append(steps, Step{Op: MACSet, Link: b.Name, MAC: mac})
	}
	if !have.Up {
		// Before its NIC is in it: the kernel tells of a link that a bridge finds
		// when it comes up only with the next second.
		steps = append(steps, Step{Op: LinkUp, Link: b.Name})
	}
	for _, l := range f.Links {
		if l.Master == b.Name && l.Physical() && l.Name != b.Uplink {
			steps = append(steps, Step{Op: PortLeave, Link: l.Name})
		}
	}
	if wired && uplink.Master != b.Name {
		steps = append(steps, Step{Op: PortJoin, Link: b.Uplink})
	}
	steps = append(steps, planMTU(b, have, uplink, wired)...)
	if wired && !uplink.Up {
		steps = append(steps, Step{Op: LinkUp, Link: b.Uplink})
	}
	for i := range steps {
		steps[i].Bridge = b.Name
	}
	return steps
}

// planMTU changes a larger MTU from the wire inwards and a smaller one outwards,
// so that the bridge never sends what its uplink cannot.
func planMTU(b Bridge, have, uplink Link, wired bool) []Step {
	if b.MTU == 0 {
		return nil
	}
	var steps []Step
	if wired && uplink.MTU < b.MTU {
		steps = append(steps, Step{Op: MTUSet, Link: b.Uplink, MTU: b.MTU})
	}
	if have.MTU != b.MTU {
		steps = append(steps, Step{Op: MTUSet, Link: b.Name, MTU: b.MTU})
	}
	if wired && uplink.MTU > b.MTU {
		steps = append(steps, Step{Op: MTUSet, Link: b.Uplink, MTU: b.MTU})
	}
	return steps
}

// guests lists what is in a bridge beside NICs.
func (f Found) guests(bridge string) []string {
	var out []string
	for _, l := range f.Links {
		if l.Master == bridge && !l.Physical() {
			out = append(out, l.Name)
		}
	}
	return out
}

// privateMAC is the address of a bridge without an uplink: always the same, so
// that it does not change with the guests in it, as the kernel's choice would.
func privateMAC(name string) string {
	sum := sha256.Sum256([]byte(name))
	sum[0] = sum[0]&^1 | 2 // local, unicast
	return net.HardwareAddr(sum[:6]).String()
}

// wanted lists all bridges there should be. That of the management network is
// over the NIC that was chosen, whatever was asked.
func (c *core) wanted() []Bridge {
	management := Bridge{Name: c.settings.Bridge, Uplink: c.current.Name}
	var out []Bridge
	for _, b := range c.bridges {
		switch {
		case management.Name == "":
		case b.Name == management.Name:
			management.MTU = b.MTU
			continue
		case b.Uplink == management.Uplink:
			b.Uplink = "" // the host's own needs go first
		}
		out = append(out, b)
	}
	if management.Name != "" && (management.Uplink != "" || c.asked(management.Name)) {
		out = append(out, management)
	}
	slices.SortFunc(out, func(a, b Bridge) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (c *core) asked(name string) bool {
	_, ok := c.bridges[name]
	return ok
}

// bridge makes the bridges there should be, and returns what the kernel has then.
// One that cannot be made is tried again later; the host goes on without it.
func (c *core) bridge(f Found) (Found, error) {
	var errs []error
	failed := map[string]bool{}
	steps := PlanBridges(c.wanted(), c.settings.Bridge, f)
	for _, s := range steps {
		if failed[s.Bridge] {
			continue // the later steps of a bridge need the earlier ones
		}
		c.log.Debug("network-step", "step", s)
		if err := c.kernel.Do(s); err != nil {
			failed[s.Bridge] = true
			errs = append(errs, err)
		}
	}
	if len(steps) > 0 {
		after, err := c.kernel.Found()
		if err != nil {
			return f, errors.Join(append(errs, err)...)
		}
		f = after
	}
	return f, errors.Join(errs...)
}

// portOf is where the host's address belongs: the bridge over the NIC that was
// chosen, once the NIC is in it, else the NIC itself.
func (c *core) portOf(f Found) Link {
	nic, _ := f.link(c.current.Name)
	if c.settings.Bridge == "" || nic.Master != c.settings.Bridge {
		return nic
	}
	if l, ok := f.link(c.settings.Bridge); ok {
		return l
	}
	return nic
}

// putBridge takes a bridge that should be there from now on. It is refused, and
// changes nothing, when it never could be.
func (c *core) putBridge(b Bridge, f Found) error {
	if uplink, ok := f.link(b.Uplink); b.Uplink != "" && (!ok || uplink.Kind == bridgeKind) {
		return fmt.Errorf("bridge %s: uplink %s: %w", b.Name, b.Uplink, ErrNoUplink)
	}
	if l, ok := f.link(b.Name); ok && l.Kind != bridgeKind {
		return fmt.Errorf("bridge %s: the name is %w", b.Name, ErrInUse)
	}
	if c.settings.Bridge != "" && b.Uplink != "" && (b.Uplink == c.current.Name) != (b.Name == c.settings.Bridge) && c.current.Name != "" {
		return fmt.Errorf("bridge %s: uplink %s: the management network is on %s: %w", b.Name, b.Uplink, c.current.Name, ErrInUse)
	}
	for _, other := range c.bridges {
		if b.Uplink != "" && other.Uplink == b.Uplink && other.Name != b.Name {
			return fmt.Errorf("bridge %s: uplink %s is that of %s: %w", b.Name, b.Uplink, other.Name, ErrInUse)
		}
	}
	return c.remember(func() { c.bridges[b.Name] = b })
}

// deleteBridge forgets a bridge; the next look at the kernel removes it.
func (c *core) deleteBridge(name string, f Found) error {
	if name == c.settings.Bridge && c.current.Name != "" {
		return fmt.Errorf("bridge %s: the management network is on it: %w", name, ErrInUse)
	}
	if guests := f.guests(name); len(guests) > 0 {
		return fmt.Errorf("bridge %s: %s is in it: %w", name, guests[0], ErrInUse)
	}
	return c.remember(func() { delete(c.bridges, name) })
}

// remember changes the bridges there should be, for a restart of this process too.
func (c *core) remember(change func()) error {
	change()
	var all []Bridge
	for _, b := range c.bridges {
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b Bridge) int { return cmp.Compare(a.Name, b.Name) })
	return c.leases.SaveBridges(all)
}
