package ovf

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"cairn/toolstack/transfer/archive"
)

// Types of resources in the CIM.
const (
	typeCPU      = "3"
	typeMemory   = "4"
	typeIDE      = "5"
	typeSCSI     = "6"
	typeEthernet = "10"
	typeCD       = "15"
	typeDVD      = "16"
	typeDisk     = "17"
	typeOther    = "20" // SATA and NVMe, among others
)

// chosen is the configuration that a descriptor with several is installed in.
func (e *envelope) chosen() string {
	for _, c := range e.Configurations {
		if truth(c.Default) {
			return c.ID
		}
	}
	if len(e.Configurations) > 0 {
		return e.Configurations[0].ID
	}
	return ""
}

func truth(text string) bool { return text == "true" || text == "1" }

func (d *Descriptor) systems(from collection, configuration string) error {
	for _, s := range from.Systems {
		one, err := d.system(s, configuration)
		if err != nil {
			return err
		}
		d.Systems = append(d.Systems, one)
	}
	for _, c := range from.Collections {
		if err := d.systems(c, configuration); err != nil {
			return err
		}
	}
	return nil
}

func (d *Descriptor) system(from system, configuration string) (s System, err error) {
	s = System{
		ID: from.ID, Name: cmp.Or(strings.TrimSpace(from.Name), from.ID), Description: strings.TrimSpace(from.Annotation),
		Guest: Guest{Label: from.OS.Type, Text: strings.TrimSpace(from.OS.Text)}, UEFI: strings.HasPrefix(strings.ToUpper(from.Firmware.Type), "EFI"),
	}
	s.Guest.ID, _ = strconv.Atoi(from.OS.ID) // what is no number means nothing
	if len(from.Hardware) == 0 {
		return s, archive.Malformed("nothing is said of the hardware of %.80q", s.Name)
	}
	h := from.Hardware[0] // of several any one will do
	s.settings(h)
	if n := len(h.Items) + len(h.Storage) + len(h.Ethernet); n > maxItems {
		return s, archive.Malformed("%.80q has %d pieces of hardware", s.Name, n)
	}
	items := picked(h, configuration)
	for _, i := range items {
		if err := s.resource(i); err != nil {
			return s, err
		}
	}
	return s, d.drives(&s, items)
}

// settings reads what is not in items.
func (s *System) settings(h hardware) {
	for _, c := range append(h.Config, h.Extra...) {
		switch c.Key {
		case "firmware":
			s.UEFI = strings.EqualFold(c.Value, "efi")
		case "bootOptions.efiSecureBootEnabled":
			s.SecureBoot = truth(c.Value)
		}
	}
	own := map[string]string{}
	for _, o := range h.Other {
		for part := range strings.SplitSeq(o.Value, ";") {
			key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
			switch {
			case !ok:
			case o.Name == "platform":
				own[key] = value
			case o.Name == "HVM_boot_params" && key == "firmware":
				s.UEFI = value == "uefi"
			}
		}
	}
	for _, p := range h.Platform {
		own[p.Key] = p.Value
	}
	if len(own) > 0 {
		s.Platform = own
	}
	s.SecureBoot = s.UEFI && (s.SecureBoot || own["secureboot"] == "true")
}

// picked are the items of a configuration: one that is bound to it stands for one of the
// same number that is bound to none, and those that only mark a range stand for nothing.
func picked(h hardware, configuration string) (list []item) {
	for _, i := range slices.Concat(h.Items, h.Storage, h.Ethernet) {
		bound := i.Configuration != ""
		switch {
		case i.Bound == "min" || i.Bound == "max":
			continue
		case bound && !slices.Contains(strings.Fields(i.Configuration), configuration):
			continue
		}
		at := slices.IndexFunc(list, func(o item) bool { return o.InstanceID == i.InstanceID && (bound || o.Configuration != "") })
		switch {
		case at < 0:
			list = append(list, i)
		case bound:
			list[at] = i
		}
	}
	return list
}

// resource reads an item that is no drive.
func (s *System) resource(i item) (err error) {
	if strings.Contains(strings.ToLower(i.SubType), "virtio") {
		s.Virtio = true
	}
	switch strings.TrimSpace(i.Type) {
	case typeCPU:
		if s.CPUs, err = number("number of processors", i.Quantity); err == nil && i.Cores != "" {
			s.CoresPerSocket, err = number("number of cores", i.Cores)
		}
	case typeMemory:
		var unit int64
		if unit, err = unitOf(i.Units, 1<<20); err == nil { // who says nothing means this
			s.Memory, err = quantity("memory", i.Quantity, unit)
		}
	case typeEthernet:
		n := NIC{MAC: mac(i.Address)}
		if len(i.Connection) > 0 {
			n.Network = strings.TrimSpace(i.Connection[0])
		}
		s.NICs = append(s.NICs, n)
	}
	return err
}

// mac spells one with colons; what else stands there is none.
func mac(text string) string {
	digits := strings.NewReplacer(":", "", "-", "", ".", "").Replace(strings.ToLower(strings.TrimSpace(text)))
	if _, err := strconv.ParseUint(digits, 16, 48); err != nil || len(digits) != 12 {
		return ""
	}
	var parts []string
	for at := 0; at < len(digits); at += 2 {
		parts = append(parts, digits[at:at+2])
	}
	return strings.Join(parts, ":")
}

// drives reads them in the order of their places: by controller, then on it.
func (d *Descriptor) drives(s *System, items []item) error {
	controllers := map[string]int{}
	type placed struct {
		Drive
		controller, unit int
	}
	var all []placed
	for n, i := range items {
		switch strings.TrimSpace(i.Type) {
		case typeIDE, typeSCSI, typeOther:
			controllers[i.InstanceID] = n + 1
		}
	}
	for _, i := range items {
		p := placed{controller: controllers[i.Parent]}
		p.unit, _ = strconv.Atoi(strings.TrimSpace(i.OnParent)) // those without stay as they come
		switch strings.TrimSpace(i.Type) {
		case typeCD, typeDVD:
			p.CD = true
		case typeDisk:
			if p.Disk = resourceOf(i); p.Disk == "" {
				continue // one of the host's
			}
			if _, ok := d.Find(p.Disk); !ok {
				return archive.Malformed("a drive has the disk %.80q, of which nothing is said", p.Disk)
			}
		default:
			continue
		}
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.controller, b.controller), cmp.Compare(a.unit, b.unit))
	})
	for _, p := range all {
		s.Drives = append(s.Drives, p.Drive)
	}
	return nil
}

// resourceOf is the disk that an item names: "ovf:/disk/vmdisk1", or without a scheme.
func resourceOf(i item) string {
	for _, r := range i.HostResource {
		path := strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(r), "ovf:"), "//")
		if id, ok := strings.CutPrefix(path, "/disk/"); ok {
			return id
		}
	}
	return ""
}
