package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// maxHostname is Linux's HOST_NAME_MAX.
const maxHostname = 64

func checkHostname(s string) error {
	if len(s) > maxHostname {
		return fmt.Errorf("has %d characters, at most %d are allowed", len(s), maxHostname)
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return fmt.Errorf("%q is not a host name (letters, digits and inner hyphens, in parts of 1 to 63)", s)
		}
	}
	return nil
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// checkServer accepts a name or an address; the text goes into chrony.conf.
func checkServer(s string) error {
	if _, err := parseIP(s); err == nil {
		return nil
	}
	if len(s) > 253 {
		return fmt.Errorf("has %d characters, at most 253 are allowed", len(s))
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return fmt.Errorf("%q is neither a host name nor an IP address", s)
		}
	}
	return nil
}

// maxIfName is the kernel's IFNAMSIZ without the terminating zero.
const maxIfName = 15

// checkInterface accepts a MAC address or a name as the kernel would.
func checkInterface(s string) error {
	if s == "" {
		return nil
	}
	if strings.Contains(s, ":") {
		if !isMAC(s) {
			return fmt.Errorf("%q is not a MAC address such as 52:54:00:12:34:56", s)
		}
		return nil
	}
	if len(s) > maxIfName {
		return fmt.Errorf("%q is longer than the %d characters of an interface name", s, maxIfName)
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && !strings.ContainsRune("._-", rune(s[i])) {
			return fmt.Errorf("%q is not an interface name", s)
		}
	}
	if s == "." || s == ".." {
		return fmt.Errorf("%q is not an interface name", s)
	}
	return nil
}

// maxPath bounds the path of a disk or a directory; udev's longest names have
// about a hundred characters.
const maxPath = 255

// checkDevice accepts the path of a device below /dev.
func checkDevice(s string) error {
	if !isPath(s, "/dev/") {
		return fmt.Errorf("%q is not a path below /dev, such as /dev/disk/by-id/wwn-0x5000c500a1b2c3d4", s)
	}
	return nil
}

// checkLocation accepts a directory directly below the one for repositories.
func checkLocation(s string) error {
	const dir = "/state/sr/"
	if !isPath(s, dir) || strings.Contains(s[len(dir):], "/") {
		return fmt.Errorf("%q is not a directory such as /state/sr/local", s)
	}
	return nil
}

func isPath(s, prefix string) bool {
	rest, below := strings.CutPrefix(s, prefix)
	if !below || len(s) > maxPath {
		return false
	}
	for part := range strings.SplitSeq(rest, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
		for i := range len(part) {
			if !isAlnum(part[i]) && !strings.ContainsRune("._:+=@-", rune(part[i])) {
				return false
			}
		}
	}
	return true
}

func isMAC(s string) bool {
	hw, err := net.ParseMAC(s)
	return err == nil && len(hw) == 6 && strings.Count(s, ":") == 5
}

// parseAddress reads an IPv4 address with its prefix length that a host can have.
func parseAddress(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() || p.Bits() == 0 {
		return netip.Prefix{}, fmt.Errorf("%q is not an IPv4 address with prefix length, such as 10.0.0.2/24", s)
	}
	if !isHost(p.Addr()) {
		return netip.Prefix{}, fmt.Errorf("%s is not an address a host can have", p.Addr())
	}
	if isEdge(p) {
		return netip.Prefix{}, fmt.Errorf("%s is the network or broadcast address of %s", p.Addr(), p.Masked())
	}
	return p, nil
}

func isHost(a netip.Addr) bool {
	first := a.As4()[0]
	return first != 0 && first < 240 && !a.IsLoopback() && !a.IsMulticast()
}

func parseIPv4(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv4 address", s)
	}
	if !isHost(a) {
		return netip.Addr{}, fmt.Errorf("%s is not an address a host can have", a)
	}
	return a, nil
}

func parseIP(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	}
	if a.Zone() != "" {
		return netip.Addr{}, errors.New("must not have a zone")
	}
	return a, nil
}

func oneOf(s string, allowed ...string) error {
	for _, a := range allowed {
		if s == a {
			return nil
		}
	}
	return fmt.Errorf("is %q, allowed are %s", s, strings.Join(allowed, ", "))
}
