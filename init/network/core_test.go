package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/golden"
	"cairn/init/config"
	"cairn/init/network/dhcp"
	"cairn/journal"
)

// world is a kernel, a DHCP server and a clock, and writes down what happens.
type world struct {
	t       *testing.T
	core    *core
	found   Found
	now     time.Time
	start   time.Time
	out     strings.Builder
	broken  bool // steps fail
	replies chan dhcp.Reply
	saved   map[string]dhcp.Lease
	open    int

	settings Settings
	bridges  []Bridge // as saved
	fails    Op       // steps of this kind fail
	left     int      // steps until the process dies, when positive
}

type fixed struct{ n uint32 }

func (f *fixed) Uint32() uint32   { f.n++; return f.n }
func (f *fixed) Float64() float64 { return 0.5 }

func newWorld(t *testing.T, links ...Link) *world {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &world{t: t, start: start, now: start, saved: map[string]dhcp.Lease{}, replies: make(chan dhcp.Reply, 1)}
	w.found.Links = append([]Link{{Name: loopback, Index: 1, Up: true, Carrier: true}}, links...)
	w.core = newCore(w, w.dial, w, &fixed{}, journal.New(logWriter{w}, "hostd"))
	return w
}

// logWriter keeps a line without its time, which is the machine's.
type logWriter struct{ w *world }

func (l logWriter) Write(b []byte) (int, error) {
	_, line, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	l.w.note("log  %s", line)
	return len(b), nil
}

func (w *world) note(format string, args ...any) {
	fmt.Fprintf(&w.out, "%8s  %s\n", w.now.Sub(w.start), fmt.Sprintf(format, args...))
}

func (w *world) Found() (Found, error) {
	f := Found{Links: slices.Clone(w.found.Links), Routes: slices.Clone(w.found.Routes)}
	for i, l := range f.Links {
		f.Links[i].Addrs = slices.Clone(l.Addrs)
	}
	return f, nil
}

func (w *world) Watch(context.Context, chan<- struct{}) error { return errors.ErrUnsupported }

// Do does to the fake what the kernel would.
func (w *world) Do(s Step) error {
	if w.left--; w.left == 0 {
		panic(killed{})
	}
	if w.broken || s.Op == w.fails {
		return errors.New(s.String() + ": network is unreachable")
	}
	w.note("step %s", s)
	if s.Op == BridgeAdd {
		w.addBridge(s)
		return nil
	}
	l := w.link(s.Link)
	switch s.Op {
	case BridgeDel:
		w.found.Links = slices.DeleteFunc(w.found.Links, func(l Link) bool { return l.Name == s.Link })
	case PortJoin:
		l.Master = s.Bridge
	case PortLeave:
		l.Master = ""
	case MACSet:
		l.MAC = s.MAC
	case MTUSet:
		l.MTU = s.MTU
	case LinkUp:
		l.Up = true
	case AddrAdd:
		l.Addrs = append(l.Addrs, s.Addr)
	case AddrDel:
		l.Addrs = slices.DeleteFunc(l.Addrs, func(a netip.Prefix) bool { return a == s.Addr })
		w.found.Routes = slices.DeleteFunc(w.found.Routes, func(r Route) bool { return r.Link == s.Link && s.Addr.Contains(r.Via) })
	case RouteSet:
		w.found.Routes = slices.DeleteFunc(w.found.Routes, func(r Route) bool { return r.To == s.Route.To })
		w.found.Routes = append(w.found.Routes, s.Route)
	case RouteDel:
		w.found.Routes = slices.DeleteFunc(w.found.Routes, func(r Route) bool { return r == s.Route })
	}
	w.carry()
	return nil
}

func (w *world) link(name string) *Link {
	for i := range w.found.Links {
		if w.found.Links[i].Name == name {
			return &w.found.Links[i]
		}
	}
	w.t.Fatalf("no link %s", name)
	return nil
}

func (w *world) dial(iface string, id dhcp.Identity) (Transport, error) {
	w.note("dhcp open on %s as %s", iface, id.Hostname)
	w.open++
	return w, nil
}

func (w *world) Send(_ context.Context, q dhcp.Query) error {
	to := "broadcast"
	if q.To.IsValid() {
		to = q.To.String()
	}
	w.note("dhcp send %s to %s", q.Type, to)
	return nil
}

