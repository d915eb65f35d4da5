package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the routes this package sets, so that a restart knows
// them from the kernel's and everybody else's (a number free in rtnetlink.h).
const routeProtocol = 67

const runningLink = unix.IFF_LOWER_UP | unix.IFF_RUNNING

// Kernel is the network stack as the manager uses it.
type Kernel interface {
	Found() (Found, error)
	Do(Step) error
	// Watch sends to wake, without blocking, whenever something changed. It
	// returns when ctx is done or it cannot go on.
	Watch(ctx context.Context, wake chan<- struct{}) error
}

// Netlink is the Kernel of the network namespace it was made in.
type Netlink struct {
	handle *netlink.Handle
	sysfs  string
}

// NewNetlink opens the present namespace's stack; sysfs is normally /sys.
func NewNetlink(sysfs string) (*Netlink, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return &Netlink{handle: h, sysfs: sysfs}, nil
}

// Close frees the socket.
func (k *Netlink) Close() { k.handle.Close() }

// Found implements Kernel.
func (k *Netlink) Found() (Found, error) {
	var f Found
	links, err := k.handle.LinkList()
	if err != nil {
		return f, fmt.Errorf("list links: %w", err)
	}
	addrs, err := k.handle.AddrList(nil, unix.AF_INET)
	if err != nil {
		return f, fmt.Errorf("list addresses: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		f.Links = append(f.Links, k.link(l, addrs))
	}
	for i, l := range links {
		f.Links[i].Master = names[l.Attrs().MasterIndex]
	}
	f.Routes, err = k.routes(names)
	return f, err
}

func (k *Netlink) link(found netlink.Link, addrs []netlink.Addr) Link {
	a := found.Attrs()
	l := Link{
		Index: a.Index, Name: a.Name, MAC: a.HardwareAddr.String(), Kind: found.Type(), MTU: a.MTU, Ours: a.Alias == mark,
		Up: a.RawFlags&unix.IFF_UP != 0,
		// A carrier alone is not enough: until the kernel calls the link
		// running too, it silently drops what is sent.
		Carrier: a.RawFlags&runningLink == runningLink,
	}
	// A virtual interface has no device behind it; that is the common case and
	// no error.
	if path, err := filepath.EvalSymlinks(filepath.Join(k.sysfs, "class/net", a.Name, "device")); err == nil {
		l.Path = path
	}
	for _, x := range addrs {
		if x.LinkIndex == a.Index && a.Name != loopback {
			if p, ok := prefix(x.IPNet); ok {
				l.Addrs = append(l.Addrs, p)
			}
		}
	}
	return l
}

func (k *Netlink) routes(names map[int]string) ([]Route, error) {
	filter := &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN}
	found, err := k.handle.RouteListFiltered(unix.AF_INET, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []Route
	for _, r := range found {
		route := Route{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Link: names[r.LinkIndex]}
		if p, ok := prefix(r.Dst); ok {
			route.To = p
		}
		if via, ok := netip.AddrFromSlice(r.Gw.To4()); ok {
			route.Via = via
		}
		out = append(out, route)
	}
	return out, nil
}

// Do implements Kernel. Undoing what is already gone is no error.
func (k *Netlink) Do(s Step) error {
	if s.Op == BridgeAdd {
		if err := k.addBridge(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		return nil
	}
	link, err := k.handle.LinkByName(s.Link)
	if err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	addr := &netlink.Addr{IPNet: ipNet(s.Addr)}
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN,
		Dst: ipNet(s.Route.To), Gw: net.IP(s.Route.Via.AsSlice()),
	}
	switch s.Op {
	case LinkUp:
		err = k.handle.LinkSetUp(link)
	case AddrAdd:
		err = k.handle.AddrReplace(link, addr)
	case AddrDel:
		err = ignore(k.handle.AddrDel(link, addr), unix.EADDRNOTAVAIL)
	case RouteSet:
		err = k.handle.RouteReplace(route)
	case RouteDel:
		err = ignore(k.handle.RouteDel(route), unix.ESRCH)
	default:
		err = k.change(link, s)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	return nil
}

// Watch implements Kernel. The messages are not read: any is a reason to look.
func (k *Netlink) Watch(ctx context.Context, wake chan<- struct{}) error {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: watch: %w", err)
	}
	stop := context.AfterFunc(ctx, sock.Close)
	defer func() {
		if stop() {
			sock.Close()
		}
	}()
	for {
		// The first wake is for what changed before the subscription.
		select {
		case wake <- struct{}{}:
		default: // a wake is pending already
		}
		// What was lost to a full buffer is found by looking, as everything is.
		if _, _, err := sock.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
				return ctx.Err()
			}
			return fmt.Errorf("netlink: watch: %w", err)
		}
	}
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP.To4())
	ones, bits := n.Mask.Size()
	return netip.PrefixFrom(a, ones), ok && bits == 32
}

func ipNet(p netip.Prefix) *net.IPNet {
	if !p.IsValid() {
		return nil
	}
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
