package network

import (
	"fmt"
	"net/netip"
	"slices"
)

// Op is what a step does.
type Op string

// The operations.
const (
	LinkUp   Op = "link-up"
	AddrAdd  Op = "addr-add"
	AddrDel  Op = "addr-del"
	RouteSet Op = "route-set"
	RouteDel Op = "route-del"

	BridgeAdd Op = "bridge-add" // and mark it; one that is there is only marked
	BridgeDel Op = "bridge-del"
	PortJoin  Op = "port-join"
	PortLeave Op = "port-leave"
	MACSet    Op = "mac-set"
	MTUSet    Op = "mtu-set"
)

// Step is one change of the kernel's state. Each is idempotent.
type Step struct {
	Op    Op
	Link  string
	Addr  netip.Prefix
	Route Route

	Bridge string // that the step is for
	MAC    string
	MTU    int
	Host   bool // the bridge is for the host's own address, too
}

func (s Step) String() string {
	switch s.Op {
	case AddrAdd, AddrDel:
		return fmt.Sprintf("%s %s dev %s", s.Op, s.Addr, s.Link)
	case RouteSet, RouteDel:
		return fmt.Sprintf("%s %s via %s dev %s", s.Op, s.Route.To, s.Route.Via, s.Link)
	case PortJoin, PortLeave:
		return fmt.Sprintf("%s %s bridge %s", s.Op, s.Link, s.Bridge)
	case BridgeAdd, MACSet:
		return fmt.Sprintf("%s %s mac %s", s.Op, s.Link, s.MAC)
	case MTUSet:
		return fmt.Sprintf("%s %s %d", s.Op, s.Link, s.MTU)
	}
	return fmt.Sprintf("%s %s", s.Op, s.Link)
}

// loopback is up on every host, or nothing talks to itself.
const loopback = "lo"

// Plan returns the steps from found to desired, none when they agree.
//
// The order keeps the host reachable: the new address and routes come before
// the old ones go. The exception is another address in the same network, where
// the kernel would take the new one down with the old.
func Plan(d Desired, f Found) []Step {
	var up, before, add, after []Step
	for _, l := range f.Links {
		if !l.Up && (l.Physical() || l.Name == d.Link || l.Name == d.NIC || l.Name == loopback) {
			up = append(up, Step{Op: LinkUp, Link: l.Name})
		}
		for _, a := range stale(d, l) {
			step := Step{Op: AddrDel, Link: l.Name, Addr: a}
			if l.Name == d.Link && a.Masked() == d.Address.Masked() {
				before = append(before, step)
			} else {
				after = append(after, step)
			}
		}
	}
	if l, ok := f.link(d.Link); ok && d.Address.IsValid() {
		if !slices.Contains(l.Addrs, d.Address) {
			add = append(add, Step{Op: AddrAdd, Link: d.Link, Addr: d.Address})
		}
		add = append(add, missingRoutes(d, f, len(before)+len(add) > 0)...)
	}
	after = append(staleRoutes(d, f), after...)
	return slices.Concat(up, before, add, after)
}

// stale lists the addresses of a managed link that nobody wants.
func stale(d Desired, l Link) []netip.Prefix {
	if !l.Physical() && !l.Ours && l.Name != d.Link && l.Name != d.NIC {
		return nil
	}
	var out []netip.Prefix
	for _, a := range l.Addrs {
		if l.Name != d.Link || a != d.Address {
			out = append(out, a)
		}
	}
	return out
}

// missingRoutes lists the routes to set. A change of address may take routes
// with it, so after one all are set again.
func missingRoutes(d Desired, f Found, all bool) []Step {
	var out []Step
	for _, r := range d.Routes {
		if all || !slices.Contains(f.Routes, r) {
			out = append(out, Step{Op: RouteSet, Link: r.Link, Route: r})
		}
	}
	return out
}

// staleRoutes lists routes nobody wants. One to a wanted destination was
// replaced by setting the wanted one, unless that is elsewhere.
func staleRoutes(d Desired, f Found) []Step {
	var out []Step
	for _, r := range f.Routes {
		replaced := slices.ContainsFunc(d.Routes, func(w Route) bool { return w.To == r.To && w != r })
		if !slices.Contains(d.Routes, r) && !replaced {
			out = append(out, Step{Op: RouteDel, Link: r.Link, Route: r})
		}
	}
	return out
}
