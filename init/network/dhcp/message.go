package dhcp

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Type is the kind of a message.
type Type = dhcpv4.MessageType

// The messages a client sends and receives.
const (
	Discover = dhcpv4.MessageTypeDiscover
	Offer    = dhcpv4.MessageTypeOffer
	Request  = dhcpv4.MessageTypeRequest
	Ack      = dhcpv4.MessageTypeAck
	Nak      = dhcpv4.MessageTypeNak
)

// Query is what the machine wants sent.
type Query struct {
	Type Type
	XID  uint32
	Secs uint16
	// ClientIP is set once the host has the address; Requested before that.
	ClientIP  netip.Addr
	Requested netip.Addr
	Server    netip.Addr
	// To is the server's address for a unicast, else invalid.
	To netip.Addr
}

// Reply is what a server said, checked for sense.
type Reply struct {
	Type     Type
	XID      uint32
	Address  netip.Prefix
	Server   netip.Addr
	Routes   []Route
	DNS      []netip.Addr
	NTP      []netip.Addr
	Domain   string
	Duration time.Duration
	T1, T2   time.Duration // 0 where the server left them out
	Message  string
}

// Route is a destination behind a router.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// Infinite is the duration of a lease that never ends.
const Infinite = time.Duration(math.MaxInt64)

// maxList bounds each list of addresses that is taken over from a server.
const maxList = 8

// Identity is what a client tells about itself in each message.
type Identity struct {
	MAC      net.HardwareAddr
	Hostname string
}

// encode builds the packet of a query.
func encode(q Query, id Identity) *dhcpv4.DHCPv4 {
	var xid dhcpv4.TransactionID
	xid[0], xid[1], xid[2], xid[3] = byte(q.XID>>24), byte(q.XID>>16), byte(q.XID>>8), byte(q.XID)
	p := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: id.MAC, TransactionID: xid, NumSeconds: q.Secs,
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		Options: dhcpv4.Options{},
	}
	p.UpdateOption(dhcpv4.OptMessageType(q.Type))
	// The client id is the MAC, so that a lease outlives a reinstallation.
	p.UpdateOption(dhcpv4.OptClientIdentifier(append([]byte{1}, id.MAC...)))
	p.UpdateOption(dhcpv4.OptMaxMessageSize(maxPacket))
	p.UpdateOption(dhcpv4.OptParameterRequestList(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionRouter,
		dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionNTPServers))
	if id.Hostname != "" {
		p.UpdateOption(dhcpv4.OptHostName(id.Hostname))
	}
	if q.ClientIP.IsValid() {
		p.ClientIPAddr = q.ClientIP.AsSlice()
	}
	if q.Requested.IsValid() {
		p.UpdateOption(dhcpv4.OptRequestedIPAddress(q.Requested.AsSlice()))
	}
	if q.Server.IsValid() {
		p.UpdateOption(dhcpv4.OptServerIdentifier(q.Server.AsSlice()))
	}
	return p
}

// decode checks a packet and takes over what the machine needs. Anybody on the
// wire can send one, so nothing is believed that a host could not use.
func decode(b []byte, mac net.HardwareAddr) (Reply, error) {
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		return Reply{}, fmt.Errorf("dhcp reply: %w", err)
	}
	if p.OpCode != dhcpv4.OpcodeBootReply || p.ClientHWAddr.String() != mac.String() {
		return Reply{}, errors.New("dhcp reply: not for this client")
	}
	r := Reply{Type: p.MessageType(), Message: printable(p.Message())}
	for _, x := range p.TransactionID {
		r.XID = r.XID<<8 | uint32(x)
	}
	r.Server, _ = addr(p.ServerIdentifier())
	switch r.Type {
	case Nak:
		return r, nil
	case Offer, Ack:
		return r, r.terms(p)
	}
	return Reply{}, fmt.Errorf("dhcp reply: unexpected %s", r.Type)
}

// terms reads what an offer or an acknowledgement promises.
func (r *Reply) terms(p *dhcpv4.DHCPv4) error {
	a, ok := addr(p.YourIPAddr)
	if !ok || !r.Server.IsValid() {
		return errors.New("dhcp reply: without a usable address or server")
	}
	ones, bits := p.SubnetMask().Size()
	if p.SubnetMask() == nil || bits != 32 || ones == 0 {
		return errors.New("dhcp reply: without a usable subnet mask")
	}
	r.Address = netip.PrefixFrom(a, ones)
	r.Duration = seconds(p.IPAddressLeaseTime(0))
	if r.Duration < minDuration {
		return fmt.Errorf("dhcp reply: lease of %s is too short", r.Duration)
	}
	r.T1, r.T2 = seconds(p.IPAddressRenewalTime(0)), seconds(p.IPAddressRebindingTime(0))
	r.DNS, r.NTP = addrs(p.DNS()), addrs(p.NTPServers())
	r.Domain = domain(p.DomainName())
	r.routes(p)
	return nil
}

// routes follows RFC 3442: classless routes, where given, replace the router
// option. Only a router on the link can be used.
func (r *Reply) routes(p *dhcpv4.DHCPv4) {
	add := func(to netip.Prefix, via netip.Addr) {
		if len(r.Routes) < maxList && via != r.Address.Addr() && r.Address.Contains(via) {
			r.Routes = append(r.Routes, Route{To: to.Masked(), Via: via})
		}
	}
	static := p.ClasslessStaticRoute()
	for _, s := range static {
		via, ok := addr(s.Router)
		to, ok2 := netip.AddrFromSlice(s.Dest.IP.To4())
		if ones, bits := s.Dest.Mask.Size(); ok && ok2 && bits == 32 {
			add(netip.PrefixFrom(to, ones), via)
		}
	}
	if len(static) == 0 {
		if routers := addrs(p.Router()); len(routers) > 0 {
			add(netip.PrefixFrom(netip.IPv4Unspecified(), 0), routers[0])
		}
	}
}

// seconds maps the wire's "for ever" and guards against overflow.
func seconds(d time.Duration) time.Duration {
	if d >= math.MaxUint32*time.Second {
		return Infinite
	}
	return d
}

// addr converts an address a host can have.
func addr(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.As4()[0] == 0 || a.As4()[0] >= 240 {
		return netip.Addr{}, false
	}
	return a, true
}

func addrs(ips []net.IP) []netip.Addr {
	var out []netip.Addr
	for _, ip := range ips {
		if a, ok := addr(ip); ok && len(out) < maxList {
			out = append(out, a)
		}
	}
	return out
}

// domain keeps only what may stand in resolv.conf.
func domain(s string) string {
	if len(s) > 253 {
		return ""
	}
	for i := range len(s) {
		c := s[i]
		if !(c == '.' || c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return ""
		}
	}
	return s
}

func printable(s string) string {
	out := []rune{}
	for _, r := range s {
		if r >= ' ' && r != 0x7f && len(out) < 80 {
			out = append(out, r)
		}
	}
	return string(out)
}
