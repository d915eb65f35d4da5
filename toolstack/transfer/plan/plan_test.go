package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cairn/golden"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/transfer/ova"
)

func uuidOf(n int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012x", n) }

// Numbers of the objects of the description and of those here.
const (
	uWeb = 0x10 + iota
	uSnap
	uDisk
	uDiskSnap
	uCD
	uDrive
	uSnapDrive
	uNIC
	uSR
	uNet
	uISO
	uMemory
)

// sample describes a VM with a disk, a CD, a NIC, and a snapshot of it.
func sample() *ova.Document {
	web, snap := api.NewVM(), api.NewVM()
	web.UUID, web.NameLabel, web.HVMBootPolicy = uuidOf(uWeb), "web", "BIOS order"
	web.OtherConfig = map[string]string{"mac_seed": "seed", "color": "red"}
	web.Version, web.HARestartPriority, web.Parent = 3, "restart", "Ref:1"
	web.ResidentOn, web.SuspendSR, web.Appliance = "Ref:90", "Ref:8", "Ref:91"
	snap.UUID, snap.NameLabel, snap.IsASnapshot, snap.IsATemplate, snap.SnapshotOf = uuidOf(uSnap), "before", true, true, "Ref:0"
	snap.OtherConfig, snap.SnapshotMetadata, snap.Version = map[string]string{"mac_seed": "seed"}, "{}", 3
	disk, diskSnap, cd := vdi(uDisk, 5<<30, "Ref:8"), vdi(uDiskSnap, 4<<30, "Ref:8"), vdi(uCD, 1<<20, "Ref:9")
	diskSnap.IsASnapshot, diskSnap.SnapshotOf = true, "Ref:2"
	cd.Location = "debian.iso"
	nic := api.NewVIF()
	nic.UUID, nic.VM, nic.Network, nic.Device, nic.MAC = uuidOf(uNIC), "Ref:0", "Ref:10", "0", "02:00:00:00:00:10"
	sr, iso, network := api.NewSR(), api.NewSR(), api.NewNetwork()
	sr.UUID, iso.UUID, iso.ContentType = uuidOf(uSR), uuidOf(uISO), "iso"
	network.UUID, network.NameLabel, network.Bridge, network.MTU = uuidOf(uNet), "office", "xenbr7", 1500
	return &ova.Document{Version: ova.Current("h", "d", "Cairn", "1", "1"), Objects: []ova.Object{
		{ID: "Ref:0", Record: web}, {ID: "Ref:1", Record: snap},
		{ID: "Ref:2", Record: disk}, {ID: "Ref:3", Record: diskSnap}, {ID: "Ref:4", Record: cd},
		{ID: "Ref:5", Record: vbd(uDrive, "Ref:0", "Ref:2", "0", api.VBDTypeDisk)},
		{ID: "Ref:6", Record: vbd(uSnapDrive, "Ref:1", "Ref:3", "0", api.VBDTypeDisk)},
		{ID: "Ref:7", Record: vbd(uDrive+100, "Ref:0", "Ref:4", "hdd", api.VBDTypeCD)},
		{ID: "Ref:8", Record: sr}, {ID: "Ref:9", Record: iso}, {ID: "Ref:10", Record: network}, {ID: "Ref:11", Record: nic},
		{ID: "Ref:12", Record: vdi(0x99, 1<<20, "Ref:8")}, // that nobody uses
	}}
}

func vdi(n int, size int64, sr api.SRRef) *api.VDI {
	v := api.NewVDI()
	v.UUID, v.VirtualSize, v.SR, v.Location, v.Managed = uuidOf(n), size, sr, uuidOf(n), true
	return v
}

func vbd(n int, vm api.VMRef, disk api.VDIRef, place string, kind api.VBDType) *api.VBD {
	v := api.NewVBD()
	v.UUID, v.VM, v.VDI, v.Userdevice, v.Type, v.Mode = uuidOf(n), vm, disk, place, kind, api.VBDModeRW
	return v
}

// here is what there is where the import comes to.
type here struct{ tx *db.Tx }

func (h here) sr(ref api.SRRef, n int) *api.SR {
	sr := api.NewSR()
	sr.UUID, sr.Type, sr.PBDs = uuidOf(n), "ext", nil
	db.InsertAs(h.tx, ref, sr)
	pbd := api.NewPBD()
	pbd.SR, pbd.CurrentlyAttached, pbd.Host = ref, true, "OpaqueRef:host"
	db.Insert(h.tx, pbd)
	return sr
}

func (h here) vm(ref api.VMRef, n int) *api.VM {
	vm := api.NewVM()
	vm.UUID = uuidOf(n)
	db.InsertAs(h.tx, ref, vm)
	return vm
}

// world has a default repository for disks, and nothing of the sample.
func world(h here) {
	pool := api.NewPool()
	pool.DefaultSR = "OpaqueRef:default"
	db.Insert(h.tx, pool)
	driver := api.NewSM()
	driver.Type, driver.Features = "ext", map[string]int64{"VDI_CREATE": 1}
	db.Insert(h.tx, driver)
	h.sr("OpaqueRef:default", 1)
}

func snapshotOf(t *testing.T, fill func(here)) *db.Snapshot {
	t.Helper()
	d, err := db.Open(context.Background(), db.NewMemory(), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := d.Update(t.Context(), func(tx *db.Tx) error { world(here{tx}); fill(here{tx}); return nil }); err != nil {
		t.Fatal(err)
	}
	return d.Snapshot()
}

// get is a described record, to be changed.
func get[T any, P api.RecordPtr[T]](d *ova.Document, id string) *T {
	r := ova.Find[T, P](d, id)
	if r == nil {
		panic("no " + id)
	}
	return r
}

func suspend(d *ova.Document) {
	vm := get[api.VM](d, "Ref:0")
	vm.PowerState, vm.SuspendVDI = api.VMPowerStateSuspended, "Ref:20"
	memory := vdi(uMemory, 1<<30, "Ref:8")
	memory.Type = api.VDITypeSuspend
	d.Objects = append(d.Objects, ova.Object{ID: "Ref:20", Record: memory})
	get[api.VBD](d, "Ref:5").CurrentlyAttached = true
}

// checkpoint gives the snapshot memory.
func checkpoint(d *ova.Document) {
	suspend(d)
	vm, s := get[api.VM](d, "Ref:0"), get[api.VM](d, "Ref:1")
	s.PowerState, s.SuspendVDI = vm.PowerState, vm.SuspendVDI
	vm.PowerState, vm.SuspendVDI = api.VMPowerStateHalted, ""
}

// twoTPMs are one more than a VM may have.
func twoTPMs(d *ova.Document) {
	v := api.NewVTPM()
	v.VM, v.IsUnique = "Ref:0", true
	d.Objects = append(d.Objects, ova.Object{ID: "Ref:21", Record: v}, ova.Object{ID: "Ref:22", Record: v.Clone()})
}

var restore = Options{Restore: true, Brand: "Cairn"}

var cases = []struct {
	name string
	o    Options
	edit func(*ova.Document)
	here func(here)
}{
	{name: "new"},
	{name: "on a repository", o: Options{SR: "OpaqueRef:second"}, here: func(h here) { h.sr("OpaqueRef:second", 2) }},
	{name: "on one that is not there", o: Options{SR: "OpaqueRef:nowhere"}},
	{name: "on one of images", o: Options{SR: "OpaqueRef:second"}, here: func(h here) { h.sr("OpaqueRef:second", 2).Type = "iso" }},
	{name: "no default", here: func(h here) { noDefault(h) }},
	{name: "no default, but where it was", here: func(h here) { noDefault(h); h.sr("OpaqueRef:was", uSR) }},
	{name: "restore", o: restore},
	{name: "restore where uuids are taken", o: restore, here: func(h here) {
		v := api.NewVBD()
		v.UUID, v.VM = uuidOf(uDrive), "OpaqueRef:other"
		db.Insert(h.tx, v)
	}},
	{name: "restore over an older", o: restore, here: func(h here) { h.vm("OpaqueRef:old", uWeb).Version = 2 }},
	{name: "restore over as new a one", o: restore, here: func(h here) { h.vm("OpaqueRef:old", uWeb).Version = 3 }},
	{name: "forced restore over as new a one", o: Options{Restore: true, Force: true}, here: func(h here) { h.vm("OpaqueRef:old", uWeb).Version = 3 }},
	{name: "restore over a running one", o: restore, here: func(h here) { h.vm("OpaqueRef:old", uWeb).PowerState = api.VMPowerStateRunning }},
	{name: "forced restore over a running one", o: Options{Restore: true, Force: true}, here: func(h here) { h.vm("OpaqueRef:old", uWeb).PowerState = api.VMPowerStateRunning }},
	{name: "restore over a template of every host", o: restore, here: func(h here) { h.vm("OpaqueRef:old", uWeb).IsDefaultTemplate = true }},
	{name: "import beside the same", here: func(h here) { h.vm("OpaqueRef:old", uWeb).OtherConfig = map[string]string{"mac_seed": "seed"} }},
	{name: "restore beside the same MACs", o: restore, here: func(h here) { h.vm("OpaqueRef:old", 0x77).OtherConfig = map[string]string{"mac_seed": "seed"} }},
	{name: "restore beside its own snapshot", o: restore, here: func(h here) {
		h.vm("OpaqueRef:old", uWeb)
		s := h.vm("OpaqueRef:snap", 0x78)
		s.IsASnapshot, s.SnapshotOf, s.OtherConfig = true, "OpaqueRef:old", map[string]string{"mac_seed": "seed"}
	}},
	{name: "suspended, new", edit: suspend},
	{name: "suspended, restored", o: restore, edit: suspend},
	{name: "suspended, restored, of another product", o: restore, edit: func(d *ova.Document) { suspend(d); d.Version.ProductBrand = "XCP-ng" }},
	{name: "suspended, restored with other devices", o: restore, edit: suspend, here: func(h here) {
		v := api.NewVIF()
		v.UUID, v.VM = uuidOf(uNIC), "OpaqueRef:other"
		db.Insert(h.tx, v)
	}},
	{name: "suspended, without its memory", o: restore, edit: func(d *ova.Document) { suspend(d); get[api.VM](d, "Ref:0").SuspendVDI = "Ref:55" }},
	{name: "checkpoint, new", edit: checkpoint},
	{name: "checkpoint, restored", o: restore, edit: checkpoint},
	{name: "checkpoint, restored, its VM with other devices", o: restore, edit: checkpoint, here: func(h here) {
		v := api.NewVIF()
		v.UUID, v.VM = uuidOf(uNIC), "OpaqueRef:other"
		db.Insert(h.tx, v)
	}},
	{name: "metadata, nothing here", o: Options{Metadata: true}},
	{name: "metadata", o: Options{Metadata: true}, here: disksHere},
	{name: "metadata with other disks", o: Options{Metadata: true, Disks: map[string]string{uuidOf(uDisk): uuidOf(0x50)}}, here: func(h here) {
		db.InsertAs(h.tx, "OpaqueRef:replica", vdi(0x50, 5<<30, "OpaqueRef:default"))
	}},
	{name: "metadata by location", o: Options{Metadata: true}, here: func(h here) {
		h.sr("OpaqueRef:was", uSR)
		v := vdi(0x50, 5<<30, "OpaqueRef:was")
		v.Location = uuidOf(uDisk)
		db.InsertAs(h.tx, "OpaqueRef:found", v)
	}},
	{name: "metadata of a suspended VM without its disks", o: Options{Metadata: true}, edit: suspend},
	{name: "forced metadata of a suspended VM without its disks", o: Options{Metadata: true, Force: true}, edit: suspend},
	{name: "disc here", here: func(h here) {
		h.sr("OpaqueRef:isos", 0x60).ContentType = "iso"
		v := vdi(0x61, 1<<20, "OpaqueRef:isos")
		v.Location = "debian.iso"
		db.InsertAs(h.tx, "OpaqueRef:disc", v)
	}},
	{name: "network by uuid", here: func(h here) { aNetwork(h, "OpaqueRef:net", uNet, "other", "b") }},
	{name: "network by name", here: func(h here) { aNetwork(h, "OpaqueRef:net", 7, "office", "b") }},
	{name: "network by bridge", here: func(h here) { aNetwork(h, "OpaqueRef:net", 7, "other", "xenbr7") }},
	{name: "two NICs, one network", edit: func(d *ova.Document) {
		v := get[api.VIF](d, "Ref:11").Clone()
		v.UUID, v.Device, v.MAC = uuidOf(0x30), "1", "02:00:00:00:00:11"
		d.Objects = append(d.Objects, ova.Object{ID: "Ref:21", Record: v})
	}},
	{name: "snapshot alone", edit: func(d *ova.Document) { d.Objects = slices.Delete(d.Objects, 0, 1); keepOf(d, "Ref:1") }},
	{name: "template", edit: func(d *ova.Document) { get[api.VM](d, "Ref:0").IsATemplate = true }},
	{name: "template of every host", edit: func(d *ova.Document) { get[api.VM](d, "Ref:0").IsDefaultTemplate = true }},
	{name: "control domain", edit: func(d *ova.Document) { get[api.VM](d, "Ref:0").IsControlDomain = true }},
	{name: "TPM", edit: twoTPMs},
	{name: "TPM of a VM that is left out", o: Options{Restore: true, Force: true}, edit: twoTPMs, here: func(h here) { h.vm("OpaqueRef:old", uWeb).PowerState = api.VMPowerStateRunning }},
	{name: "TPM of nobody", edit: func(d *ova.Document) { twoTPMs(d); get[api.VTPM](d, "Ref:21").VM = "Ref:77" }},
	{name: "newer form", edit: func(d *ova.Document) { d.Version.Export = 9 }},
	{name: "no VM", edit: func(d *ova.Document) { d.Objects = nil }},
	{name: "drive of nobody", edit: func(d *ova.Document) { get[api.VBD](d, "Ref:5").VM = "Ref:77" }},
	{name: "drive of a disk that is not described", edit: func(d *ova.Document) { get[api.VBD](d, "Ref:5").VDI = "Ref:77" }},
	{name: "drive of no disk", edit: func(d *ova.Document) { get[api.VBD](d, "Ref:5").VDI = "" }},
	{name: "drive nowhere", edit: func(d *ova.Document) { get[api.VBD](d, "Ref:5").Userdevice = "../0" }},
	{name: "two drives in one place", edit: func(d *ova.Document) { get[api.VBD](d, "Ref:7").Userdevice = "xvda" }},
	{name: "floppy", edit: func(d *ova.Document) { get[api.VBD](d, "Ref:7").Type = api.VBDTypeFloppy }},
	{name: "disk without a size", edit: func(d *ova.Document) { get[api.VDI](d, "Ref:2").VirtualSize = 0 }},
	{name: "disk of a negative size", edit: func(d *ova.Document) { get[api.VDI](d, "Ref:2").VirtualSize = -1 << 63 }},
	{name: "one disk in two VMs", edit: func(d *ova.Document) { get[api.VBD](d, "Ref:6").VDI = "Ref:2" }},
	{name: "NIC of nobody", edit: func(d *ova.Document) { get[api.VIF](d, "Ref:11").VM = "" }},
	{name: "NIC nowhere", edit: func(d *ova.Document) { get[api.VIF](d, "Ref:11").Device = "7" }},
	{name: "NIC in no network", edit: func(d *ova.Document) { get[api.VIF](d, "Ref:11").Network = "" }},
	{name: "NIC with the MAC of a group", o: restore, edit: func(d *ova.Document) { get[api.VIF](d, "Ref:11").MAC = "01:00:5e:00:00:01" }},
	{name: "network of tiny frames", edit: func(d *ova.Document) { get[api.Network](d, "Ref:10").MTU = 7 }},
	{name: "parents in a circle", edit: func(d *ova.Document) { get[api.VM](d, "Ref:1").Parent = "Ref:0" }},
	{name: "snapshot of a snapshot", edit: func(d *ova.Document) {
		s := get[api.VM](d, "Ref:1").Clone()
		s.SnapshotOf, s.Parent = "Ref:1", "Ref:21"
		d.Objects = append(d.Objects, ova.Object{ID: "Ref:21", Record: s})
	}},
}

func noDefault(h here) {
	for ref := range db.All[api.Pool](h.tx) {
		if p, err := db.Edit(h.tx, ref); err == nil {
			p.DefaultSR = "OpaqueRef:gone"
		}
	}
}

func disksHere(h here) {
	db.InsertAs(h.tx, "OpaqueRef:disk", vdi(uDisk, 5<<30, "OpaqueRef:default"))
	db.InsertAs(h.tx, "OpaqueRef:snap", vdi(uDiskSnap, 4<<30, "OpaqueRef:default"))
	hidden := vdi(uCD, 1, "OpaqueRef:default")
	hidden.Managed = false
	db.Insert(h.tx, hidden)
}

func aNetwork(h here, ref api.NetworkRef, n int, name, bridge string) {
	r := api.NewNetwork()
	r.UUID, r.NameLabel, r.Bridge = uuidOf(n), name, bridge
	db.InsertAs(h.tx, ref, r)
}

// keepOf leaves out the drives and NICs of other VMs.
func keepOf(d *ova.Document, vm string) {
	d.Objects = slices.DeleteFunc(d.Objects, func(o ova.Object) bool {
		switch r := o.Record.(type) {
		case *api.VBD:
			return string(r.VM) != vm
		case *api.VIF:
			return string(r.VM) != vm
		}
		return false
	})
}

func TestPlans(t *testing.T) {
	var b strings.Builder
	for _, c := range cases {
		d := sample()
		if c.edit != nil {
			c.edit(d)
		}
		if c.here == nil {
			c.here = func(here) {}
		}
		p, err := New(snapshotOf(t, c.here), d, c.o)
		fmt.Fprintf(&b, "== %s\n", c.name)
		if err != nil {
			var known *api.Error
			if !errors.As(err, &known) {
				t.Errorf("%s: %v", c.name, err)
			}
			fmt.Fprintf(&b, "refused: %v\n", err)
			continue
		}
		b.WriteString(tell(d, p))
	}
	golden.Equal(t, "testdata/plans.txt", b.String())
}

// tell says what a plan is, with "new" for uuids and seeds that were made up.
func tell(d *ova.Document, p *Plan) string {
	var b strings.Builder
	old := func(text string) string {
		if strings.HasPrefix(text, "00000000-") || text == "seed" {
			return strings.TrimPrefix(text, "00000000-0000-0000-0000-0000000000")
		}
		return "new"
	}
	fmt.Fprintf(&b, "on %s, %d described\n", p.SR, len(p.Sizes))
	for i, k := range p.Disks {
		fmt.Fprintf(&b, "disk %d: %s here=%s of=%d\n", i, k.ID, k.Here, k.Of)
	}
	for i, n := range p.Networks {
		fmt.Fprintf(&b, "network %d: %s %s bridge=%q\n", i, old(n.Record.UUID), n.Record.NameLabel, n.Record.Bridge)
	}
	for i, vm := range p.VMs {
		r := vm.Record
		fmt.Fprintf(&b, "vm %d: %s %s %q template=%v seed=%s ha=%q of=%d parent=%d memory=%d replaces=%s suspendSR=%s meta=%q\n", i, vm.ID, old(r.UUID), r.NameLabel, r.IsATemplate,
			old(r.OtherConfig["mac_seed"]), r.HARestartPriority, vm.Of, vm.Parent, vm.Memory, vm.Replaces, r.SuspendSR, r.SnapshotMetadata)
		for _, k := range vm.Drives {
			fmt.Fprintf(&b, "  drive %s: %s %s %s disk=%d vdi=%s empty=%v\n", k.Record.Userdevice, old(k.Record.UUID), k.Record.Type, k.Record.Mode, k.Disk, k.Record.VDI, k.Record.Empty)
		}
		for _, k := range vm.NICs {
			mac := k.Record.MAC
			if k.Record.MACAutogenerated {
				mac = "new"
			}
			fmt.Fprintf(&b, "  nic %s: %s %s network=%d %s\n", k.Record.Device, old(k.Record.UUID), mac, k.Network, k.Record.Network)
		}
		for _, k := range vm.TPMs {
			fmt.Fprintf(&b, "  tpm unique=%v\n", k.IsUnique)
		}
	}
	return b.String()
}

// TestPlanLeavesDescription: a plan is made of copies.
func TestPlanLeavesDescription(t *testing.T) {
	d := sample()
	before := string(d.Append(nil))
	if _, err := New(snapshotOf(t, disksHere), d, Options{}); err != nil {
		t.Fatal(err)
	}
	if string(d.Append(nil)) != before {
		t.Error("the description has changed")
	}
}

// FuzzPlan plans what nobody has thought of. A plan holds nothing but what it says it
// holds.
func FuzzPlan(f *testing.F) {
	d, err := db.Open(context.Background(), db.NewMemory(), db.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { d.Close() })
	if err := d.Update(context.Background(), func(tx *db.Tx) error { world(here{tx}); disksHere(here{tx}); return nil }); err != nil {
		f.Fatal(err)
	}
	f.Add(sample().Append(nil), byte(0))
	f.Add(sample().Append(nil), byte(7))
	f.Fuzz(func(t *testing.T, text []byte, how byte) {
		doc, err := ova.Parse(text)
		if err != nil {
			return
		}
		p, err := New(d.Snapshot(), doc, Options{Restore: how&1 != 0, Force: how&2 != 0, Metadata: how&4 != 0, Brand: "Cairn"})
		if err != nil {
			return
		}
		within := func(what string, at, n int) {
			if at < None || at >= n {
				t.Fatalf("%s %d of %d", what, at, n)
			}
		}
		for i, vm := range p.VMs {
			within("original", vm.Of, len(p.VMs))
			within("parent", vm.Parent, len(p.VMs))
			within("memory", vm.Memory, len(p.Disks))
			if vm.Of == i || vm.Parent == i {
				t.Fatal("a VM is its own")
			}
			for _, k := range vm.Drives {
				within("disk", k.Disk, len(p.Disks))
			}
			for _, k := range vm.NICs {
				within("network", k.Network, len(p.Networks))
			}
		}
		for _, k := range p.Disks {
			within("disk", k.Of, len(p.Disks))
			if !p.knows(k) {
				t.Fatalf("disk %s of %d bytes", k.ID, k.Record.VirtualSize)
			}
		}
	})
}

// knows reports whether a disk is here, or can be made.
func (p *Plan) knows(d Disk) bool { return d.Here != "" || p.Sizes[d.ID] > 0 && p.SR != "" }

// TestBounds: what a name or another field holds is bounded.
func TestBounds(t *testing.T) {
	r := snapshotOf(t, func(here) {})
	for _, c := range []struct {
		name   string
		edit   func(*api.VM)
		refuse bool
	}{
		{"a long name", func(vm *api.VM) { vm.NameLabel = strings.Repeat("n", maxName-2) }, false},
		{"a longer one", func(vm *api.VM) { vm.NameLabel = strings.Repeat("n", maxName-1) }, true},
		{"a book", func(vm *api.VM) { vm.NameDescription = strings.Repeat("n", 10<<20) }, true},
		{"variables", func(vm *api.VM) { vm.NVRAM = map[string]string{"EFI-variables": strings.Repeat("n", 200<<10)} }, false},
		{"more than there are", func(vm *api.VM) { vm.NVRAM = map[string]string{"EFI-variables": strings.Repeat("n", maxField)} }, true},
	} {
		doc := sample()
		c.edit(doc.Objects[0].Record.(*api.VM))
		_, err := New(r, doc, Options{})
		var known *api.Error
		if refused := errors.As(err, &known) && known.Code == api.CodeImportError; refused != c.refuse || !refused && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
