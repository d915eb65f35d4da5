package foreign

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/transfer/ova"
	"cairn/toolstack/transfer/ovf"
)

// Kinds of guests as the CIM numbers them and VMware names them.
var (
	linux   = ovf.Guest{ID: 101, Label: "otherLinux64Guest", Text: "Linux"}
	windows = ovf.Guest{ID: 1, Label: "windows9_64Guest", Text: "Windows"}
	other   = ovf.Guest{ID: 102, Label: "otherGuest64", Text: "Another system"}
)

// Describe says of VMs what an OVF can say, and tells the names that its disks have in
// the document, in the order of its files, whose sizes are not known yet.
func Describe(doc *ova.Document) (d *ovf.Descriptor, disks []string) {
	a := &author{doc: doc, places: map[string]string{}, d: &ovf.Descriptor{}}
	for _, o := range doc.Objects {
		if vm, ok := o.Record.(*api.VM); ok {
			a.machine(o.ID, vm)
		}
	}
	return a.d, a.disks
}

type author struct {
	doc    *ova.Document
	d      *ovf.Descriptor
	base   string            // of files' names
	places map[string]string // disks of the descriptor by their names in the document
	disks  []string
}

func (a *author) machine(id string, vm *api.VM) {
	if a.base == "" {
		a.base = FileName(vm.NameLabel)
	}
	s := ovf.System{
		ID: cmp.Or(vm.NameLabel, a.base), Name: cmp.Or(vm.NameLabel, a.base), Description: vm.NameDescription, Guest: guest(vm),
		Memory: vm.MemoryStaticMax, CPUs: vm.VCPUsMax, Platform: maps.Clone(vm.Platform),
		UEFI: vm.HVMBootParams["firmware"] == "uefi",
	}
	s.SecureBoot = s.UEFI && vm.Platform["secureboot"] == "true"
	if n, err := strconv.ParseInt(vm.Platform[coresKey], 10, 64); err == nil && n > 0 {
		s.CoresPerSocket = n
	}
	for _, v := range ofVM(a.doc, func(v *api.VBD) (api.VMRef, string) { return v.VM, v.Userdevice }, id) {
		a.drive(&s, v)
	}
	for _, v := range ofVM(a.doc, func(v *api.VIF) (api.VMRef, string) { return v.VM, v.Device }, id) {
		s.NICs = append(s.NICs, ovf.NIC{Network: a.network(v.Network), MAC: v.MAC})
	}
	a.d.Systems = append(a.d.Systems, s)
}

// ofVM are the devices of a kind that a VM has, by their numbers.
func ofVM[T any](doc *ova.Document, of func(*T) (api.VMRef, string), id string) (list []*T) {
	for _, o := range doc.Objects {
		if v, ok := any(o.Record).(*T); ok {
			if vm, _ := of(v); string(vm) == id {
				list = append(list, v)
			}
		}
	}
	number := func(v *T) int {
		_, place := of(v)
		n, _ := strconv.Atoi(place)
		return n
	}
	slices.SortStableFunc(list, func(x, y *T) int { return cmp.Compare(number(x), number(y)) })
	return list
}

func guest(vm *api.VM) ovf.Guest {
	switch {
	case vm.OtherConfig["linux_template"] == "true":
		return linux
	case vm.Platform["viridian"] == "true":
		return windows
	}
	return other
}

func (a *author) drive(s *ovf.System, v *api.VBD) {
	vdi := ova.Find[api.VDI](a.doc, string(v.VDI))
	switch {
	case v.Type == api.VBDTypeCD:
		s.Drives = append(s.Drives, ovf.Drive{CD: true})
	case vdi != nil:
		s.Drives = append(s.Drives, ovf.Drive{Disk: a.disk(string(v.VDI), vdi)})
	}
}

func (a *author) disk(id string, vdi *api.VDI) string {
	if place, ok := a.places[id]; ok {
		return place
	}
	n := len(a.disks) + 1
	file := ovf.File{ID: fmt.Sprint("file", n), Name: fmt.Sprint(a.base, "-disk", n, ".vmdk"), Size: ovf.Unknown}
	disk := ovf.Disk{ID: fmt.Sprint("vmdisk", n), File: file.ID, Format: ovf.VMDK, Capacity: vdi.VirtualSize}
	a.d.Files, a.d.Disks = append(a.d.Files, file), append(a.d.Disks, disk)
	a.disks = append(a.disks, id)
	a.places[id] = disk.ID
	return disk.ID
}

// network is the name of one, which is one of those that the descriptor lists.
func (a *author) network(ref api.NetworkRef) string {
	name := "network"
	if n := ova.Find[api.Network](a.doc, string(ref)); n != nil {
		name = cmp.Or(n.NameLabel, n.Bridge, name)
	}
	if !slices.Contains(a.d.Networks, name) {
		a.d.Networks = append(a.d.Networks, name)
	}
	return name
}

// maxBase bounds what of a name becomes part of names of files.
const maxBase = 60

// FileName is a name as every tar and every file system takes it.
func FileName(label string) string {
	plain := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '.', c == '-':
			return c
		}
		return '-'
	}, label)
	return cmp.Or(strings.Trim(plain[:min(len(plain), maxBase)], "-."), "vm")
}
