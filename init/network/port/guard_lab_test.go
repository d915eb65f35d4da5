//go:build lab

package port

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMain runs the tests in a network namespace of their own.
func TestMain(m *testing.M) {
	const inside = "CAIRN_PORT_LAB"
	if os.Getenv(inside) != "" {
		runtime.LockOSThread()
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
	if cmd.Run() != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

const (
	bridge    = "br0"
	guestPort = "cv0123456789ab"
	limit     = 10 * time.Second
)

// bench is a bridge with a guest and a peer; cables stand for the guests.
type bench struct {
	t                 *testing.T
	guard             *Guard
	guest, peer, host *packet.Conn
	hostMAC           net.HardwareAddr
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newBench(t *testing.T) *bench {
	// Nothing but the test talks here.
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0))
	quiet := false
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}, MulticastSnooping: &quiet}
	must(t, netlink.LinkAdd(br))
	for _, c := range []struct{ port, end string }{{guestPort, "guest"}, {"cvpeer", "peer"}} {
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: c.port, MasterIndex: br.Index}, PeerName: c.end}))
		for _, name := range []string{c.port, c.end} {
			l, err := netlink.LinkByName(name)
			must(t, err)
			must(t, netlink.LinkSetUp(l))
		}
	}
	must(t, netlink.LinkSetUp(br))
	b := &bench{t: t, guard: NewGuard()}
	b.guest, b.peer, b.host = b.listen("guest"), b.listen("peer"), b.listen(bridge)
	ifi, err := net.InterfaceByName(bridge)
	must(t, err)
	b.hostMAC = ifi.HardwareAddr
	t.Cleanup(b.remove)
	return b
}

func (b *bench) listen(name string) *packet.Conn {
	ifi, err := net.InterfaceByName(name)
	must(b.t, err)
	c, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
	must(b.t, err)
	must(b.t, c.SetPromiscuous(true))
	b.t.Cleanup(func() { c.Close() })
	return c
}

func (b *bench) remove() {
	for _, name := range []string{"guest", "peer", bridge} {
		l, err := netlink.LinkByName(name)
		must(b.t, err)
		must(b.t, netlink.LinkDel(l))
	}
}

func (b *bench) put(p Port) {
	b.t.Helper()
	p.Interface, p.MAC = guestPort, guestMAC
	must(b.t, b.guard.Put(p))
}

func send(t *testing.T, c *packet.Conn, frame []byte) {
	t.Helper()
	_, err := c.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	must(t, err)
}

// hears waits for a frame and counts those before it.
func hears(t *testing.T, c *packet.Conn, frame []byte) (before int, ok bool) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(limit)))
	buf := make([]byte, 2048)
	for ; ; before++ {
		n, _, err := c.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return before, false
		}
		must(t, err)
		if bytes.Equal(buf[:n], frame) {
			return before, true
		}
	}
}

func (b *bench) dropped() uint64 {
	b.t.Helper()
	d, err := b.guard.Dropped()
	must(b.t, err)
	return d[guestPort]
}

// counted waits until a drop was counted: the kernel forwards when it gets to it.
func (b *bench) counted(before uint64) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); runtime.Gosched() {
		if b.dropped() > before {
			return true
		}
	}
	return false
}

// passes says whether all of the frames arrive, and in this order.
func (b *bench) passes(name string, frames []sample) {
	b.t.Helper()
	for _, s := range frames {
		before := b.dropped()
		send(b.t, b.guest, s.frame)
		if n, ok := hears(b.t, b.peer, s.frame); !ok || n > 0 {
			b.t.Errorf("%s: %s: arrived %v after %d others", name, s.name, ok, n)
		}
		if n := b.dropped(); n != before {
			b.t.Errorf("%s: %s: counted as dropped", name, s.name)
		}
	}
}

// refuses says whether each frame is dropped and counted. That none arrived shows
// when the next honest one is heard first.
func (b *bench) refuses(name string, frames []sample) {
	b.t.Helper()
	for _, s := range frames {
		before := b.dropped()
		send(b.t, b.guest, s.frame)
		if !b.counted(before) {
			b.t.Errorf("%s: %s: not counted", name, s.name)
		}
	}
}

var locked = Port{Mode: Locked, IPv4: addrs(own4.String()), IPv6: addrs(own6.String(), "fe80::10")}

// TestSpoofSmoke sends what an honest guest sends, and what a dishonest one does.
func TestSpoofSmoke(t *testing.T) {
	b := newBench(t)
	b.put(locked)
	b.passes("locked", honest)
	b.refuses("locked", dishonest)
	b.refuses("locked", broken)
	b.passes("after the dishonest ones", honest[:1])

	for _, s := range []sample{honest[3], dishonest[0]} { // to the host itself
		s.frame = slices.Concat(b.hostMAC, s.frame[6:])
		send(t, b.guest, s.frame)
	}
	toHost := slices.Concat(b.hostMAC, honest[4].frame[6:])
	send(t, b.guest, toHost)
	if n, ok := hears(t, b.host, toHost); !ok || n < 1 {
		t.Errorf("the host heard %v after %d frames", ok, n)
	}
	if d := b.dropped(); d != uint64(len(dishonest)+len(broken))+1 {
		t.Errorf("%d dropped of %d", d, len(dishonest)+len(broken)+1)
	}
	reserved := []sample{{"spanning tree", slices.Concat([]byte{1, 0x80, 0xc2, 0, 0, 0}, foreignMAC, []byte{0x88, 0xb5}, make([]byte, 46))},
		{"802.1X", slices.Concat([]byte{1, 0x80, 0xc2, 0, 0, 3}, guestMAC, []byte{0x88, 0x8e}, make([]byte, 46))}}
	b.refuses("locked", reserved)

	b.put(Port{Mode: Unlocked})
	b.passes("unlocked", honest)
	b.passes("unlocked", dishonest)

	before := b.dropped()
	b.put(Port{Mode: Disabled})
	b.refuses("disabled", honest)
	b.refuses("disabled", dishonest)
	toGuest := ether(peerMAC, 0x0800, ip4(foreign4, own4, 17, hello))
	copy(toGuest, guestMAC)
	send(t, b.peer, toGuest)
	if !b.counted(before + uint64(len(honest)+len(dishonest))) {
		t.Error("a frame to a disabled guest is not counted")
	}

	b.put(Port{Mode: Locked})
	b.refuses("without addresses", []sample{honest[0], honest[3], honest[6]})
	b.passes("without addresses", []sample{{"DHCP", dhcp}})

	b.put(locked)
	send(t, b.peer, toGuest)
	if n, ok := hears(t, b.guest, toGuest); !ok {
		t.Errorf("an enabled guest hears nothing after %d frames", n)
	}
}

