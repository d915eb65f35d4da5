package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	clientPort = 68
	serverPort = 67
	// maxPacket is the largest message accepted: what fits an Ethernet frame.
	maxPacket = 1500
)

// Conn sends queries and receives replies on one interface, which needs no
// address for that. Replies that make no sense are dropped and logged.
type Conn struct {
	iface   string
	id      Identity
	raw     net.PacketConn
	replies chan Reply
	log     *slog.Logger
	done    chan struct{}
	closing atomic.Bool // a read that fails now is no news

	mu      sync.Mutex
	unicast *net.UDPConn // open while an address is held
}

// Listen opens a Conn.
func Listen(iface string, id Identity, log *slog.Logger) (*Conn, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("dhcp on %s: %w", iface, err)
	}
	filter, err := bpf.Assemble(toClient)
	if err != nil {
		return nil, fmt.Errorf("dhcp on %s: filter: %w", iface, err)
	}
	raw, err := packet.Listen(ifi, packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("dhcp on %s: %w", iface, err)
	}
	c := &Conn{
		iface: iface, id: id, log: log,
		raw:     nclient4.NewBroadcastUDPConn(raw, &net.UDPAddr{Port: clientPort}),
		replies: make(chan Reply, 8),
		done:    make(chan struct{}),
	}
	go c.receive()
	return c, nil
}

// toClient keeps the kernel from copying anything but unfragmented UDP to the
// client's port: guests' traffic may pass the same interface. The packet starts
// at its IP header.
var toClient = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 9, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
	bpf.LoadAbsolute{Off: 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
	bpf.LoadMemShift{Off: 0},
	bpf.LoadIndirect{Off: 2, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: clientPort, SkipTrue: 1},
	bpf.RetConstant{Val: 0xffff},
	bpf.RetConstant{Val: 0},
}

// Replies delivers what servers say; it is never closed.
func (c *Conn) Replies() <-chan Reply { return c.replies }

// Close ends the receiver and frees the sockets.
func (c *Conn) Close() error {
	c.closing.Store(true)
	err := c.raw.Close()
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(err, c.closeUnicast())
}

func (c *Conn) receive() {
	defer close(c.done)
	buf := make([]byte, maxPacket)
	for {
		n, _, err := c.raw.ReadFrom(buf)
		if errors.Is(err, unix.ENETDOWN) {
			continue // said once each time the interface goes down
		}
		if err != nil {
			if !c.closing.Load() {
				c.log.Warn("dhcp-receive-failed", "if", c.iface, "err", err)
			}
			return
		}
		r, err := decode(buf[:n], c.id.MAC)
		if err != nil {
			c.log.Debug("dhcp-reply-ignored", "if", c.iface, "err", err)
			continue
		}
		select {
		case c.replies <- r:
		default: // a flood; the machine asks again
		}
	}
}

// Send sends a query, by broadcast or to one server.
func (c *Conn) Send(ctx context.Context, q Query) error {
	b := encode(q, c.id).ToBytes()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !q.To.IsValid() {
		if _, err := c.raw.WriteTo(b, &net.UDPAddr{IP: net.IPv4bcast, Port: serverPort}); err != nil {
			return fmt.Errorf("dhcp on %s: send %s: %w", c.iface, q.Type, err)
		}
		return nil
	}
	if err := c.openUnicast(ctx, q.ClientIP); err != nil {
		return err
	}
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(q.To, serverPort))
	if _, err := c.unicast.WriteTo(b, to); err != nil {
		return fmt.Errorf("dhcp on %s: send %s to %s: %w", c.iface, q.Type, q.To, err)
	}
	return nil
}

// openUnicast binds the client's port on the leased address. The answer is
// read from the raw socket; this one stays open so that the kernel does not
// call the port unreachable.
func (c *Conn) openUnicast(ctx context.Context, from netip.Addr) error {
	c.closeUnicast()
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var serr error
		err := raw.Control(func(fd uintptr) {
			serr = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.BindToDevice(int(fd), c.iface))
		})
		return errors.Join(err, serr)
	}}
	pc, err := lc.ListenPacket(ctx, "udp4", netip.AddrPortFrom(from, clientPort).String())
	if err != nil {
		return fmt.Errorf("dhcp on %s: bind %s: %w", c.iface, from, err)
	}
	c.unicast = pc.(*net.UDPConn)
	return nil
}

func (c *Conn) closeUnicast() error {
	if c.unicast == nil {
		return nil
	}
	err := c.unicast.Close()
	c.unicast = nil
	return err
}
