//go:build lab

package network

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"cairn/init/config"
)

// dropBridges removes what a test has made.
func dropBridges(t *testing.T, names ...string) {
	t.Cleanup(func() {
		for _, name := range names {
			if l, err := netlink.LinkByName(name); err == nil {
				must(t, netlink.LinkDel(l))
			}
		}
	})
}

// answers sends a datagram from the server's end to the host and back.
func (p *peer) answers(host string) {
	p.t.Helper()
	l, err := net.ListenPacket("udp4", host+":7777")
	must(p.t, err)
	defer l.Close()
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := l.ReadFrom(buf)
			if err != nil {
				return
			}
			l.WriteTo(buf[:n], from)
		}
	}()
	p.run(func() {
		c, err := net.Dial("udp4", host+":7777")
		must(p.t, err)
		defer c.Close()
		buf := make([]byte, 64)
		for end := time.Now().Add(wait); time.Now().Before(end); {
			must(p.t, c.SetDeadline(time.Now().Add(time.Second)))
			if _, err := c.Write([]byte("hello")); err != nil {
				continue // an ICMP error of before
			}
			if n, err := c.Read(buf); err == nil && n == 5 {
				return
			}
		}
		p.t.Error("the host does not answer")
	})
}

// TestBridgeSmoke moves a host's leased address from its NIC to a bridge, and back to
// a process that starts again.
func TestBridgeSmoke(t *testing.T) {
	p := newPeer(t)
	dropBridges(t, "xenbr0")
	p.serve(time.Minute)
	file := leaseFile(t)
	settings := Settings{Hostname: "cairn-1", Management: config.Management{Mode: config.ModeDHCP, Interface: hostIf}}
	h := newHost(t, file)
	h.m.Apply(settings)
	h.until("a lease", hasAddress("10.77.0.50/24"))
	p.answers("10.77.0.50")
	h.stop()

	settings.Bridge = "xenbr0"
	for range 2 {
		h = newHost(t, file)
		h.m.Apply(settings)
		s := h.until("the lease on the bridge", func(s Status) bool { return hasAddress("10.77.0.50/24")(s) && s.Bridge == "xenbr0" })
		if s.Link.Name != hostIf || s.Gateway.String() != "10.77.0.1" {
			t.Errorf("status %+v", s)
		}
		p.answers("10.77.0.50")
		f, err := h.kernel.Found()
		must(t, err)
		br, _ := f.link("xenbr0")
		nic, _ := f.link(hostIf)
		if len(nic.Addrs) != 0 || nic.Master != "xenbr0" || br.MAC != nic.MAC || !br.Ours || len(f.Routes) != 1 || f.Routes[0].Link != "xenbr0" {
			t.Errorf("%+v %+v %+v", br, nic, f.Routes)
		}
		h.stop()
		if f, err = h.kernel.Found(); err != nil || !slices.ContainsFunc(f.Links, func(l Link) bool { return l.Name == "xenbr0" && len(l.Addrs) == 1 }) {
			t.Errorf("after a stop: %+v %v", f, err)
		}
	}
}

// TestLabBridges asks for bridges with and without a NIC, and for their end.
func TestLabBridges(t *testing.T) {
	newPeer(t)
	dropBridges(t, "xenbr0", "xapi0", "xenbr1", "nic1")
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "nic1"}, PeerName: "wire1"}))
	file := leaseFile(t)
	settings := Settings{Hostname: "cairn-1", Bridge: "xenbr0", Management: config.Management{Mode: config.ModeStatic, Interface: hostIf, Address: pfx("10.77.0.9/24")}}
	h := newHost(t, file)
	h.m.Apply(settings)
	h.until("the address", hasAddress("10.77.0.9/24"))
	ctx := t.Context()
	for range 2 {
		must(t, h.m.PutBridge(ctx, Bridge{"xapi0", "", 9000}))
		must(t, h.m.PutBridge(ctx, Bridge{"xenbr1", "nic1", 4000}))
		must(t, h.m.PutBridge(ctx, Bridge{"xenbr0", hostIf, 1500}))
	}
	for _, b := range []Bridge{{"xapi1", "", 10}, {"", "", 0}} {
		if err := h.m.PutBridge(ctx, b); err == nil {
			t.Errorf("%+v is fine", b)
		}
	}
	all, err := h.m.Bridges(ctx)
	must(t, err)
	if len(all) != 3 || all[0].MTU != 9000 || all[2].MTU != 4000 || all[2].Uplink != "nic1" || !all[1].Management {
		t.Errorf("bridges %+v", all)
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/xapi0/disable_ipv6"); err == nil && strings.TrimSpace(string(b)) != "1" {
		t.Error("the host has IPv6 on a private bridge")
	}
	h.stop()
	h = newHost(t, file) // knows them still
	h.m.Apply(settings)
	h.until("the address", hasAddress("10.77.0.9/24"))
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "tap1", MasterIndex: index(t, "xapi0")}, PeerName: "guest1"}))
	if err := h.m.DeleteBridge(ctx, "xapi0"); !errors.Is(err, ErrInUse) {
		t.Errorf("with a guest in it: %v", err)
	}
	if err := h.m.DeleteBridge(ctx, "xenbr0"); !errors.Is(err, ErrInUse) {
		t.Errorf("the management network's: %v", err)
	}
	for _, name := range []string{"tap1", "nic1"} { // a cable's end counts as a guest
		l, err := netlink.LinkByName(name)
		must(t, err)
		must(t, netlink.LinkDel(l))
	}
	for _, name := range []string{"xapi0", "xapi0", "xenbr1"} {
		must(t, h.m.DeleteBridge(ctx, name))
	}
	if all, err = h.m.Bridges(ctx); err != nil || len(all) != 1 {
		t.Errorf("bridges %+v %v", all, err)
	}
}

func index(t *testing.T, name string) int {
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l.Attrs().Index
}