// TestNothingLeft puts, changes and removes ports, also by a process that begins
// with what another has left.
func TestNothingLeft(t *testing.T) {
	g := NewGuard()
	must(t, g.Delete("cvnever"))
	_, err := g.Contents()
	must(t, err)
	if d, err := g.Dropped(); err != nil || len(d) > 1 {
		t.Fatalf("%v %v", d, err)
	}
	for _, mode := range []Mode{Disabled, Locked, Unlocked, Disabled} {
		for range 2 {
			must(t, g.Put(Port{Interface: "cva", MAC: guestMAC, Mode: mode, IPv4: addrs("192.0.2.1", "192.0.2.2"), Rate: 1 << 20}))
		}
	}
	must(t, g.Put(Port{Interface: "cvb", MAC: guestMAC, Mode: Locked}))
	next := NewGuard()
	must(t, next.Restore([]Port{{Interface: "cvb", MAC: guestMAC, Mode: Locked}, {Interface: "cvc", MAC: guestMAC, Mode: Disabled}}))
	have, err := next.maps()
	must(t, err)
	if !slices.Equal(sorted(have.chains), []string{"cvb", "cvc"}) || !slices.Equal(sorted(have.from), []string{"cvb", "cvc"}) || !slices.Equal(sorted(have.to), []string{"cvc"}) {
		t.Errorf("%v", have)
	}
	for _, name := range []string{"cvb", "cvc", "cvc"} {
		must(t, next.Delete(name))
	}
	must(t, next.Restore([]Port{{Interface: "cvb", MAC: guestMAC, Mode: Locked, IPv4: addrs("192.0.2.1", "192.0.2.2")}}))
	held, err := next.Contents()
	must(t, err)
	if all := strings.Join(held, ", "); !strings.HasPrefix(all, "chain cvb, counter cvb, map from cvb, set ") {
		t.Errorf("the table holds %s", all)
	}
	must(t, next.Restore(nil))
	if held, err := next.Contents(); err != nil || len(held) > 0 {
		t.Errorf("the table holds %v, %v", held, err)
	}
	have, err = next.maps()
	must(t, err)
	d, err := next.Dropped()
	must(t, err)
	if len(have.chains)+len(have.from)+len(have.to)+len(d) != 0 {
		t.Errorf("left behind: %v %v", have, d)
	}
}

func sorted(m map[string]bool) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// TestRate floods a limited port and counts what arrives.
func TestRate(t *testing.T) {
	b := newBench(t)
	const rate, size, count = 100 << 10, 1400, 1000
	b.put(Port{Mode: Unlocked, Rate: rate})
	frame := func(n int) []byte {
		payload := make([]byte, size-42)
		binary.BigEndian.PutUint32(payload, uint32(n))
		return ether(guestMAC, 0x0800, ip4(own4, foreign4, 17, udp(1, 2, payload)))
	}
	begin := time.Now()
	for n := range count {
		send(t, b.guest, frame(n))
	}
	// The limit forgives with time: one of these passes.
	end := frame(count)
	heard := make(chan int)
	go func() {
		n, _ := hears(t, b.peer, end)
		heard <- n
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case n := <-heard:
			took := time.Since(begin)
			most := (minBurst + int(took.Seconds()*rate)) / size
			if n < minBurst/size-2 || n > most+2 {
				t.Errorf("%d frames of %d arrived in %v; the limit is %d", n, count, took, most)
			}
			t.Logf("%d of %d frames in %v", n, count, took)
			if d := b.dropped(); d != 0 {
				t.Errorf("%d counted as the guest's fault", d)
			}
			return
		case <-tick.C:
			send(t, b.guest, end)
		}
	}
}

// TestCut takes away an interface that a process holds open, as QEMU does, and no other.
func TestCut(t *testing.T) {
	g := NewGuard()
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "cvtap"}, Mode: netlink.TUNTAP_MODE_TAP, Queues: 1, NonPersist: true, Flags: netlink.TUNTAP_NO_PI}
	must(t, netlink.LinkAdd(tap))
	defer tap.Fds[0].Close()
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cvveth"}, PeerName: "cvend"}))
	for _, name := range []string{"cvtap", "cvtap", "cvveth"} {
		must(t, g.Cut(name))
	}
	if _, err := net.InterfaceByName("cvtap"); err == nil {
		t.Error("the interface is there")
	}
	veth, err := netlink.LinkByName("cvveth")
	must(t, err)
	must(t, netlink.LinkDel(veth))
}
