package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/golden"
	"cairn/init/config"
)

const management = "xenbr0"

var staticMode = config.Management{Mode: config.ModeStatic, Address: pfx("10.0.0.2/24"), Gateway: netip.MustParseAddr("10.0.0.1")}

// killed ends a core in the middle of its work, as a kill ends the process.
type killed struct{}

func (w *world) addBridge(s Step) {
	for i := range w.found.Links {
		if w.found.Links[i].Name == s.Link {
			w.found.Links[i].Ours = true
			return
		}
	}
	w.found.Links = append(w.found.Links, Link{
		Index: 100 + len(w.found.Links), Name: s.Link, MAC: s.MAC, Kind: bridgeKind, Ours: true, MTU: 1500,
	})
}

// carry gives bridges that are up a carrier when one of their ports has one.
func (w *world) carry() {
	for i, br := range w.found.Links {
		if br.Kind == bridgeKind {
			w.found.Links[i].Carrier = br.Up && slices.ContainsFunc(w.found.Links, func(l Link) bool { return l.Master == br.Name && l.Carrier })
		}
	}
}

// again starts a new core on the kernel as it is.
func (w *world) again() {
	w.core = newCore(w, w.dial, w, &fixed{}, w.core.log)
	w.open = 0
}

func bridged(t *testing.T, links ...Link) *world {
	w := newWorld(t, links...)
	w.settings.Bridge = management
	return w
}

func made(name string) Link {
	return Link{Name: name, Index: 50, MAC: "02:00:00:00:00:01", Kind: bridgeKind, Ours: true, Up: true, MTU: 1500}
}

func in(bridge string, l Link) Link { l.Master = bridge; return l }

func mtu(n int, l Link) Link { l.MTU = n; return l }

func tap(name, bridge string) Link {
	return Link{Name: name, Index: 60, Kind: "tuntap", Up: true, Master: bridge, MTU: 1500}
}

func withMAC(mac string, l Link) Link { l.MAC = mac; return l }

func TestPlanBridges(t *testing.T) {
	var b strings.Builder
	wired, private := Bridge{Name: "xenbr1", Uplink: "eth1", MTU: 1500}, Bridge{Name: "xapi0", MTU: 1500}
	eth1 := mtu(1500, nic("eth1"))
	ready := withMAC(eth1.MAC, made("xenbr1"))
	for _, c := range []struct {
		name string
		want []Bridge
		f    []Link
	}{
		{"private", []Bridge{private}, nil},
		{"over a NIC that is down", []Bridge{wired}, []Link{down(eth1)}},
		{"over a NIC that is not there", []Bridge{wired}, nil},
		{"all as wanted", []Bridge{wired}, []Link{ready, in("xenbr1", eth1), tap("cv1", "xenbr1")}},
		{"made, and the process died", []Bridge{wired}, []Link{{Name: "xenbr1", Kind: bridgeKind, MTU: 1500}, eth1}},
		{"another NIC", []Bridge{wired}, []Link{made("xenbr1"), in("xenbr1", nic("eth2")), eth1}},
		{"larger MTU", []Bridge{{Name: "xenbr1", Uplink: "eth1", MTU: 9000}}, []Link{ready, in("xenbr1", eth1)}},
		{"smaller MTU", []Bridge{wired}, []Link{mtu(9000, ready), in("xenbr1", mtu(9000, eth1))}},
		{"not wanted any more", nil, []Link{made("xapi0"), ready, in("xenbr1", eth1)}},
		{"not wanted, with a guest", nil, []Link{made("xapi0"), tap("cv1", "xapi0")}},
		{"of others", nil, []Link{{Name: "virbr0", Kind: bridgeKind, Up: true}}},
		{"of the management network, without its NIC", nil, []Link{made(management)}},
	} {
		fmt.Fprintf(&b, "%s\n", c.name)
		for _, s := range PlanBridges(c.want, management, Found{Links: c.f}) {
			fmt.Fprintf(&b, "    %s\n", s)
		}
	}
	golden.Equal(t, "testdata/bridges.golden", b.String())
}

// TestManagementBridge: the host's address is on the bridge from the first lease
// on, and stays there whatever happens to the cable or the process.
func TestManagementBridge(t *testing.T) {
	w := bridged(t, down(nic("eth0")), down(nic("eth1")))
	w.say("# boot")
	w.apply(dhcpMode)
	w.set("eth0", func(l *Link) { l.Carrier = true })
	w.lease(1, "10.0.0.5/24")
	w.settled()
	w.say("# the process starts again")
	w.again()
	w.apply(dhcpMode)
	w.lease(1, "10.0.0.5/24")
	w.settled()
	w.say("# the cable is pulled for a while and a guest is there")
	w.found.Links = append(w.found.Links, Link{Name: "cv1", Index: 90, Up: true, Carrier: true, Master: management})
	w.set("eth0", func(l *Link) { l.Carrier = false; w.carry() })
	w.wait(time.Second)
	w.set("eth0", func(l *Link) { l.Carrier = true; w.carry() })
	w.lease(1, "10.0.0.5/24")
	w.say("# the NIC goes, and another is plugged in")
	w.found.Links = slices.DeleteFunc(w.found.Links, func(l Link) bool { return l.Name == "eth0" })
	w.carry()
	w.wake()
	w.set("eth1", func(l *Link) { l.Carrier = true; w.carry() })
	w.wake()
	w.lease(3, "10.0.0.6/24")
	w.settled()
	golden.Equal(t, "testdata/management-bridge.golden", w.out.String())
	if w.open != 1 {
		t.Errorf("%d sockets open", w.open)
	}
}

