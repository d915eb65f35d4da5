package port

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Cut takes away the interface of a port whose guest has given it up. One that is not
// there is no error, and normally none is: it lives as long as somebody has it open.
// QEMU has, for as long as it runs, what libvirtd handed to it in the instant it was
// killed, and nobody else could have an interface of that name. What is no interface
// of a guest's is left alone.
func (g *Guard) Cut(iface string) error {
	link, err := netlink.LinkByName(iface)
	if errors.As(err, &netlink.LinkNotFoundError{}) || err == nil && link.Type() != "tuntap" {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("port %s: %w", iface, err)
	}
	return nil
}