func (w *world) Replies() <-chan dhcp.Reply { return w.replies }

func (w *world) Close() error {
	w.open--
	w.note("dhcp close")
	return nil
}

func (w *world) Load(mac string) (dhcp.Lease, bool)  { l, ok := w.saved[mac]; return l, ok }
func (w *world) Save(mac string, l dhcp.Lease) error { w.saved[mac] = l; return nil }
func (w *world) Drop(mac string) error               { delete(w.saved, mac); return nil }
func (w *world) Bridges() []Bridge                   { return w.bridges }
func (w *world) SaveBridges(all []Bridge) error      { w.bridges = all; return nil }
func (w *world) apply(m config.Management) {
	w.settings.Hostname, w.settings.Management = "cairn-1", m
	w.core.apply(w.t.Context(), w.now, w.settings)
}
func (w *world) wake()                                 { w.core.reconcile(w.t.Context(), w.now) }
func (w *world) say(what string)                       { w.out.WriteString(what + "\n") }
func (w *world) set(name string, change func(l *Link)) { change(w.link(name)); w.wake() }
func (w *world) reply(kind dhcp.Type, xid uint32, a string) {
	p := pfx(a)
	router := p.Masked().Addr().Next()
	w.core.receive(w.t.Context(), w.now, dhcp.Reply{
		Type: kind, XID: xid, Address: p, Server: router, Duration: time.Hour,
		Routes: []dhcp.Route{{To: defaultRoute, Via: router}}, DNS: []netip.Addr{router}, Domain: "lab.example",
	})
}

// wait lets time pass, waking the core when it asked for it.
func (w *world) wait(d time.Duration) {
	end := w.now.Add(d)
	for !w.core.next.IsZero() && !w.core.next.After(end) {
		w.now = w.core.next
		w.wake()
	}
	w.now = end
}

// settled fails if the core would do something although nothing has changed.
func (w *world) settled() {
	w.t.Helper()
	before := w.out.Len()
	w.wake()
	if w.out.Len() != before {
		w.t.Errorf("not settled: %s", w.out.String()[before:])
	}
}

func (w *world) lease(xid uint32, a string) {
	w.reply(dhcp.Offer, xid, a)
	w.reply(dhcp.Ack, xid, a)
}

var dhcpMode = config.Management{Mode: config.ModeDHCP}

func TestDHCPLife(t *testing.T) {
	w := newWorld(t, down(nic("eth0")))
	w.say("# boot")
	w.wake() // before there are settings nothing is touched
	w.apply(dhcpMode)
	w.set("eth0", func(l *Link) { l.Carrier = true })
	w.lease(1, "10.0.0.5/24")
	w.settled()
	w.say("# the cable is pulled for a minute")
	w.set("eth0", func(l *Link) { l.Carrier = false })
	w.wait(time.Minute)
	w.set("eth0", func(l *Link) { l.Carrier = true })
	w.reply(dhcp.Ack, 2, "10.0.0.5/24")
	w.say("# somebody removes the address")
	w.set("eth0", func(l *Link) { l.Addrs = nil })
	w.say("# the server falls silent until the lease ends")
	w.wait(time.Hour)
	w.settled()
	golden.Equal(t, "testdata/dhcp-life.golden", w.out.String())
	if s := w.core.status; s.Address.IsValid() || s.LeaseState != dhcp.Selecting {
		t.Errorf("status %+v", s)
	}
}

func TestStatic(t *testing.T) {
	w := newWorld(t, nic("eth0"), down(nic("eth1")))
	static := config.Management{
		Mode: config.ModeStatic, Interface: "eth1", Address: pfx("192.168.7.2/24"),
		Gateway: netip.MustParseAddr("192.168.7.1"), DNS: []netip.Addr{netip.MustParseAddr("192.168.7.1")},
	}
	w.say("# static on a named interface, without a link")
	w.apply(static)
	w.settled()
	w.say("# the same address on the other one")
	static.Interface = nic("eth0").MAC
	w.apply(static)
	w.settled()
	w.say("# to DHCP")
	w.apply(dhcpMode)
	w.lease(1, "10.0.0.5/24")
	w.settled()
	w.say("# and back")
	w.apply(static)
	w.settled()
	if w.open != 0 {
		t.Errorf("%d sockets are open", w.open)
	}
	golden.Equal(t, "testdata/static.golden", w.out.String())
}

