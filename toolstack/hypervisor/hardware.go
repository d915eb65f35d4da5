package hypervisor

import "libvirt.org/go/libvirtxml"

// hardwareFrom reads back what the writers of domain XML wrote, and what has become
// of it since. Devices that are not a caller's are left out.
func hardwareFrom(d libvirtxml.Domain) (h Hardware) {
	if d.VCPU != nil {
		h.VCPUs = int(d.VCPU.Value)
		if d.VCPU.Current != 0 {
			h.VCPUs = int(d.VCPU.Current)
		}
	}
	if d.Devices == nil {
		return h
	}
	for _, x := range d.Devices.Disks {
		if id := idOf(x.Alias); id != "" {
			h.Disks = append(h.Disks, diskFrom(id, x))
		}
	}
	for _, x := range d.Devices.Interfaces {
		if id := idOf(x.Alias); id != "" {
			h.NICs = append(h.NICs, nicFrom(id, x))
		}
	}
	return h
}

func diskFrom(id string, x libvirtxml.DomainDisk) Disk {
	d := Disk{ID: id, Serial: x.Serial, CD: x.Device == "cdrom", Shareable: x.Shareable != nil}
	d.ReadOnly = x.ReadOnly != nil && !d.CD
	if x.Target != nil {
		d.Device, d.Bus = x.Target.Dev, Bus(x.Target.Bus)
	}
	if x.Driver != nil {
		d.Source = sourceFrom(x.Source, Format(x.Driver.Type), x.BackingStore)
	}
	return d
}

// sourceFrom reads a chain; libvirt ends it with an empty element.
func sourceFrom(x *libvirtxml.DomainDiskSource, f Format, beneath *libvirtxml.DomainDiskBackingStore) *Source {
	if x == nil {
		return nil
	}
	s := Source{Format: f}
	switch {
	case x.File != nil && x.File.File != "":
		s.Path = x.File.File
	case x.Block != nil && x.Block.Dev != "":
		s.Path, s.Block = x.Block.Dev, true
	default:
		return nil
	}
	if beneath != nil && beneath.Format != nil {
		s.Backing = sourceFrom(beneath.Source, Format(beneath.Format.Type), beneath.BackingStore)
	}
	return &s
}

func nicFrom(id string, x libvirtxml.DomainInterface) NIC {
	n := NIC{ID: id, LinkDown: x.Link != nil && x.Link.State == "down"}
	if x.MAC != nil {
		n.MAC = x.MAC.Address
	}
	if x.Source != nil && x.Source.Bridge != nil {
		n.Bridge = x.Source.Bridge.Bridge
	}
	if x.Target != nil {
		n.Tap = x.Target.Dev
	}
	if x.Model != nil {
		n.Model = x.Model.Type
	}
	if x.MTU != nil {
		n.MTU = int(x.MTU.Size)
	}
	return n
}
