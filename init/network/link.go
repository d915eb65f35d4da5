package network

import (
	"errors"
	"io/fs"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// mark is the alias of the bridges this package made.
const mark = "cairn"

// change carries out a step on a bridge or its port.
func (k *Netlink) change(link netlink.Link, s Step) error {
	switch s.Op {
	case BridgeDel:
		return ignore(k.handle.LinkDel(link), unix.ENODEV)
	case PortJoin:
		return k.join(link, s.Bridge)
	case PortLeave:
		if err := k.handle.LinkSetNoMaster(link); err != nil {
			return err
		}
		return setIPv6(s.Link, true)
	case MACSet:
		mac, err := net.ParseMAC(s.MAC)
		if err != nil {
			return err
		}
		return k.handle.LinkSetHardwareAddr(link, mac)
	case MTUSet:
		return k.handle.LinkSetMTU(link, s.MTU)
	}
	return errors.ErrUnsupported
}

// addBridge makes a bridge or marks the one there is. It forwards at once, since
// it runs no spanning tree, and floods multicast, as clients expect of a network
// without IGMP snooping.
func (k *Netlink) addBridge(s Step) error {
	mac, err := net.ParseMAC(s.MAC)
	if err != nil {
		return err
	}
	snooping := false
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &snooping}
	br.Name, br.HardwareAddr = s.Link, mac
	if err := ignore(k.handle.LinkAdd(br), unix.EEXIST); err != nil {
		return err
	}
	link, err := k.handle.LinkByName(s.Link)
	if err != nil {
		return err
	}
	if link.Type() != bridgeKind {
		return ErrInUse
	}
	if err := setIPv6(s.Link, s.Host); err != nil {
		return err
	}
	return k.handle.LinkSetAlias(link, mark)
}

func (k *Netlink) join(link netlink.Link, bridge string) error {
	br, err := k.handle.LinkByName(bridge)
	if err != nil {
		return err
	}
	if err := setIPv6(link.Attrs().Name, false); err != nil {
		return err
	}
	return k.handle.LinkSetMaster(link, br)
}

// setIPv6 switches the kernel's own addresses of an interface. Where the kernel has
// no IPv6, or keeps its settings to itself, there is nothing to switch.
func setIPv6(iface string, on bool) error {
	value := "1"
	if on {
		value = "0"
	}
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+iface+"/disable_ipv6", []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return nil
	}
	return err
}
