package hypervisor

import (
	"fmt"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// userAlias begins the aliases libvirt leaves to its callers; a device keeps its
// alias for life, so it is how devices are named to libvirt and by it.
const userAlias = "ua-"

func alias(id string) *libvirtxml.DomainAlias { return &libvirtxml.DomainAlias{Name: userAlias + id} }

// idOf is the ID behind an alias, or "" of a device that is not a caller's.
func idOf(a *libvirtxml.DomainAlias) string {
	if a == nil {
		return ""
	}
	return aliasID(a.Name)
}

func aliasID(name string) string {
	id, ours := strings.CutPrefix(name, userAlias)
	if !ours {
		return ""
	}
	return id
}

// ataSerial is how many bytes a serial number has on SATA.
const ataSerial = 20

// diskXML writes a disk. The whole chain is spelled out and ends in an empty
// backing store: libvirt then probes nothing, so that no guest can name a file of
// the host by writing a header into its raw disk.
//
// A write that finds no space pauses the guest, every other error is the guest's
// to handle. Disks go past the host's page cache, which would only keep a second
// copy of the guest's; CDs do not, because guests share their images.
func diskXML(d Disk, order uint) libvirtxml.DomainDisk {
	x := libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{
			Name: "qemu", Type: string(Raw), Cache: "none", IO: "native", ErrorPolicy: "enospace", Discard: "unmap",
		},
		Target: &libvirtxml.DomainDiskTarget{Dev: d.Device, Bus: string(d.Bus)},
		Serial: d.Serial,
		Alias:  alias(d.ID),
	}
	if d.CD {
		x.Device, x.Driver = "cdrom", &libvirtxml.DomainDiskDriver{Name: "qemu", Type: string(Raw)}
	}
	if d.CD || d.ReadOnly {
		x.ReadOnly = &libvirtxml.DomainDiskReadOnly{}
	}
	if d.Shareable {
		x.Shareable = &libvirtxml.DomainDiskShareable{}
	}
	if d.Bus == SCSI {
		x.Address = scsiAddress(d.Device)
	} else if len(x.Serial) > ataSerial {
		x.Serial = strings.ReplaceAll(x.Serial, "-", "")[:ataSerial]
	}
	if d.Source != nil {
		x.Driver.Type = string(d.Source.Format)
		x.Source, x.BackingStore = sourceXML(*d.Source), backingXML(d.Source.Backing)
	}
	if order > 0 {
		x.Boot = &libvirtxml.DomainDeviceBoot{Order: order}
	}
	return x
}

// scsiAddress makes each disk a target of its own: a guest that resets or drops
// one leaves the others alone.
func scsiAddress(device string) *libvirtxml.DomainAddress {
	zero, target := uint(0), place(device)
	return &libvirtxml.DomainAddress{Drive: &libvirtxml.DomainAddressDrive{
		Controller: &zero, Bus: &zero, Target: &target, Unit: &zero,
	}}
}

// place counts sda, sdb, … sdz, sdaa, … from 0.
func place(device string) (n uint) {
	for _, r := range strings.TrimPrefix(device, "sd") {
		n = n*26 + uint(r-'a') + 1
	}
	return n - 1
}

func sourceXML(s Source) *libvirtxml.DomainDiskSource {
	if s.Block {
		return &libvirtxml.DomainDiskSource{Block: &libvirtxml.DomainDiskSourceBlock{Dev: s.Path}}
	}
	return &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: s.Path}}
}

func backingXML(s *Source) *libvirtxml.DomainDiskBackingStore {
	if s == nil {
		return &libvirtxml.DomainDiskBackingStore{}
	}
	return &libvirtxml.DomainDiskBackingStore{
		Format:       &libvirtxml.DomainDiskFormat{Type: string(s.Format)},
		Source:       sourceXML(*s),
		BackingStore: backingXML(s.Backing),
	}
}

