package dhcp

import (
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var mac = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}

// served is a sound answer with the given changes.
func served(mods ...dhcpv4.Modifier) []byte {
	p := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: 1, ClientHWAddr: mac, TransactionID: dhcpv4.TransactionID{0, 0, 1, 2},
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4(10, 0, 0, 5), ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		Options: dhcpv4.Options{},
	}
	for _, m := range append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck),
		dhcpv4.WithServerIP(net.IPv4(10, 0, 0, 1)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1))),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithLeaseTime(3600),
	}, mods...) {
		m(p)
	}
	return p.ToBytes()
}

func TestDecode(t *testing.T) {
	static := &dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(192, 168, 0, 0), Mask: net.CIDRMask(16, 32)}, Router: net.IPv4(10, 0, 0, 3)}
	far := &dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(172, 16, 0, 0), Mask: net.CIDRMask(12, 32)}, Router: net.IPv4(10, 9, 0, 3)}
	got, err := decode(served(
		dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254), net.IPv4(10, 0, 0, 253)),
		dhcpv4.WithDNS(net.IPv4(10, 0, 0, 53), net.IPv4(224, 0, 0, 1)),
		dhcpv4.WithOption(dhcpv4.OptNTPServers(net.IPv4(10, 0, 0, 123))),
		dhcpv4.WithOption(dhcpv4.OptDomainName("lab.example")),
	), mac)
	want := Reply{
		Type: Ack, XID: 0x0102, Address: netip.MustParsePrefix("10.0.0.5/24"), Server: netip.MustParseAddr("10.0.0.1"),
		Routes: []Route{{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.0.0.254")}},
		DNS:    []netip.Addr{netip.MustParseAddr("10.0.0.53")}, NTP: []netip.Addr{netip.MustParseAddr("10.0.0.123")},
		Domain: "lab.example", Duration: time.Hour,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	got, err = decode(served(dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254)), dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(static, far))), mac)
	if err != nil || len(got.Routes) != 1 || got.Routes[0].To.String() != "192.168.0.0/16" {
		t.Errorf("classless routes: got %v, %v", got.Routes, err)
	}
	got, err = decode(served(dhcpv4.WithLeaseTime(0xffffffff)), mac)
	if err != nil || got.Duration != Infinite {
		t.Errorf("endless lease: got %v, %v", got.Duration, err)
	}
	got, err = decode(served(dhcpv4.WithMessageType(dhcpv4.MessageTypeNak), dhcpv4.WithOption(dhcpv4.OptMessage("no\x1b[2Jway"))), mac)
	if err != nil || got.Type != Nak || got.Message != "no[2Jway" {
		t.Errorf("NAK: got %+v, %v", got, err)
	}
	got, err = decode(served(dhcpv4.WithOption(dhcpv4.OptDomainName("a\nnameserver 6.6.6.6"))), mac)
	if err != nil || got.Domain != "" {
		t.Errorf("domain with a newline: got %q, %v", got.Domain, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":           {},
		"a request":         encode(Query{Type: Discover}, Identity{MAC: mac}).ToBytes(),
		"no address":        served(dhcpv4.WithYourIP(net.IPv4zero)),
		"multicast address": served(dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1))),
		"no lease time":     served(dhcpv4.WithLeaseTime(0)),
		"inform":            served(dhcpv4.WithMessageType(dhcpv4.MessageTypeInform)),
		"no mask":           served(func(d *dhcpv4.DHCPv4) { delete(d.Options, uint8(dhcpv4.OptionSubnetMask)) }),
		"no server":         served(func(d *dhcpv4.DHCPv4) { delete(d.Options, uint8(dhcpv4.OptionServerIdentifier)) }),
		"somebody else's":   served(dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 1})),
	} {
		if r, err := decode(b, mac); err == nil {
			t.Errorf("%s: accepted as %+v", name, r)
		}
	}
}

func TestEncode(t *testing.T) {
	q := Query{
		Type: Request, XID: 0xdeadbeef, Secs: 7,
		Requested: netip.MustParseAddr("10.0.0.5"), Server: netip.MustParseAddr("10.0.0.1"),
	}
	p, err := dhcpv4.FromBytes(encode(q, Identity{MAC: mac, Hostname: "cairn-1"}).ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	if p.TransactionID.String() != "0xdeadbeef" || p.NumSeconds != 7 || p.MessageType() != Request ||
		!p.RequestedIPAddress().Equal(net.IPv4(10, 0, 0, 5)) || !p.ServerIdentifier().Equal(net.IPv4(10, 0, 0, 1)) ||
		p.HostName() != "cairn-1" || p.ClientHWAddr.String() != mac.String() || !p.ClientIPAddr.Equal(net.IPv4zero) {
		t.Errorf("got %s", p.Summary())
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(served())
	f.Add(served(dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254)), dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decode(b, mac)
		if err != nil || r.Type == Nak {
			return
		}
		if !r.Address.IsValid() || !r.Server.IsValid() || r.Duration < minDuration || len(r.Routes) > maxList {
			t.Fatalf("accepted %+v", r)
		}
	})
}
