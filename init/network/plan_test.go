package network

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"cairn/golden"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func via(to, gw, link string) Route {
	return Route{To: pfx(to), Via: netip.MustParseAddr(gw), Link: link}
}

// nic is a physical link, up and with a carrier.
func nic(name string, addrs ...string) Link {
	l := Link{Name: name, Index: len(name) + int(name[len(name)-1]), MAC: "52:54:00:00:00:0" + name[len(name)-1:], Path: "/sys/devices/pci0/" + name, Up: true, Carrier: true}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, pfx(a))
	}
	return l
}

func down(l Link) Link { l.Up, l.Carrier = false, false; return l }

func noCarrier(l Link) Link { l.Carrier = false; return l }

func virtual(l Link) Link { l.Path = ""; return l }

func TestPlan(t *testing.T) {
	lo := Link{Name: loopback, Index: 1, Up: true, Carrier: true}
	want := Desired{Link: "eth0", Address: pfx("10.0.0.2/24"), Routes: []Route{via("0.0.0.0/0", "10.0.0.1", "eth0")}}
	var b strings.Builder
	for _, c := range []struct {
		name string
		d    Desired
		f    Found
	}{
		{"first boot", Desired{}, Found{Links: []Link{down(Link{Name: loopback}), down(nic("eth0")), down(nic("eth1")), down(virtual(nic("virbr0")))}}},
		{"address arrives", want, Found{Links: []Link{lo, nic("eth0"), nic("eth1")}}},
		{"all as wanted", want, Found{Links: []Link{lo, nic("eth0", "10.0.0.2/24")}, Routes: want.Routes}},
		{"route lost", want, Found{Links: []Link{lo, nic("eth0", "10.0.0.2/24")}}},
		{"other network", want, Found{Links: []Link{lo, nic("eth0", "192.168.1.2/24")}, Routes: []Route{via("0.0.0.0/0", "192.168.1.1", "eth0")}}},
		{"other address in the same network", want, Found{Links: []Link{lo, nic("eth0", "10.0.0.9/24")}, Routes: want.Routes}},
		{"other router", want, Found{Links: []Link{lo, nic("eth0", "10.0.0.2/24")}, Routes: []Route{via("0.0.0.0/0", "10.0.0.254", "eth0")}}},
		{"other interface", want, Found{Links: []Link{lo, nic("eth0"), nic("eth1", "10.0.0.2/24")}, Routes: []Route{via("0.0.0.0/0", "10.0.0.1", "eth1")}}},
		{"lease lost", Desired{Link: "eth0"}, Found{Links: []Link{lo, nic("eth0", "10.0.0.2/24")}, Routes: want.Routes}},
		{"a second route", Desired{Link: "eth0", Address: want.Address, Routes: append([]Route{via("172.16.0.0/12", "10.0.0.3", "eth0")}, want.Routes...)}, Found{Links: []Link{lo, nic("eth0", "10.0.0.2/24")}, Routes: want.Routes}},
		{"what is not ours stays", want, Found{Links: []Link{lo, nic("eth0", "10.0.0.2/24"), virtual(nic("virbr0", "192.168.122.1/24"))}, Routes: want.Routes}},
		{"a chosen virtual interface is ours", Desired{Link: "veth0"}, Found{Links: []Link{lo, down(virtual(nic("veth0", "10.0.0.2/24")))}}},
		{"interface vanished", want, Found{Links: []Link{lo}}},
	} {
		fmt.Fprintf(&b, "%s\n", c.name)
		for _, s := range Plan(c.d, c.f) {
			fmt.Fprintf(&b, "    %s\n", s)
		}
	}
	golden.Equal(t, "testdata/plan.golden", b.String())
}

func TestSelect(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	since := func(ages ...time.Duration) map[string]time.Time {
		m := map[string]time.Time{}
		for i, a := range ages {
			m[fmt.Sprintf("eth%d", i)] = now.Add(-a)
		}
		return m
	}
	eth0, eth1, eth2 := nic("eth0"), nic("eth1"), nic("eth2")
	for _, c := range []struct {
		name string
		in   Choice
		want string
		wait time.Duration
	}{
		{"none", Choice{}, "", 0},
		{"by name", Choice{Want: "eth1", Links: []Link{eth0, eth1}}, "eth1", 0},
		{"by name without a link", Choice{Want: "eth1", Links: []Link{eth0, down(eth1)}}, "eth1", 0},
		{"by name, virtual", Choice{Want: "eth1", Links: []Link{eth0, virtual(eth1)}}, "eth1", 0},
		{"by name, absent", Choice{Want: "eth9", Links: []Link{eth0, eth1}}, "", 0},
		{"by mac in capitals", Choice{Want: strings.ToUpper(eth1.MAC), Links: []Link{eth0, eth1}}, "eth1", 0},
		{"lowest path", Choice{Links: []Link{eth1, eth0}}, "eth0", 0},
		{"no link anywhere", Choice{Links: []Link{noCarrier(eth0)}}, "", 0},
		{"virtual ones do not count", Choice{Links: []Link{virtual(eth0), eth1}}, "eth1", 0},
		{"a lower one gets time to find its link", Choice{Links: []Link{noCarrier(eth0), eth1}, Since: since(time.Second, time.Second)}, "", 2 * time.Second},
		{"but not for ever", Choice{Links: []Link{noCarrier(eth0), eth1}, Since: since(linkGrace, 0)}, "eth1", 0},
		{"a higher one is not waited for", Choice{Links: []Link{eth0, noCarrier(eth1)}, Since: since(0, 0)}, "eth0", 0},
		{"the slowest of several", Choice{Links: []Link{noCarrier(eth0), noCarrier(eth1), eth2}, Since: since(time.Second, 2*time.Second, 0)}, "", 2 * time.Second},
		{"the choice stays", Choice{Links: []Link{eth0, eth1}, Current: "eth1"}, "eth1", 0},
		{"also without any link", Choice{Links: []Link{noCarrier(eth0), noCarrier(eth1)}, Current: "eth1"}, "eth1", 0},
		{"a short loss is waited out", Choice{Links: []Link{eth0, noCarrier(eth1)}, Current: "eth1", Since: since(0, 10*time.Second)}, "eth1", 20 * time.Second},
		{"a long one moves the choice", Choice{Links: []Link{eth0, noCarrier(eth1)}, Current: "eth1", Since: since(0, moveAfter)}, "eth0", 0},
		{"a vanished choice is made again", Choice{Links: []Link{eth0}, Current: "eth1"}, "eth0", 0},
	} {
		c.in.Now = now
		got, wait := Select(c.in)
		if got != c.want || (c.wait == 0) != wait.IsZero() || !wait.IsZero() && wait.Sub(now) != c.wait {
			t.Errorf("%s: got %q until %v, want %q for %v", c.name, got, wait, c.want, c.wait)
		}
	}
}
