package port

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// base is where in a frame an offset counts from.
type base int

const (
	link base = iota
	network
	transport
	meta // no offset: the kernel's own finding
)

// field is a part of a frame that a match looks at.
type field struct {
	name           string
	base           base
	offset, length uint32
	show           func([]byte) string
}

// The fields, by the headers of Ethernet, ARP over Ethernet (RFC 826), IPv4, IPv6
// and neighbour discovery (RFC 4861) that follows the IPv6 header directly.
var (
	etherTo   = field{"ether daddr", link, 0, 6, mac}
	etherFrom = field{"ether saddr", link, 6, 6, mac}
	etherType = field{"ether type", link, 12, 2, etherName}

	arpHead   = field{"arp header", network, 0, 6, raw}
	arpOp     = field{"arp operation", network, 6, 2, number}
	arpMAC    = field{"arp saddr ether", network, 8, 6, mac}
	arpFrom   = field{"arp saddr ip", network, 14, 4, address}
	arpTarget = field{"arp daddr ip", network, 24, 4, address}

	ip4From = field{"ip saddr", network, 12, 4, address}
	ip4To   = field{"ip daddr", network, 16, 4, address}

	ip6Length = field{"ip6 length", network, 4, 2, number}
	ip6Next   = field{"ip6 nexthdr", network, 6, 1, number}
	ip6From   = field{"ip6 saddr", network, 8, 16, address}

	fragment = field{"frag offset and flags", network, 42, 2, number}

	ndType      = field{"nd type", network, 40, 1, number}
	ndTarget    = field{"nd target", network, 48, 16, address}
	ndOption    = field{"nd option", network, 64, 2, raw}
	ndOptionMAC = field{"nd option ether", network, 66, 6, mac}

	protocol = field{"l4proto", meta, 0, 1, number}
	udpPorts = field{"udp sport dport", transport, 0, 4, raw}
	icmpType = field{"icmp type", transport, 0, 1, number}
)

// op compares a field with values.
type op string

const (
	is    op = ""    // one of the values
	isNot op = "!= " // none of the values
	above op = "> "  // more than the one value, as a number
)

// match is one condition of a rule; it never holds of a frame without the field.
type match struct {
	field
	op     op
	values [][]byte
}

// verdict ends a rule.
type verdict string

const (
	accept verdict = "accept"
	drop   verdict = "drop"       // not counted
	refuse verdict = "count drop" // counted as the guest's fault
)

// rule is the unit nftables works in: all matches hold, then the verdict.
type rule struct {
	matches []match
	// rate and burst, in bytes, make the rule hold only of frames above them.
	rate, burst uint64
	verdict     verdict
}

func (f field) is(values ...[]byte) match    { return match{f, is, values} }
func (f field) isNot(values ...[]byte) match { return match{f, isNot, values} }
func (f field) above(value []byte) match     { return match{f, above, [][]byte{value}} }

func when(v verdict, matches ...match) rule { return rule{matches: matches, verdict: v} }

func (r rule) String() string {
	var parts []string
	for _, m := range r.matches {
		parts = append(parts, m.String())
	}
	if r.rate > 0 {
		parts = append(parts, fmt.Sprintf("over %d bytes/second burst %d bytes", r.rate, r.burst))
	}
	return strings.Join(append(parts, string(r.verdict)), " ")
}

func (m match) String() string {
	var texts []string
	for _, v := range m.values {
		texts = append(texts, m.show(v))
	}
	if len(texts) == 1 {
		return fmt.Sprintf("%s %s%s", m.name, m.op, texts[0])
	}
	return fmt.Sprintf("%s %s{ %s }", m.name, m.op, strings.Join(texts, ", "))
}

func mac(b []byte) string { return net.HardwareAddr(b).String() }
func raw(b []byte) string { return fmt.Sprintf("%#x", b) }

func address(b []byte) string {
	a, _ := netip.AddrFromSlice(b) // fields that are addresses have their lengths
	return a.String()
}

func number(b []byte) string {
	n := 0
	for _, x := range b {
		n = n<<8 | int(x)
	}
	return strconv.Itoa(n)
}

func etherName(b []byte) string {
	switch {
	case bytes.Equal(b, typeARP):
		return "arp"
	case bytes.Equal(b, typeIP4):
		return "ip"
	case bytes.Equal(b, typeIP6):
		return "ip6"
	}
	return raw(b)
}

// addresses are the values of a list, sorted and once each: a set of the kernel
// takes no element twice.
func addresses(list []netip.Addr) [][]byte {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, netip.Addr.Compare)
	var out [][]byte
	for _, a := range slices.Compact(sorted) {
		out = append(out, a.AsSlice())
	}
	return out
}
