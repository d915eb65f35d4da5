package supervise

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"cairn/init/supervise/account"
	"cairn/init/supervise/catalogue"
)

// backlog is cut by net.core.somaxconn.
const backlog = 4096

// socket is an open listening socket and its LISTEN_FDNAMES entry.
type socket struct {
	name string
	fd   int
}

// listen opens the sockets of every service. They are kept as bare descriptors,
// because os.File would change the blocking mode they share with the service.
func (s *Supervisor) listen() {
	book, err := s.Accounts()
	if err != nil {
		s.Log.Warn("accounts-failed", "err", err)
	}
	for _, spec := range s.Services {
		for _, l := range spec.Sockets {
			fd, err := open(l, book)
			if err != nil {
				s.Log.Error("listen-failed", "name", spec.Name, "socket", l.Name, "err", err)
				continue
			}
			s.sockets[spec.Name] = append(s.sockets[spec.Name], socket{l.Name, fd})
		}
	}
}

func open(l catalogue.Listen, book account.Book) (int, error) {
	if l.Network == "unix" {
		return openUnix(l, book)
	}
	addr, err := netip.ParseAddrPort(l.Address)
	if err != nil {
		return -1, fmt.Errorf("listen: %w", err)
	}
	fd, err := openTCP(addr)
	if errors.Is(err, unix.EAFNOSUPPORT) && addr.Addr() == netip.IPv6Unspecified() {
		// A kernel without IPv6 still has every IPv4 address.
		return openTCP(netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port()))
	}
	return fd, err
}

func openTCP(addr netip.AddrPort) (int, error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("listen on %s: %w", addr, err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if family == unix.AF_INET6 {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0))
	}
	return bound(fd, sa, addr.String(), err)
}

func openUnix(l catalogue.Listen, book account.Book) (int, error) {
	if err := os.Remove(l.Address); err != nil && !errors.Is(err, os.ErrNotExist) {
		return -1, fmt.Errorf("listen: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("listen on %s: %w", l.Address, err)
	}
	fd, err = bound(fd, &unix.SockaddrUnix{Name: l.Address}, l.Address, nil)
	if err != nil {
		return -1, err
	}
	if err := own(l.Address, l.Mode, l.Owner, book); err != nil {
		return -1, errors.Join(fmt.Errorf("listen: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// bound ends the making of a socket, or closes it.
func bound(fd int, sa unix.Sockaddr, where string, err error) (int, error) {
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen on %s: %w", where, err)
	}
	return fd, nil
}
