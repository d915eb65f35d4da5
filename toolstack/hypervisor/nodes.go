package hypervisor

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// A libvirtd that is killed while it switches a domain to overlays or gives it a device
// may leave things behind that the next one knows nothing of: QEMU writes to an overlay,
// or has one open that nobody uses, or the guest has the device, or half of a NIC.
// libvirt's description of the domain is not true then, and whoever removed the overlay
// by it would remove what the guest has written. So the description is compared with
// QEMU's own, and QEMU brought back to it: what is in the overlay is merged into the
// layer libvirt knows of.

// node is one of QEMU's block nodes, of a drive's the one it writes to.
type node struct {
	Device  string `json:"qdev"`
	Name    string `json:"node-name"`
	Backing *node  `json:"backing"`
}

// Names libvirt gives to the nodes of an image and of the file beneath it; a number
// is in between, which its description calls index.
const (
	nodePrefix    = "libvirt-"
	formatSuffix  = "-format"
	storageSuffix = "-storage"
)

func nodeName(index uint) string { return fmt.Sprintf("%s%d%s", nodePrefix, index, formatSuffix) }

// numberOf reads the number of a node's name.
func numberOf(name string) (uint, bool) {
	rest, ours := strings.CutPrefix(name, nodePrefix)
	digits, image := strings.CutSuffix(rest, formatSuffix)
	if !image {
		digits, image = strings.CutSuffix(rest, storageSuffix)
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint(n), ours && image && err == nil
}

// astray is a disk that QEMU writes to another layer than libvirt says.
type astray struct{ id, top, base string }

// repairs is what brings QEMU back to what libvirt says.
type repairs struct {
	merge  []astray
	eject  []string // disks libvirt gave, and does not know of
	unplug []string // NICs, likewise
	drop   []string // nodes, in the order they can go
}

func (r repairs) none() bool {
	return len(r.merge)+len(r.eject)+len(r.unplug)+len(r.drop) == 0
}

// inside is what QEMU has: the nodes of drives, all nodes, the devices by name, and
// the networks as its console tells them.
type inside struct {
	drives, nodes []node
	devices       []device
	networks      string
}

// device is an entry of QEMU's tree of objects; Type is "child<virtio-net-pci>".
type device struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// diverged compares libvirt's description with what QEMU has. An error says that they
// differ in a way that nobody has an answer to.
func diverged(d libvirtxml.Domain, q inside) (r repairs, err error) {
	if d.Devices == nil {
		return r, nil
	}
	at, known := map[string]node{}, map[uint]bool{}
	for _, v := range q.drives {
		at[strings.TrimPrefix(v.Device, userAlias)] = v
	}
	for _, x := range d.Devices.Disks {
		if x.Mirror != nil {
			return repairs{}, nil // libvirt is changing it itself
		}
		numbers(x, known)
		id := idOf(x.Alias)
		is, there := at[id]
		delete(at, id)
		if _, ours := numberOf(is.Name); id == "" || x.Source == nil || !there || !ours || !strings.HasSuffix(is.Name, formatSuffix) {
			continue // an empty drive, or an image without a format
		}
		want := nodeName(x.Source.Index)
		switch {
		case is.Name == want:
		case is.Backing == nil || is.Backing.Name != want:
			return repairs{}, fmt.Errorf("disk %s is written to %s, and by libvirt to %s", id, is.Name, want)
		default:
			r.merge = append(r.merge, astray{id: id, top: is.Name, base: want})
		}
	}
	for _, v := range at {
		if strings.HasPrefix(v.Device, userAlias) {
			r.eject = append(r.eject, v.Device)
		}
	}
	slices.Sort(r.eject)
	for _, n := range q.nodes {
		if number, ours := numberOf(n.Name); ours && !known[number] {
			r.drop = append(r.drop, n.Name)
		}
	}
	slices.Sort(r.drop) // "…-format" before "…-storage"
	h := hardwareFrom(d)
	r.unplug = append(strangers(h, q.devices), loose(h, q.networks)...)
	return r, nil
}

// looseEnd is a host's end of a network with no NIC at the other: such a one stands at
// the begin of a line, others behind their NIC.
var looseEnd = regexp.MustCompile(`(?m)^host(` + userAlias + `[^:\s]+): index=\d+,type=`)

// loose are NICs of which QEMU has the host's end only, and which libvirt does not know
// of, by their aliases.
func loose(h Hardware, networks string) (unknown []string) {
	for _, found := range looseEnd.FindAllStringSubmatch(networks, -1) {
		if _, known := h.NIC(strings.TrimPrefix(found[1], userAlias)); !known {
			unknown = append(unknown, found[1])
		}
	}
	return unknown
}

// strangers are QEMU's NICs that libvirt does not know of, by their aliases.
func strangers(h Hardware, devices []device) (unknown []string) {
	for _, x := range devices {
		id, ours := strings.CutPrefix(x.Name, userAlias)
		if _, known := h.NIC(id); ours && !known && (x.Type == "child<virtio-net-pci>" || x.Type == "child<e1000e>") {
			unknown = append(unknown, x.Name)
		}
	}
	return unknown
}

// numbers notes those of a disk's layers.
func numbers(x libvirtxml.DomainDisk, known map[uint]bool) {
	if x.Source != nil {
		known[x.Source.Index] = true
	}
	for b := x.BackingStore; b != nil; b = b.BackingStore {
		known[b.Index] = true
	}
}
