// Package network keeps the management network as the configuration document
// wants it: it chooses the interface, leases or sets the address, and writes
// both to the kernel by netlink.
//
// Plan and Select are pure: desired and found state in, ordered steps out. The
// manager is level-triggered: netlink messages, DHCP replies, timers and new
// settings only wake it, and each time it looks at the kernel afresh. So a lost
// event costs a delay, never a wrong state, a restart takes over what it finds,
// and a step that failed is simply planned again.
//
// Guests are joined to bridges. That of the management network is over the NIC
// chosen for it, has its MAC, and carries the host's address; others are made on
// request, with a NIC or without. Bridges outlive this process, which knows them
// by a mark, and are as level-triggered as all else.
//
// One goroutine (Manager.Run) owns all state. The other methods may be called
// from any other. Only physical NICs, the chosen interface and marked bridges are
// ever touched; IPv6 is left to the kernel, and is off where the host has no
// business: on bridges of guests and on NICs within bridges.
package network

import (
	"net/netip"
	"strings"
)

// Link is a network interface as found.
type Link struct {
	Index int
	Name  string
	MAC   string
	// Path is the device's path in sysfs; empty for virtual interfaces.
	Path    string
	Up      bool // administratively
	Carrier bool
	Addrs   []netip.Prefix // IPv4
	Kind    string         // what the kernel calls a virtual interface's type
	Master  string         // the bridge it is in
	MTU     int
	Ours    bool // marked as made by this package
}

// Physical reports whether there is hardware behind the link.
func (l Link) Physical() bool { return l.Path != "" }

// Route is an IPv4 route in the main table.
type Route struct {
	To   netip.Prefix // 0.0.0.0/0 is the default route
	Via  netip.Addr
	Link string
}

// Found is the kernel's state.
type Found struct {
	Links []Link
	// Routes are those this package has set, marked by their protocol.
	Routes []Route
}

// Desired is what the kernel's state should be.
type Desired struct {
	// Link is the management interface, empty while there is none to choose.
	Link string
	// NIC is the hardware beneath when Link is a bridge.
	NIC string
	// Address is invalid while there is none.
	Address netip.Prefix
	Routes  []Route
}

func (f Found) link(name string) (Link, bool) {
	for _, l := range f.Links {
		if l.Name == name {
			return l, true
		}
	}
	return Link{}, false
}

// matches reports whether a link is the one the document names, by MAC or name.
func (l Link) matches(want string) bool {
	if strings.Contains(want, ":") {
		return strings.EqualFold(l.MAC, want)
	}
	return l.Name == want
}
