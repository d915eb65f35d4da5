//go:build lab

package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn/init/config"
	"cairn/init/network/dhcp"
	"cairn/journal"
)

// TestMain runs the tests in a network namespace of their own, where they are
// root: the machine's network is never touched.
func TestMain(m *testing.M) {
	const inside = "CAIRN_NETWORK_LAB"
	if os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	if err := cmd.Run(); err != nil {
		os.Stderr.WriteString("network lab: " + err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(0)
}

const (
	hostIf   = "mgmt0"
	serverIf = "srv0"
	wait     = 30 * time.Second
)

// peer is the other end of the cable, in a namespace of its own.
type peer struct {
	t       *testing.T
	do      chan func()
	unicast chan netip.Addr // senders of unicast requests
}

// newPeer lays the cable and starts the server's thread.
func newPeer(t *testing.T) *peer {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: hostIf}, PeerName: serverIf}))
	t.Cleanup(func() {
		if l, err := netlink.LinkByName(hostIf); err == nil {
			must(t, netlink.LinkDel(l))
		}
	})
	p := &peer{t: t, do: make(chan func()), unicast: make(chan netip.Addr, 16)}
	ns := make(chan int)
	go p.thread(ns)
	fd := <-ns
	srv, err := netlink.LinkByName(serverIf)
	must(t, err)
	must(t, netlink.LinkSetNsFd(srv, fd))
	must(t, unix.Close(fd))
	p.run(func() {
		l, err := netlink.LinkByName(serverIf)
		must(t, err)
		must(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(pfx("10.77.0.1/24"))}))
		must(t, netlink.LinkSetUp(l))
	})
	t.Cleanup(func() { close(p.do) })
	return p
}

// thread is the one OS thread that lives in the peer's namespace; it dies with
// its goroutine, and the namespace with it.
func (p *peer) thread(ns chan<- int) {
	runtime.LockOSThread()
	must(p.t, unix.Unshare(unix.CLONE_NEWNET))
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(p.t, err)
	ns <- fd
	for f := range p.do {
		f()
	}
}

func (p *peer) run(f func()) {
	done := make(chan struct{})
	p.do <- func() { defer close(done); f() }
	<-done
}

// serve starts a DHCP server that leases 10.77.0.50.
func (p *peer) serve(lease time.Duration) {
	var s *server4.Server
	p.run(func() {
		var err error
		s, err = server4.NewServer(serverIf, &net.UDPAddr{Port: 67}, func(conn net.PacketConn, from net.Addr, m *dhcpv4.DHCPv4) {
			p.answer(conn, from, m, lease)
		})
		must(p.t, err)
	})
	go s.Serve()
	p.t.Cleanup(func() { s.Close() })
}

func (p *peer) answer(conn net.PacketConn, from net.Addr, m *dhcpv4.DHCPv4, lease time.Duration) {
	kind := map[dhcpv4.MessageType]dhcpv4.MessageType{dhcpv4.MessageTypeDiscover: dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeRequest: dhcpv4.MessageTypeAck}[m.MessageType()]
	server := net.IPv4(10, 77, 0, 1)
	resp, err := dhcpv4.NewReplyFromRequest(m,
		dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(10, 77, 0, 50)), dhcpv4.WithServerIP(server),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithRouter(server), dhcpv4.WithDNS(server), dhcpv4.WithLeaseTime(uint32(lease/time.Second)))
	if err != nil {
		return
	}
	to := &net.UDPAddr{IP: net.IPv4bcast, Port: 68}
	if !m.ClientIPAddr.IsUnspecified() {
		to = from.(*net.UDPAddr) // a renewal is answered where it came from
		if a, ok := netip.AddrFromSlice(to.IP.To4()); ok && m.ServerIdentifier() == nil {
			p.unicast <- a
		}
	}
	conn.WriteTo(resp.ToBytes(), to)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
}

// host is a manager at work.
type host struct {
	t       *testing.T
	m       *Manager
	status  chan Status
	kernel  *Netlink
	leases  LeaseFile
	stopped chan struct{}
	cancel  context.CancelFunc
}

func newHost(t *testing.T, leases LeaseFile) *host {
	k, err := NewNetlink("/sys")
	must(t, err)
	h := &host{t: t, status: make(chan Status, 1024), kernel: k, leases: leases, stopped: make(chan struct{})}
	h.m = New(k, leases, journal.New(t.Output(), "hostd"), func(s Status) { h.status <- s })
	ctx, cancel := context.WithCancel(t.Context())
	h.cancel = cancel
	go func() { defer close(h.stopped); h.m.Run(ctx) }()
	t.Cleanup(h.stop)
	return h
}

func (h *host) stop() {
	h.cancel()
	<-h.stopped
}

// until waits for a status.
func (h *host) until(what string, ok func(Status) bool) Status {
	h.t.Helper()
	deadline := time.After(wait)
	for {
		select {
		case s := <-h.status:
			if ok(s) {
				return s
			}
		case <-deadline:
			h.t.Fatalf("no status with %s; the last is %+v", what, h.m.Status())
		}
	}
}

