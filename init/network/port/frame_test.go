//go:build lab

package port

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

// What the guest may use, and what is another's.
var (
	own4, foreign4 = netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.66")
	own6, foreign6 = netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("2001:db8::66")
	none4, none6   = netip.IPv4Unspecified(), netip.IPv6Unspecified()
	foreignMAC     = net.HardwareAddr{2, 0, 0, 0, 0, 0x66}
	peerMAC        = net.HardwareAddr{2, 0, 0, 0, 0, 0x20}
	everyone       = net.HardwareAddr{255, 255, 255, 255, 255, 255}
)

func ether(from net.HardwareAddr, kind uint16, payload []byte) []byte {
	return slices.Concat(peerMAC, from, binary.BigEndian.AppendUint16(nil, kind), payload)
}

func arp(op byte, senderMAC net.HardwareAddr, sender, target netip.Addr) []byte {
	return ether(guestMAC, 0x0806, slices.Concat(
		[]byte{0, 1, 8, 0, 6, 4, 0, op}, senderMAC, sender.AsSlice(), make([]byte, 6), target.AsSlice(), make([]byte, 18)))
}

func ip4(from, to netip.Addr, proto byte, payload []byte) []byte {
	h := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0}
	h = slices.Concat(h, from.AsSlice(), to.AsSlice())
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(payload)))
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum+sum>>16))
	return append(h, payload...)
}

func udp(from, to uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return slices.Concat(b, []byte{0, 0}, payload)
}

func ip6(from netip.Addr, next byte, payload []byte) []byte {
	h := []byte{0x60, 0, 0, 0, 0, 0, next, 255}
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	to := netip.MustParseAddr("ff02::1")
	return slices.Concat(h, from.AsSlice(), to.AsSlice(), payload)
}

