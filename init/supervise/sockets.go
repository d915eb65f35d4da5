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

// listen opens the sockets of every service.
func (s *Supervisor) listen() {
	book, err := s.Accounts()
	if err != nil {
		s.Log.Warn("accounts-failed", "err", err)
	}
	for _, spec := range s.Services {
		for _, l := range spec.Sockets {
			f, err := open(l, book)
			if err != nil {
				s.Log.Error("listen-failed", "name", spec.Name, "socket", l.Name, "err", err)
				continue
			}
			s.sockets[spec.Name] = append(s.sockets[spec.Name], f)
		}
	}
}

func open(l catalogue.Listen, book account.Book) (*os.File, error) {
	if l.Network == "unix" {
		return openUnix(l, book)
	}
	addr, err := netip.ParseAddrPort(l.Address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	f, err := openTCP(l.Name, addr)
	if errors.Is(err, unix.EAFNOSUPPORT) && addr.Addr() == netip.IPv6Unspecified() {
		// A kernel without IPv6 still has every IPv4 address.
		return openTCP(l.Name, netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port()))
	}
	return f, err
}

func openTCP(name string, addr netip.AddrPort) (*os.File, error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if family == unix.AF_INET6 {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0))
	}
	return bound(fd, name, sa, addr.String(), err)
}

func openUnix(l catalogue.Listen, book account.Book) (*os.File, error) {
	if err := os.Remove(l.Address); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", l.Address, err)
	}
	f, err := bound(fd, l.Name, &unix.SockaddrUnix{Name: l.Address}, l.Address, nil)
	if err != nil {
		return nil, err
	}
	if err := own(l.Address, l.Mode, l.Owner, book); err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), f.Close())
	}
	return f, nil
}

// bound ends the making of a socket, or closes it.
func bound(fd int, name string, sa unix.Sockaddr, where string, err error) (*os.File, error) {
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen on %s: %w", where, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