func TestRestart(t *testing.T) {
	w := newWorld(t, nic("eth0"))
	w.apply(dhcpMode)
	w.lease(1, "10.0.0.5/24")
	w.say("# hostd starts again: the address must not go away")
	w.now = w.now.Add(time.Minute)
	w.core = newCore(w, w.dial, w, &fixed{n: 10}, w.core.log)
	w.wake()
	w.apply(dhcpMode)
	w.settled()
	w.reply(dhcp.Ack, 11, "10.0.0.5/24")
	w.settled()
	golden.Equal(t, "testdata/restart.golden", w.out.String())
}

func TestInterfaces(t *testing.T) {
	w := newWorld(t)
	w.say("# no interface yet")
	w.apply(dhcpMode)
	w.say("# the second NIC is found first")
	w.found.Links = append(w.found.Links, nic("eth1"))
	w.wake()
	w.say("# it goes, and the first one comes without a link")
	w.found.Links = w.found.Links[:1]
	w.wake()
	w.found.Links = append(w.found.Links, down(nic("eth0")), nic("eth1"))
	w.wake()
	w.wait(10 * time.Second)
	w.say("# a reply of the old search is for nobody")
	w.lease(1, "10.0.0.5/24")
	w.lease(2, "10.0.0.6/24")
	w.settled()
	golden.Equal(t, "testdata/interfaces.golden", w.out.String())
}

func TestFailedStepsAreRetried(t *testing.T) {
	w := newWorld(t, nic("eth0"))
	w.broken = true
	w.apply(config.Management{Mode: config.ModeStatic, Address: pfx("10.0.0.2/24")})
	if w.core.status.Err == nil {
		t.Error("the status hides the failure")
	}
	w.wait(retryAfter)
	w.broken = false
	w.wait(retryAfter)
	w.settled()
	golden.Equal(t, "testdata/failed-steps.golden", w.out.String())
	if w.core.status.Err != nil {
		t.Errorf("the status still says %v", w.core.status.Err)
	}
}

func TestSocketThatDoesNotOpen(t *testing.T) {
	w := newWorld(t, nic("eth0"))
	tries := 0
	w.core.dial = func(string, dhcp.Identity) (Transport, error) {
		if tries++; tries < 3 {
			return nil, errors.New("dhcp on eth0: no such device")
		}
		return w, nil
	}
	w.apply(dhcpMode)
	w.wait(2 * retryAfter)
	if w.core.machine == nil || tries != 3 {
		t.Errorf("after %d tries there is no lease machine", tries)
	}
}

func TestLeaseFile(t *testing.T) {
	up := 100 * time.Second
	f := LeaseFile{Path: t.TempDir() + "/run/lease.json", Uptime: func() time.Duration { return up }}
	if _, ok := f.Load("m"); ok {
		t.Error("there is a lease without a file")
	}
	l := dhcp.Lease{Address: pfx("10.0.0.5/24"), Server: netip.MustParseAddr("10.0.0.1"), Expires: time.Now().Add(time.Hour)}
	if err := f.Save("m", l); err != nil {
		t.Fatal(err)
	}
	up += 30 * time.Minute
	got, ok := f.Load("m")
	if left := time.Until(got.Expires); !ok || got.Address != l.Address || left > 31*time.Minute || left < 29*time.Minute {
		t.Errorf("got %+v %v, %s left", got, ok, left)
	}
	if _, ok := f.Load("other"); ok {
		t.Error("the lease of another NIC was taken")
	}
	if err := errors.Join(f.Drop("m"), f.Drop("m")); err != nil {
		t.Error(err)
	}
}

func TestPrefix(t *testing.T) {
	p := pfx("10.0.0.2/24")
	if got, ok := prefix(ipNet(p)); !ok || got != p {
		t.Errorf("got %v %v", got, ok)
	}
	if _, ok := prefix(&net.IPNet{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)}); ok {
		t.Error("an IPv6 network was taken")
	}
}