// nicXML writes a NIC. Only one the guest may boot from has a ROM.
func nicXML(n NIC, order uint) libvirtxml.DomainInterface {
	x := libvirtxml.DomainInterface{
		MAC:    &libvirtxml.DomainInterfaceMAC{Address: strings.ToLower(n.MAC)},
		Source: &libvirtxml.DomainInterfaceSource{Bridge: &libvirtxml.DomainInterfaceSourceBridge{Bridge: n.Bridge}},
		Target: &libvirtxml.DomainInterfaceTarget{Dev: n.Tap},
		Model:  &libvirtxml.DomainInterfaceModel{Type: Virtio},
		Alias:  alias(n.ID),
	}
	if n.Model != "" {
		x.Model.Type = n.Model
	}
	if n.MTU != 0 {
		x.MTU = &libvirtxml.DomainInterfaceMTU{Size: uint(n.MTU)}
	}
	if n.LinkDown {
		x.Link = &libvirtxml.DomainInterfaceLink{State: "down"}
	}
	if order > 0 {
		x.Boot = &libvirtxml.DomainDeviceBoot{Order: order}
	} else {
		x.ROM = &libvirtxml.DomainROM{Enabled: "no"}
	}
	return x
}

// bootOrder numbers the devices the firmware tries: a class at a time, and within
// a class in the order of the spec.
func (s Spec) bootOrder() map[string]uint {
	order := map[string]uint{}
	add := func(id string) { order[id] = uint(len(order) + 1) }
	for _, class := range s.BootOrder {
		for _, d := range s.Disks {
			if class == BootDisk && !d.CD || class == BootCD && d.CD {
				add(d.ID)
			}
		}
		for _, n := range s.NICs {
			if class == BootNetwork {
				add(n.ID)
			}
		}
	}
	return order
}

// spareSlots is how many PCI devices can be plugged into a running guest. A slot
// costs a guest's kernel a bridge to look behind.
const spareSlots = 8

// iothread does the disks' work, so that a slow disk stalls no virtual CPU.
const iothread = 1

// controllers: the disks' bus, that of the agent's port, USB for a tablet or none, and a root port for each
// PCI device there is, and to spare.
func controllers(s Spec) []libvirtxml.DomainController {
	zero := uint(0)
	usb, used := "none", len(s.NICs)+4 // the disks' bus, the agent's port, the balloon, random numbers
	if s.Graphics {
		usb, used = "qemu-xhci", used+1
	}
	all := []libvirtxml.DomainController{
		{Type: "usb", Model: usb},
		{Type: "scsi", Index: &zero, Model: "virtio-scsi", Driver: &libvirtxml.DomainControllerDriver{IOThread: iothread}},
		{Type: "virtio-serial", Index: &zero},
	}
	for i := range used + spareSlots {
		index := uint(i + 1)
		all = append(all, libvirtxml.DomainController{Type: "pci", Index: &index, Model: "pcie-root-port"})
	}
	return all
}

// graphics is VNC on a unix socket, for any number of viewers at once, with the
// plain VGA every firmware and installer knows, and a tablet, whose pointer is
// where the viewer's is.
func (c Config) graphics(s Spec, d *libvirtxml.DomainDeviceList) {
	if !s.Graphics {
		return
	}
	path := c.graphicsPath(s.UUID)
	d.Graphics = []libvirtxml.DomainGraphic{{VNC: &libvirtxml.DomainGraphicVNC{
		SharePolicy: "force-shared",
		Listeners:   []libvirtxml.DomainGraphicListener{{Socket: &libvirtxml.DomainGraphicListenerSocket{Socket: path}}},
	}}}
	d.Videos = []libvirtxml.DomainVideo{{Model: libvirtxml.DomainVideoModel{Type: "vga", VRam: 16 << 10, Heads: 1, Primary: "yes"}}}
	d.Inputs = []libvirtxml.DomainInput{{Type: "tablet", Bus: "usb"}}
}

func (c Config) graphicsPath(uuid string) string {
	return fmt.Sprintf("%s/%s.vnc", c.GraphicsDir, uuid)
}

func (c Config) plugged(s Spec, d *libvirtxml.DomainDeviceList) {
	order := s.bootOrder()
	for _, disk := range s.Disks {
		d.Disks = append(d.Disks, diskXML(disk, order[disk.ID]))
	}
	for _, n := range s.NICs {
		d.Interfaces = append(d.Interfaces, nicXML(n, order[n.ID]))
	}
	if s.TPM {
		d.TPMs = []libvirtxml.DomainTPM{tpm()}
	}
}

// tpm keeps its state when the domain ends, as the chip on a board does.
func tpm() libvirtxml.DomainTPM {
	return libvirtxml.DomainTPM{Model: "tpm-crb", Backend: &libvirtxml.DomainTPMBackend{
		Emulator: &libvirtxml.DomainTPMBackendEmulator{Version: "2.0", PersistentState: "yes"},
	}}
}
