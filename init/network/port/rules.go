package port

import "net"

var (
	typeARP = []byte{0x08, 0x06}
	typeIP4 = []byte{0x08, 0x00}
	typeIP6 = []byte{0x86, 0xdd}

	// Ethernet addresses of 6 bytes for IPv4 ones of 4.
	arpEthernet = []byte{0, 1, 8, 0, 6, 4}
	arpReply    = []byte{0, 2}

	protoICMP   = []byte{1}
	protoUDP    = []byte{17}
	protoICMPv6 = []byte{58}
	protoNone   = []byte{255} // reserved: no frame has it

	protoFragment = []byte{44}
	firstFragment = []byte{0, 7} // the highest value with offset 0; the low bits are flags

	noAddress4 = make([]byte, 4)
	noAddress6 = make([]byte, 16)
	broadcast4 = []byte{255, 255, 255, 255}
	dhcpPorts  = []byte{0, 68, 0, 67}

	// ICMP redirect and router advertisement.
	routing4 = [][]byte{{5}, {9}}
	// ICMPv6: router advertisement, redirect, router renumbering, mobile prefix
	// solicitation and advertisement, certification path advertisement, multicast
	// router advertisement, solicitation and termination.
	routing6 = [][]byte{{134}, {137}, {138}, {146}, {147}, {149}, {151}, {152}, {153}}
	// Neighbour discovery, which has no business behind extension headers or in
	// fragments (RFC 6980).
	discovery = [][]byte{{133}, {134}, {135}, {136}, {137}}

	solicit   = []byte{135}
	advertise = []byte{136}
	ndBare    = []byte{0, 24} // IPv6 payload of a message without an option
	ndOne     = []byte{0, 32} // with one option of 8 bytes
	// Options of that length: the link-layer address of the source or the target,
	// and the nonce by which a host knows its own question (RFC 7527).
	optSource = []byte{1, 1}
	optTarget = []byte{2, 1}
	optNonce  = []byte{14, 1}
)

// minBurst lets a guest's largest frame pass, which is 64 KiB before it is cut
// into packets, twice.
const minBurst = 128 << 10

// Rules returns the rules of a port's chain, in order. Every frame that is still
// undecided at the end of an unlocked port's chain passes.
func Rules(p Port) []rule {
	if p.Mode == Disabled {
		return []rule{when(refuse)}
	}
	var rules []rule
	if p.Mode == Locked {
		rules = append(rules, when(refuse, etherFrom.isNot(p.MAC)))
	}
	if p.Rate > 0 {
		// What is sent in a tenth of a second may come at once: TCP would crawl
		// behind a limit that forgives nothing.
		rules = append(rules, rule{rate: p.Rate, burst: max(minBurst, p.Rate/10), verdict: drop})
	}
	if p.Mode != Locked {
		return rules
	}
	rules = append(rules, arpRules(p)...)
	rules = append(rules, ip4Rules(p)...)
	rules = append(rules, ip6Rules(p)...)
	return append(rules, when(refuse))
}

// arpRules let the guest speak of its own addresses, and ask whether somebody has
// them before it takes them.
func arpRules(p Port) []rule {
	arp, own := etherType.is(typeARP), addresses(p.IPv4)
	if len(own) == 0 {
		return nil
	}
	return []rule{
		when(refuse, arp, arpHead.isNot(arpEthernet)),
		when(refuse, arp, arpOp.above(arpReply)),
		when(refuse, arp, arpMAC.isNot(p.MAC)),
		when(accept, arp, arpFrom.is(own...)),
		when(accept, arp, arpFrom.is(noAddress4), arpTarget.is(own...)),
	}
}

// ip4Rules let the guest ask for a lease whatever its addresses are.
func ip4Rules(p Port) []rule {
	ip, own := etherType.is(typeIP4), addresses(p.IPv4)
	rules := []rule{
		when(accept, ip, ip4From.is(noAddress4), ip4To.is(broadcast4), protocol.is(protoUDP), udpPorts.is(dhcpPorts)),
	}
	if len(own) == 0 {
		return rules
	}
	return append(rules,
		when(refuse, ip, protocol.is(protoICMP), icmpType.is(routing4...)),
		when(accept, ip, ip4From.is(own...)),
	)
}

// ip6Rules end with questions for the protocol, and for the type of an ICMP
// message, because only a frame whose extension headers can be followed to their
// end has them.
func ip6Rules(p Port) []rule {
	ip, own := etherType.is(typeIP6), addresses(p.IPv6)
	if len(own) == 0 {
		return nil
	}
	nd := func(kind []byte, more ...match) []match {
		return append([]match{ip, ip6Next.is(protoICMPv6), ndType.is(kind)}, more...)
	}
	probe := nd(solicit, ip6From.is(noAddress6), ndTarget.is(own...))
	rules := []rule{
		when(accept, append(probe[:len(probe):len(probe)], ip6Length.is(ndBare))...),
		when(accept, append(probe[:len(probe):len(probe)], ip6Length.is(ndOne), ndOption.is(optNonce))...),
		when(refuse, ip, ip6From.isNot(own...)),
		when(refuse, ip, protocol.is(protoICMPv6), icmpType.is(routing6...)),
		when(refuse, ip, protocol.is(protoICMPv6), ip6Next.isNot(protoICMPv6), icmpType.is(discovery...)),
	}
	rules = append(rules, optionRules(nd, solicit, p.MAC, optSource, optNonce)...)
	rules = append(rules, optionRules(nd, advertise, p.MAC, optTarget)...)
	return append(rules,
		when(refuse, nd(advertise, ndTarget.isNot(own...))...),
		when(accept, ip, protocol.isNot(protoICMPv6, protoNone)),
		when(accept, ip, protocol.is(protoICMPv6), icmpType.above([]byte{0})),
		// The later parts of a fragmented message have no type.
		when(accept, ip, ip6Next.is(protoFragment), fragment.above(firstFragment)),
	)
}

// optionRules refuse neighbour discovery with another's link-layer address, or
// with more options than are looked at.
func optionRules(nd func([]byte, ...match) []match, kind []byte, own net.HardwareAddr, address []byte, others ...[]byte) []rule {
	return []rule{
		when(refuse, nd(kind, ip6Length.isNot(ndBare, ndOne))...),
		when(refuse, nd(kind, ip6Length.is(ndOne), ndOption.isNot(append(others, address)...))...),
		when(refuse, nd(kind, ip6Length.is(ndOne), ndOption.is(address), ndOptionMAC.isNot(own))...),
	}
}
