package port

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"cairn/golden"
)

func addrs(texts ...string) (out []netip.Addr) {
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

var guestMAC = net.HardwareAddr{2, 0, 0, 0, 0, 0x10}

func TestRules(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		name string
		port Port
	}{
		{"disabled", Port{Mode: Disabled, Rate: 1 << 20}},
		{"unlocked", Port{Mode: Unlocked}},
		{"unlocked, 1 MiB a second", Port{Mode: Unlocked, Rate: 1 << 20}},
		{"unlocked, 100 MiB a second", Port{Mode: Unlocked, Rate: 100 << 20}},
		{"locked without addresses", Port{Mode: Locked}},
		{"locked to IPv4", Port{Mode: Locked, IPv4: addrs("192.0.2.10"), Rate: 1 << 20}},
		{"locked to some, one twice", Port{Mode: Locked, IPv4: addrs("192.0.2.11", "192.0.2.10", "192.0.2.11"), IPv6: addrs("fe80::10", "2001:db8::10")}},
	} {
		c.port.MAC = guestMAC
		fmt.Fprintf(&b, "%s\n", c.name)
		for _, r := range Rules(c.port) {
			fmt.Fprintf(&b, "    %s\n", r)
		}
	}
	golden.Equal(t, "testdata/rules.golden", b.String())
}

// TestRulesEnd: whatever a locked or disabled port's rules say of a frame, one that
// none of them knows is refused.
func TestRulesEnd(t *testing.T) {
	for _, mode := range []Mode{Locked, Disabled} {
		rules := Rules(Port{Mode: mode, MAC: guestMAC, IPv4: addrs("192.0.2.1"), IPv6: addrs("::1")})
		if last := rules[len(rules)-1]; last.String() != "count drop" {
			t.Errorf("%s ends with %q", mode, last)
		}
	}
}
