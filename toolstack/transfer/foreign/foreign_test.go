package foreign

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"cairn/golden"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/transfer/ova"
	"cairn/toolstack/transfer/ovf"
	"cairn/toolstack/transfer/plan"
	"cairn/toolstack/vm"
)

const samples = "../ovf/testdata/*.ovf"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// here has two networks, one of them for management.
func here(t testing.TB) *db.Snapshot {
	t.Helper()
	d, err := db.Open(context.Background(), db.NewMemory(), db.Options{})
	must(t, err)
	t.Cleanup(func() { d.Close() })
	must(t, d.Update(context.Background(), func(tx *db.Tx) error {
		for _, name := range []string{"management", "VM Network"} {
			n := api.NewNetwork()
			n.UUID, n.NameLabel, n.MTU = "uuid of "+name, name, 9000
			db.InsertAs(tx, api.NetworkRef("OpaqueRef:"+name), n)
		}
		pif := api.NewPIF()
		pif.Management, pif.Network = true, "OpaqueRef:management"
		db.Insert(tx, pif)
		return nil
	}))
	return d.Snapshot()
}

// text spells a document for people.
func text(d *ova.Document) string {
	var b strings.Builder
	for _, o := range d.Objects {
		fmt.Fprintf(&b, "%s: ", o.ID)
		switch v := o.Record.(type) {
		case *api.VM:
			fmt.Fprintf(&b, "VM %q %q, %d bytes from %d, %d of %d CPUs, template %v\n  %s %v %v %v\n", v.NameLabel, v.NameDescription, v.MemoryStaticMax, v.MemoryStaticMin, v.VCPUsAtStartup, v.VCPUsMax,
				v.IsATemplate || v.IsDefaultTemplate, v.HVMBootPolicy, v.HVMBootParams, v.Platform, v.OtherConfig)
		case *api.VBD:
			fmt.Fprintf(&b, "%s %s %s of %s, %q, bootable %v, empty %v\n", v.Type, v.Mode, v.Userdevice, v.VM, v.VDI, v.Bootable, v.Empty)
		case *api.VDI:
			fmt.Fprintf(&b, "disk %q %s of %d bytes\n", v.NameLabel, v.Type, v.VirtualSize)
		case *api.VIF:
			fmt.Fprintf(&b, "NIC %s of %s on %q, %q\n", v.Device, v.VM, v.Network, v.MAC)
		case *api.Network:
			fmt.Fprintf(&b, "network %q %q\n", v.NameLabel, v.UUID)
		}
	}
	return b.String()
}

func TestDocument(t *testing.T) {
	files, err := filepath.Glob(samples)
	must(t, err)
	var b strings.Builder
	for _, name := range files {
		xml, err := os.ReadFile(name)
		must(t, err)
		d, err := ovf.Parse(xml)
		must(t, err)
		fmt.Fprintf(&b, "# %s\n%s\n", filepath.Base(name), text(Document(here(t), d)))
	}
	golden.Equal(t, "testdata/documents.txt", b.String())
}

