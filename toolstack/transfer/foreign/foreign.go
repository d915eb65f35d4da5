// Package foreign says in the records of this API what an OVF says of VMs, and in the
// words of an OVF what the records say: the first becomes a plan (package plan) like any
// other description, the second leaves.
//
// The two do not match, and what is lost is lost on purpose: an OVF knows no snapshots,
// tags, TPMs or memory of a VM that sleeps. What this API alone knows of hardware
// (VM.platform) goes along in an element that others may pass over. A VM that comes
// without it comes from elsewhere, and gets disks and NICs that its system has drivers
// for wherever that was, unless they were of virtio there as well.
//
// All of it is pure.
package foreign

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/transfer/ova"
	"cairn/toolstack/transfer/ovf"
	"cairn/toolstack/vm/template"
)

// coresKey of VM.platform divides vCPUs into sockets.
const coresKey = "cores-per-socket"

// Document is what a descriptor says. Disks keep their IDs; a network is one of that name
// or else the one that is there for everybody.
func Document(r db.Reader, d *ovf.Descriptor) *ova.Document {
	w := &writer{r: r, d: d, seen: map[string]bool{}}
	for n, s := range d.Systems {
		w.system(fmt.Sprint("system ", n), s)
	}
	return &w.doc
}

type writer struct {
	r    db.Reader
	d    *ovf.Descriptor
	doc  ova.Document
	seen map[string]bool // disks and networks
}

func (w *writer) add(id string, r api.Record) {
	w.doc.Objects = append(w.doc.Objects, ova.Object{ID: id, Record: r})
}

func (w *writer) system(id string, s ovf.System) {
	w.add(id, machine(s))
	bootable := true
	for n, drive := range s.Drives {
		v := api.NewVBD()
		v.VM, v.Userdevice = api.VMRef(id), strconv.Itoa(n)
		if drive.CD {
			v.Type, v.Mode, v.Empty = api.VBDTypeCD, api.VBDModeRO, true
		} else {
			v.Type, v.Mode, v.Bootable, v.VDI = api.VBDTypeDisk, api.VBDModeRW, bootable, api.VDIRef(drive.Disk)
			w.disk(drive.Disk, fmt.Sprintf("%s %d", s.Name, n), bootable)
			bootable = false
		}
		w.add(fmt.Sprint(id, " drive ", n), v)
	}
	for n, nic := range s.NICs {
		v := api.NewVIF()
		v.VM, v.Device, v.MAC = api.VMRef(id), strconv.Itoa(n), nic.MAC
		v.Network = w.network(nic.Network)
		w.add(fmt.Sprint(id, " NIC ", n), v)
	}
}

// machine is the record of a VM.
func machine(s ovf.System) *api.VM {
	t := template.Template{
		Name: s.Name, Description: s.Description, Firmware: template.BIOS, Windows: s.Guest.Windows(), Legacy: !s.Virtio,
		Memory: s.Memory, MinMemory: s.Memory, VCPUs: max(s.CPUs, 1),
	}
	if s.UEFI {
		t.Firmware = template.UEFI
	}
	if s.SecureBoot {
		t.SecureBoot = "true"
	}
	vm := t.VM()
	vm.IsATemplate, vm.IsDefaultTemplate, vm.OtherConfig, vm.Recommendations = false, false, nil, ""
	if s.Virtio {
		delete(vm.Platform, "disk-bus")
		delete(vm.Platform, "nic-model")
	}
	if s.Platform != nil {
		vm.Platform = maps.Clone(s.Platform)
	}
	if n := s.CoresPerSocket; n > 0 && vm.VCPUsMax%n == 0 {
		vm.Platform[coresKey] = strconv.FormatInt(n, 10)
	}
	return vm
}

// disk describes one that a drive has, once.
func (w *writer) disk(id, name string, system bool) {
	from, ok := w.d.Find(id)
	if !ok || w.seen["disk "+id] {
		return
	}
	w.seen["disk "+id] = true
	v := api.NewVDI()
	v.NameLabel, v.VirtualSize, v.Type = name, from.Capacity, api.VDITypeUser
	if system {
		v.Type = api.VDITypeSystem
	}
	w.add(id, v)
}

// network describes one that a NIC is on, once.
func (w *writer) network(name string) api.NetworkRef {
	id := "network " + name
	if w.seen[id] {
		return api.NetworkRef(id)
	}
	w.seen[id] = true
	n := api.NewNetwork()
	n.NameLabel = cmp.Or(name, "network")
	if name == "" || len(db.ByName[api.Network](w.r, name)) == 0 {
		if here, ok := everybodys(w.r); ok {
			n = here
		}
	}
	w.add(id, n)
	return api.NetworkRef(id)
}

// everybodys is the network of hosts' management, or the only one there is.
func everybodys(r db.Reader) (*api.Network, bool) {
	var refs []api.NetworkRef
	for _, pif := range db.All[api.PIF](r) {
		if pif.Management {
			refs = append(refs, pif.Network)
		}
	}
	if len(refs) == 0 {
		for ref := range db.All[api.Network](r) {
			refs = append(refs, ref)
		}
		if len(refs) > 1 {
			return nil, false
		}
	}
	if len(refs) == 0 {
		return nil, false
	}
	n, err := db.Get(r, slices.Min(refs))
	return n, err == nil
}