// hopByHop puts an extension header before what next says follows.
func hopByHop(next byte, payload []byte) []byte {
	return slices.Concat([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload)
}

func icmp(kind byte, rest []byte) []byte { return slices.Concat([]byte{kind, 0, 0, 0}, rest) }

// nd is a message of neighbour discovery about target.
func nd(kind byte, target netip.Addr, options ...[]byte) []byte {
	return icmp(kind, slices.Concat(append([][]byte{make([]byte, 4), target.AsSlice()}, options...)...))
}

func linkOption(kind byte, mac net.HardwareAddr) []byte { return append([]byte{kind, 1}, mac...) }

// sample is a frame of the guest.
type sample struct {
	name  string
	frame []byte
}

var hello = udp(1000, 2000, []byte("hello"))

var honest = []sample{
	{"ARP request", arp(1, guestMAC, own4, foreign4)},
	{"ARP reply", arp(2, guestMAC, own4, foreign4)},
	{"ARP probe for the own address", arp(1, guestMAC, none4, own4)},
	{"UDP from the own address", ether(guestMAC, 0x0800, ip4(own4, foreign4, 17, hello))},
	{"ping", ether(guestMAC, 0x0800, ip4(own4, foreign4, 1, icmp(8, make([]byte, 60))))},
	{"DHCP discover", dhcp},
	{"UDP over IPv6", ether(guestMAC, 0x86dd, ip6(own6, 17, hello))},
	{"UDP behind an extension header", ether(guestMAC, 0x86dd, ip6(own6, 0, hopByHop(17, hello)))},
	{"IPv6 ping", ether(guestMAC, 0x86dd, ip6(own6, 58, icmp(128, make([]byte, 32))))},
	{"neighbour solicitation", ether(guestMAC, 0x86dd, ip6(own6, 58, nd(135, foreign6, linkOption(1, guestMAC))))},
	{"bare solicitation", ether(guestMAC, 0x86dd, ip6(own6, 58, nd(135, foreign6)))},
	{"neighbour advertisement", ether(guestMAC, 0x86dd, ip6(own6, 58, nd(136, own6, linkOption(2, guestMAC))))},
	{"bare advertisement", ether(guestMAC, 0x86dd, ip6(own6, 58, nd(136, own6)))},
	{"duplicate address detection", ether(guestMAC, 0x86dd, ip6(none6, 58, nd(135, own6)))},
	{"the same with a nonce", ether(guestMAC, 0x86dd, ip6(none6, 58, nd(135, own6, []byte{14, 1, 1, 2, 3, 4, 5, 6})))},
	{"first part of a big message", ether(guestMAC, 0x86dd, ip6(own6, 44, slices.Concat([]byte{17, 0, 0, 1, 0, 0, 0, 1}, udp(1, 2, make([]byte, 64)))))},
	{"later part of a big ping", ether(guestMAC, 0x86dd, ip6(own6, 44, slices.Concat([]byte{58, 0, 0, 64, 0, 0, 0, 1}, make([]byte, 64))))},
	{"router solicitation", ether(guestMAC, 0x86dd, ip6(own6, 58, icmp(133, make([]byte, 4))))},
}

var dhcp = slices.Concat(everyone, guestMAC, []byte{8, 0},
	ip4(none4, netip.AddrFrom4([4]byte{255, 255, 255, 255}), 17, udp(68, 67, make([]byte, 300))))

var dishonest = []sample{
	{"foreign MAC", ether(foreignMAC, 0x0800, ip4(own4, foreign4, 17, hello))},
	{"foreign IPv4 address", ether(guestMAC, 0x0800, ip4(foreign4, own4, 17, hello))},
	{"ARP for a foreign address", arp(2, guestMAC, foreign4, own4)},
	{"gratuitous ARP for a foreign address", arp(1, guestMAC, foreign4, foreign4)},
	{"ARP with a foreign MAC", arp(2, foreignMAC, own4, foreign4)},
	{"ARP probe for a foreign address", arp(1, guestMAC, none4, foreign4)},
	{"reverse ARP in ARP's frames", arp(3, guestMAC, own4, own4)},
	{"RARP", ether(guestMAC, 0x8035, make([]byte, 46))},
	{"ICMP redirect", ether(guestMAC, 0x0800, ip4(own4, foreign4, 1, icmp(5, make([]byte, 32))))},
	{"answer of a DHCP server without address", ether(guestMAC, 0x0800, ip4(none4, foreign4, 17, udp(67, 68, make([]byte, 300))))},
	{"foreign IPv6 address", ether(guestMAC, 0x86dd, ip6(foreign6, 17, hello))},
	{"router advertisement", ether(guestMAC, 0x86dd, ip6(own6, 58, icmp(134, make([]byte, 12))))},
	{"router advertisement behind an extension header", ether(guestMAC, 0x86dd, ip6(own6, 0, hopByHop(58, icmp(134, make([]byte, 12)))))},
	{"ICMPv6 redirect", ether(guestMAC, 0x86dd, ip6(own6, 58, nd(137, foreign6)))},
	{"multicast router advertisement", ether(guestMAC, 0x86dd, ip6(own6, 58, icmp(151, make([]byte, 4))))},
	{"advertisement of a foreign address", ether(guestMAC, 0x86dd, ip6(own6, 58, nd(136, foreign6, linkOption(2, guestMAC))))},
	{"advertisement with a foreign MAC", ether(guestMAC, 0x86dd, ip6(own6, 58, nd(136, own6, linkOption(2, foreignMAC))))},
	{"a foreign MAC as second option", ether(guestMAC, 0x86dd, ip6(own6, 58, nd(136, own6, linkOption(2, guestMAC), linkOption(2, foreignMAC))))},
	{"solicitation with a foreign MAC", ether(guestMAC, 0x86dd, ip6(own6, 58, nd(135, foreign6, linkOption(1, foreignMAC))))},
	{"advertisement behind an extension header", ether(guestMAC, 0x86dd, ip6(own6, 0, hopByHop(58, nd(136, own6, linkOption(2, foreignMAC)))))},
	{"duplicate address detection for a foreign address", ether(guestMAC, 0x86dd, ip6(none6, 58, nd(135, foreign6)))},
	{"advertisement in a fragment", ether(guestMAC, 0x86dd, ip6(own6, 44, slices.Concat([]byte{58, 0, 0, 1, 0, 0, 0, 1}, nd(136, own6, linkOption(2, foreignMAC)))))},
	{"a protocol nobody knows", ether(guestMAC, 0x88b5, make([]byte, 46))},
}

// broken are frames that a bridge without rules may drop, or a socket not show as
// they were sent.
var broken = []sample{
	{"IPv4 in a VLAN", ether(guestMAC, 0x8100, slices.Concat([]byte{0, 5, 8, 0}, ip4(own4, foreign4, 17, hello)))},
	{"half an IPv4 header", ether(guestMAC, 0x0800, ip4(own4, foreign4, 17, nil)[:10])},
	{"IPv6 cut off in its extension headers", ether(guestMAC, 0x86dd, ip6(own6, 0, []byte{58, 9}))},
}