// sample is a VM with all that can be told, and some that cannot.
func sample() *ova.Document {
	m := api.NewVM()
	m.NameLabel, m.NameDescription, m.HVMBootPolicy = "web & more", "sells", "BIOS order"
	m.MemoryStaticMax, m.VCPUsMax, m.OtherConfig = 3<<30, 4, map[string]string{"linux_template": "true", "mac_seed": "x"}
	m.HVMBootParams, m.Platform = map[string]string{"firmware": "uefi"}, map[string]string{"secureboot": "true", "cores-per-socket": "2", "vga": "std"}
	d := &ova.Document{Objects: []ova.Object{{ID: "Ref:0", Record: m}}}
	add := func(id string, r api.Record) { d.Objects = append(d.Objects, ova.Object{ID: id, Record: r}) }
	drive := func(place string, vdi api.VDIRef, kind api.VBDType) {
		v := api.NewVBD()
		v.VM, v.Userdevice, v.VDI, v.Type = "Ref:0", place, vdi, kind
		add("Ref:drive"+place, v)
	}
	disk := func(id string, size int64) {
		v := api.NewVDI()
		v.VirtualSize = size
		add(id, v)
	}
	drive("10", "Ref:data", api.VBDTypeDisk)
	disk("Ref:data", 2<<30)
	drive("3", "Ref:iso", api.VBDTypeCD)
	disk("Ref:iso", 1<<20)
	drive("0", "Ref:root", api.VBDTypeDisk)
	drive("5", "Ref:root", api.VBDTypeDisk)
	drive("6", "Ref:gone", api.VBDTypeDisk)
	disk("Ref:root", 1<<30)
	for n, network := range []api.NetworkRef{"Ref:net1", "Ref:net0", "Ref:none"} {
		v := api.NewVIF()
		v.VM, v.Device, v.Network, v.MAC = "Ref:0", fmt.Sprint(2-n), network, fmt.Sprint("02:00:00:00:00:0", n)
		add(fmt.Sprint("Ref:nic", n), v)
	}
	for n, name := range []string{"office", ""} {
		v := api.NewNetwork()
		v.NameLabel, v.Bridge = name, "xenbr7"
		add(fmt.Sprint("Ref:net", n), v)
	}
	return d
}

func TestDescribe(t *testing.T) {
	d, disks := Describe(sample())
	for i := range d.Files {
		d.Files[i].Size = int64(i + 1)
	}
	xml, err := d.Append(nil)
	must(t, err)
	golden.Equal(t, "testdata/described.xml", string(xml))
	if !reflect.DeepEqual(disks, []string{"Ref:root", "Ref:data"}) {
		t.Error(disks)
	}
	again, err := ovf.Parse(xml)
	must(t, err)
	back := Document(here(t), again)
	m := ova.Find[api.VM](back, "system 0")
	if m.NameLabel != "web & more" || m.NameDescription != "sells" || m.MemoryStaticMax != 3<<30 || m.VCPUsMax != 4 || m.HVMBootParams["firmware"] != "uefi" || !reflect.DeepEqual(m.Platform, map[string]string{"secureboot": "true", "cores-per-socket": "2", "vga": "std"}) {
		t.Errorf("%+v", m)
	}
	if v := ova.Find[api.VDI](back, "vmdisk2"); v == nil || v.VirtualSize != 2<<30 {
		t.Errorf("%s", text(back))
	}
}

func TestGuests(t *testing.T) {
	m := api.NewVM()
	if d, _ := Describe(&ova.Document{Objects: []ova.Object{{ID: "x", Record: m}}}); d.Systems[0].Guest != other || d.Systems[0].Name != "vm" {
		t.Errorf("%+v", d.Systems[0])
	}
	m.Platform = map[string]string{"viridian": "true"}
	if d, _ := Describe(&ova.Document{Objects: []ova.Object{{ID: "x", Record: m}}}); !d.Systems[0].Guest.Windows() {
		t.Errorf("%+v", d.Systems[0])
	}
}

func TestFileName(t *testing.T) {
	for name, want := range map[string]string{"web": "web", "a b/c": "a-b-c", "../../etc": "etc", "": "vm", "äöü": "vm", "-": "vm", strings.Repeat("x", 200): strings.Repeat("x", maxBase)} {
		if got := FileName(name); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

// FuzzPlan: whatever a descriptor says can be planned or is refused.
func FuzzPlan(f *testing.F) {
	files, err := filepath.Glob(samples)
	must(f, err)
	for _, name := range files {
		xml, err := os.ReadFile(name)
		must(f, err)
		f.Add(xml)
	}
	r := here(f)
	f.Fuzz(func(t *testing.T, xml []byte) {
		d, err := ovf.Parse(xml)
		if err != nil {
			return
		}
		p, err := plan.New(r, Document(r, d), plan.Options{})
		if err != nil {
			return
		}
		for _, one := range p.VMs {
			_ = vm.CheckSizes(one.Record)
			for _, drive := range one.Drives {
				if drive.Disk != plan.None && p.Sizes[p.Disks[drive.Disk].ID] <= 0 {
					t.Errorf("%+v", drive)
				}
			}
		}
	})
}
