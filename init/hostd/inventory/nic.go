package inventory

import (
	"path/filepath"
	"sort"
	"strings"

	"cairn/init/hostd/client"
)

// NICs lists the physical network interfaces by bus path.
func (s Source) NICs() []client.NIC {
	dir := filepath.Join(s.Sys, "class/net")
	type found struct {
		nic  client.NIC
		path string
	}
	var all []found
	for _, name := range names(dir) {
		// Only hardware has a device; bridges, taps and the like do not.
		path, err := filepath.EvalSymlinks(filepath.Join(dir, name, "device"))
		if err != nil {
			continue
		}
		all = append(all, found{nic(filepath.Join(dir, name), name, path), path})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].path < all[j].path })
	out := make([]client.NIC, len(all))
	for i, f := range all {
		out[i] = f.nic
	}
	return out
}

func nic(dir, name, device string) client.NIC {
	n := client.NIC{
		Name:   name,
		MAC:    text(dir, "address"),
		Driver: driver(device),
		PCI:    pciAddress(device),
		// The kernel answers EINVAL while the interface is down, -1 where the
		// speed is unknown.
		SpeedMbps: int(max(number(dir, "speed"), 0)),
		Duplex:    text(dir, "duplex") == "full",
		Link:      text(dir, "carrier") == "1",
		MTU:       int(number(dir, "mtu")),
	}
	if bus := pciDir(device); bus != "" {
		n.Vendor, n.Device = text(bus, "vendor"), text(bus, "device")
	}
	return n
}

// driver is that of the PCI function where there is one: virtio's own driver
// says less than that of its transport, but is what is known there.
func driver(device string) string {
	if d := link(device, "driver"); d != "" {
		return d
	}
	return link(filepath.Dir(device), "driver")
}

// pciDir walks up from a device to the PCI function it belongs to.
func pciDir(device string) string {
	for dir := device; len(dir) > 1; dir = filepath.Dir(dir) {
		if isPCI(filepath.Base(dir)) {
			return dir
		}
	}
	return ""
}

func pciAddress(device string) string {
	if dir := pciDir(device); dir != "" {
		return filepath.Base(dir)
	}
	return ""
}

// isPCI matches addresses such as 0000:00:02.0.
func isPCI(s string) bool {
	domain, rest, ok := strings.Cut(s, ":")
	bus, rest, ok2 := strings.Cut(rest, ":")
	dev, fn, ok3 := strings.Cut(rest, ".")
	return ok && ok2 && ok3 && len(domain) >= 4 && len(bus) == 2 && len(dev) == 2 && len(fn) == 1
}
