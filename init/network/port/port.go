// Package port guards the interfaces of guests: what a guest may send, and
// whether it hears anything, is decided in the bridge before a frame is forwarded
// or handed to the host itself.
//
// Rules is pure: a port in, the rules of its chain out. Guard writes them to the
// nftables table "bridge cairn", where two maps lead from an interface's name to
// the port's chain. A port is put or removed in one transaction of the kernel, so
// there is no instant with half of its rules, and it needs no interface to exist:
// the rules are there first. Rules allow what is known to be honest and end with
// a drop, which one counter a port counts; a frame too short or too odd to be
// understood is not honest.
//
// Only expressions are used that a kernel without modules of the bridge family's
// own has, too.
// Guard may be used by one goroutine at a time.
package port

import (
	"net"
	"net/netip"
)

// Mode says what a guest may send and receive.
type Mode string

// The modes.
const (
	Unlocked Mode = "unlocked" // anything
	Locked   Mode = "locked"   // from its own MAC and the addresses it was given
	Disabled Mode = "disabled" // nothing
)

// Port is the desired state of one interface.
type Port struct {
	Interface string
	MAC       net.HardwareAddr
	Mode      Mode
	// IPv4 and IPv6 are what a locked guest may send from.
	IPv4, IPv6 []netip.Addr
	// Rate is how many bytes a second the guest may send; 0 is no limit.
	Rate uint64
}
