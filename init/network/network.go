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
// One goroutine (Manager.Run) owns all state. Apply and Status may be called
// from any other. Only physical NICs and the chosen interface are ever touched;
// IPv6 is left to the kernel.
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