// untilKernel waits for a state of the kernel.
func (h *host) untilKernel(ok func(Found) bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), wait)
	defer cancel()
	wake := make(chan struct{}, 1)
	go h.kernel.Watch(ctx, wake)
	for {
		select {
		case <-wake:
			f, err := h.kernel.Found()
			must(h.t, err)
			if ok(f) {
				return
			}
		case <-ctx.Done():
			h.t.Fatal("the kernel did not get there")
		}
	}
}

func (h *host) addrs() []netip.Prefix {
	f, err := h.kernel.Found()
	must(h.t, err)
	l, _ := f.link(hostIf)
	return l.Addrs
}

func hasAddress(a string) func(Status) bool {
	return func(s Status) bool { return s.Address.IsValid() && s.Address.String() == a && s.Err == nil }
}

func leaseFile(t *testing.T) LeaseFile {
	dir := t.TempDir()
	return LeaseFile{Path: dir + "/lease", BridgePath: dir + "/bridges", Uptime: Uptime}
}

// TestNetSmoke takes a lease, renews it, and survives a restart of hostd.
func TestNetSmoke(t *testing.T) {
	p := newPeer(t)
	p.serve(10 * time.Second)
	file := leaseFile(t)
	h := newHost(t, file)
	h.m.Apply(Settings{Hostname: "cairn-1", Management: config.Management{Mode: config.ModeDHCP, Interface: hostIf}})
	s := h.until("a lease", hasAddress("10.77.0.50/24"))
	if s.Gateway.String() != "10.77.0.1" || s.LeaseState != dhcp.Bound {
		t.Errorf("status %+v", s)
	}
	f, err := h.kernel.Found()
	must(t, err)
	if len(f.Routes) != 1 || f.Routes[0] != via("0.0.0.0/0", "10.77.0.1", hostIf) {
		t.Errorf("routes %v", f.Routes)
	}
	select { // T1 is half of ten seconds
	case from := <-p.unicast:
		if from.String() != "10.77.0.50" {
			t.Errorf("renewal came from %s", from)
		}
	case <-time.After(wait):
		t.Fatal("no unicast renewal")
	}
	first := s.Expires
	h.until("a later expiry", func(s Status) bool { return s.Expires.After(first) })
	h.stop()
	if got := h.addrs(); len(got) != 1 {
		t.Errorf("after a stop the addresses are %v", got)
	}
	again := newHost(t, file)
	again.m.Apply(Settings{Hostname: "cairn-1", Management: config.Management{Mode: config.ModeDHCP, Interface: hostIf}})
	again.until("the lease taken over", hasAddress("10.77.0.50/24"))
}

func TestLabExpiry(t *testing.T) {
	p := newPeer(t)
	p.serve(10 * time.Second)
	h := newHost(t, leaseFile(t))
	h.m.Apply(Settings{Hostname: "cairn-1", Management: config.Management{Mode: config.ModeDHCP, Interface: hostIf}})
	h.until("a lease", hasAddress("10.77.0.50/24"))
	// The server's end of the cable is cut off from its server, not unplugged.
	p.run(func() {
		l, err := netlink.LinkByName(serverIf)
		must(t, err)
		must(t, netlink.LinkSetMTU(l, 68)) // too small for any message
	})
	h.until("no address", func(s Status) bool { return !s.Address.IsValid() })
	if got := h.addrs(); len(got) != 0 {
		t.Errorf("the expired address is still there: %v", got)
	}
}

func TestLabStatic(t *testing.T) {
	newPeer(t)
	h := newHost(t, leaseFile(t))
	l, err := netlink.LinkByName(hostIf)
	must(t, err)
	static := config.Management{
		Mode: config.ModeStatic, Interface: l.Attrs().HardwareAddr.String(),
		Address: pfx("10.77.0.9/24"), Gateway: netip.MustParseAddr("10.77.0.1"),
	}
	h.m.Apply(Settings{Hostname: "cairn-1", Management: static})
	h.until("the address", hasAddress("10.77.0.9/24"))
	// Somebody's mistake is put right, without being asked.
	must(t, netlink.AddrDel(l, &netlink.Addr{IPNet: ipNet(pfx("10.77.0.9/24"))}))
	h.untilKernel(func(f Found) bool {
		l, _ := f.link(hostIf)
		return len(l.Addrs) == 1 && len(f.Routes) == 1
	})
	static.Address = pfx("10.77.0.10/24")
	h.m.Apply(Settings{Hostname: "cairn-1", Management: static})
	h.until("the new address", hasAddress("10.77.0.10/24"))
	if got := h.addrs(); len(got) != 1 || got[0] != static.Address {
		t.Errorf("addresses %v", got)
	}
	f, err := h.kernel.Found()
	must(t, err)
	if len(f.Routes) != 1 {
		t.Errorf("routes %v", f.Routes)
	}
}