// TestMoveToBridge kills the process before each step in turn while a host whose
// address is on its NIC gets its bridge; the next process finishes the move.
func TestMoveToBridge(t *testing.T) {
	var ends []string
	for kill := range 12 {
		w := bridged(t, nic("eth0", "10.0.0.2/24"))
		w.found.Routes = []Route{via("0.0.0.0/0", "10.0.0.1", "eth0")}
		w.left = kill
		func() {
			defer func() {
				if r := recover(); r != nil && r != (killed{}) {
					panic(r)
				}
			}()
			w.apply(staticMode)
		}()
		addressed := slices.ContainsFunc(w.found.Links, func(l Link) bool { return len(l.Addrs) > 0 })
		if !addressed || len(w.found.Routes) != 1 {
			t.Errorf("before step %d: no address or route", kill)
		}
		w.left = 0
		w.again()
		w.apply(staticMode)
		w.settled()
		if l := w.link(management); !slices.Equal(l.Addrs, []netip.Prefix{staticMode.Address}) || l.MAC != w.link("eth0").MAC {
			t.Errorf("before step %d: %+v", kill, l)
		}
		if l := w.link("eth0"); len(l.Addrs) > 0 || l.Master != management {
			t.Errorf("before step %d: %+v", kill, l)
		}
		ends = append(ends, fmt.Sprint(w.found.Routes))
	}
	if len(slices.Compact(ends)) != 1 {
		t.Errorf("the ends differ: %v", ends)
	}
}

// TestNoBridge: a kernel that makes no bridge does not cost the host its address.
func TestNoBridge(t *testing.T) {
	for _, op := range []Op{BridgeAdd, PortJoin} {
		w := bridged(t, nic("eth0"))
		w.fails = op
		w.apply(staticMode)
		if l := w.link("eth0"); !slices.Equal(l.Addrs, []netip.Prefix{staticMode.Address}) || w.core.status.Err != nil || w.core.status.Bridge != "" {
			t.Errorf("%s fails: %+v, %+v", op, l, w.core.status)
		}
		w.fails = ""
		w.wait(retryAfter)
		if l := w.link(management); !slices.Equal(l.Addrs, []netip.Prefix{staticMode.Address}) || w.core.status.Bridge != management {
			t.Errorf("%s works again: %+v", op, l)
		}
	}
}

// TestBridges asks for bridges that can be and for some that cannot.
func TestBridges(t *testing.T) {
	w := bridged(t, mtu(1500, nic("eth0")), mtu(1500, nic("eth1")))
	w.apply(staticMode)
	put := func(b Bridge) error {
		return w.core.serve(t.Context(), w.now, request{change: func(c *core, f Found) error { return c.putBridge(b, f) }})
	}
	remove := func(name string) error {
		return w.core.serve(t.Context(), w.now, request{change: func(c *core, f Found) error { return c.deleteBridge(name, f) }})
	}
	for _, c := range []struct {
		b    Bridge
		want error
	}{
		{Bridge{"xapi0", "", 9000}, nil},
		{Bridge{"xenbr1", "eth1", 1500}, nil},
		{Bridge{"xenbr1", "eth1", 1500}, nil},
		{Bridge{management, "eth0", 1500}, nil},
		{Bridge{"xenbr2", "eth9", 1500}, ErrNoUplink},
		{Bridge{"xenbr2", management, 1500}, ErrNoUplink},
		{Bridge{"xenbr2", "eth0", 1500}, ErrInUse},
		{Bridge{"xenbr2", "eth1", 1500}, ErrInUse},
		{Bridge{management, "eth1", 1500}, ErrInUse},
		{Bridge{"eth1", "", 1500}, ErrInUse},
	} {
		if err := put(c.b); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c.b, err)
		}
	}
	w.settled()
	w.found.Links = append(w.found.Links, tap("cv1", "xapi0"))
	w.again()
	w.apply(staticMode)
	var got []string
	for _, b := range w.core.bridgeStatus(w.found) {
		got = append(got, fmt.Sprintf("%s %q %d %v %v", b.Name, b.Uplink, b.MTU, b.Guests, b.Management))
	}
	want := []string{`xapi0 "" 9000 [cv1] false`, `xenbr0 "eth0" 1500 [] true`, `xenbr1 "eth1" 1500 [] false`}
	if !slices.Equal(got, want) {
		t.Errorf("bridges %q", got)
	}
	for name, want := range map[string]error{"xapi0": ErrInUse, management: ErrInUse, "xenbr1": nil, "xenbr9": nil} {
		if err := remove(name); !errors.Is(err, want) {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	if l := w.link("eth1"); slices.ContainsFunc(w.found.Links, func(l Link) bool { return l.Name == "xenbr1" }) || !l.Up {
		t.Errorf("after the removal: %+v", w.found.Links)
	}
}
