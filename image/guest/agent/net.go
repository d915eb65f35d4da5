package agent

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of an Ethernet frame, without its checksum.
const (
	minFrame = 14
	maxFrame = 9014
)

func frame(w string) error {
	b, err := hex.DecodeString(w)
	if err == nil && (len(b) < minFrame || len(b) > maxFrame) {
		err = fmt.Errorf("a frame of %d bytes", len(b))
	}
	return err
}

// nics lists what there is, once a NIC that was named by its MAC is among it.
func nics(w io.Writer, words []string) error {
	all, err := net.Interfaces()
	for deadline := time.Now().Add(findLimit); err == nil && len(words) > 0 && !has(all, words[0]); time.Sleep(findEvery) {
		if time.Now().After(deadline) {
			return fmt.Errorf("no NIC %s", words[0])
		}
		all, err = net.Interfaces()
	}
	for _, n := range all {
		if n.Flags&net.FlagLoopback != 0 {
			continue
		}
		carrier, _ := os.ReadFile("/sys/class/net/" + n.Name + "/carrier")
		link := len(carrier) > 0 && carrier[0] == '1'
		fmt.Fprintf(w, "nic name=%s mac=%s mtu=%d up=%v link=%v\n", n.Name, n.HardwareAddr, n.MTU, n.Flags&net.FlagUp != 0, link)
	}
	return err
}

func has(all []net.Interface, mac string) bool {
	return slices.ContainsFunc(all, func(n net.Interface) bool { return n.HardwareAddr.String() == mac })
}

// mac checks the address of a NIC.
func mac(w string) error {
	_, err := net.ParseMAC(w)
	return err
}

// control runs requests that name an interface.
func control(name string, requests ...func(fd int, r *unix.Ifreq) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, request := range requests {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := request(fd, r); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func up(fd int, r *unix.Ifreq) error {
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

func address(_ io.Writer, words []string) error {
	ip, network, err := net.ParseCIDR(words[1])
	if err != nil {
		return err
	}
	set := func(what uint, value []byte) func(int, *unix.Ifreq) error {
		return func(fd int, r *unix.Ifreq) error {
			if err := r.SetInet4Addr(value); err != nil {
				return err
			}
			return unix.IoctlIfreq(fd, what, r)
		}
	}
	return control(words[0], set(unix.SIOCSIFADDR, ip.To4()), set(unix.SIOCSIFNETMASK, network.Mask), up)
}

// packetSocket is bound to one NIC, which it brings up.
func packetSocket(name string) (fd int, at *unix.SockaddrLinklayer, err error) {
	if err := control(name, up); err != nil {
		return -1, nil, err
	}
	n, err := net.InterfaceByName(name)
	if err != nil {
		return -1, nil, err
	}
	all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8) // in network order
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
		return -1, nil, err
	}
	at = &unix.SockaddrLinklayer{Protocol: all, Ifindex: n.Index}
	if err := unix.Bind(fd, at); err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, at, nil
}

func send(w io.Writer, words []string) error {
	b, err := hex.DecodeString(words[1])
	if err != nil {
		return err
	}
	fd, at, err := packetSocket(words[0])
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, b, 0, at); err != nil {
		return fmt.Errorf("%s: send: %w", words[0], err)
	}
	fmt.Fprintf(w, "send nic=%s bytes=%d\n", words[0], len(b))
	return nil
}

// listen prints what others send; the NIC's own frames are left out.
func listen(w io.Writer, words []string) error {
	fd, _, err := packetSocket(words[0])
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	end := time.Now().Add(time.Duration(integer(words[2])) * time.Second)
	fmt.Fprintf(w, "listen nic=%s\n", words[0])
	b := make([]byte, maxFrame+64)
	for left := integer(words[1]); left > 0; {
		wait := time.Until(end)
		if wait <= 0 {
			break
		}
		limit := unix.NsecToTimeval(wait.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			return err
		}
		n, from, err := unix.Recvfrom(fd, b, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		fmt.Fprintf(w, "frame nic=%s hex=%x\n", words[0], b[:n])
		left--
	}
	return nil
}
