package machine_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
	"cairn/toolstack/transfer/ova"
	"cairn/toolstack/transfer/xva"
	"cairn/toolstack/wire/wiretest"
)

// snapshot gives a VM one, whose disks hold what the VM's do now.
func (r *rig) snapshot(of api.VMRef, name string) (api.VMRef, []api.VDIRef) {
	r.T.Helper()
	original := wiretest.Get(r.Server, of)
	ref, vdis := r.insert(name, func(s *api.VM) {
		s.IsASnapshot, s.IsATemplate, s.SnapshotOf = true, true, of
		s.OtherConfig["mac_seed"] = original.OtherConfig["mac_seed"]
		s.SnapshotTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		s.SnapshotInfo = map[string]string{"power-state-at-snapshot": "Halted"}
	})
	disks := r.vdis(of)
	r.update(func(tx *db.Tx) {
		for i, vdi := range vdis {
			if v, err := db.Edit(tx, vdi); err == nil {
				v.IsASnapshot, v.SnapshotOf, v.SnapshotTime = true, disks[i], time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			}
		}
		if vm, err := db.Edit(tx, of); err == nil {
			vm.Parent = ref
		}
	})
	return ref, vdis
}

func TestSnapshots(t *testing.T) {
	r := newRig(t)
	from, vdis := r.insert("web", nil)
	snap, old := r.snapshot(from, "before")
	without := r.get("/export?ref=" + string(from))
	if made := r.mustImport("", without); len(wiretest.Get(r.Server, made).Snapshots) != 0 {
		t.Error("snapshots come unasked")
	}
	b := r.get("/export?include_snapshots=true&ref=" + string(from))
	made := r.mustImport("", b)
	now := wiretest.Get(r.Server, made)
	if len(now.Snapshots) != 1 || now.Parent != now.Snapshots[0] {
		t.Fatalf("%+v", now)
	}
	r.same(vdis, r.vdis(made))
	r.same(old, r.vdis(now.Snapshots[0]))
	s := wiretest.Get(r.Server, now.Snapshots[0])
	if s.NameLabel != "before" || !s.IsASnapshot || !s.IsATemplate || s.SnapshotTime.Year() != 2026 || s.SnapshotInfo["power-state-at-snapshot"] != "Halted" || s.OtherConfig["mac_seed"] != now.OtherConfig["mac_seed"] {
		t.Errorf("%+v", s)
	}
	if a, b := wiretest.Get(r.Server, now.VIFs[0]), wiretest.Get(r.Server, s.VIFs[0]); a.MAC != b.MAC {
		t.Errorf("the VM has %s, its snapshot %s", a.MAC, b.MAC)
	}
	for i, vdi := range r.vdis(now.Snapshots[0]) {
		if v := wiretest.Get(r.Server, vdi); !v.IsASnapshot || v.SnapshotOf != r.vdis(made)[i] || v.SnapshotTime.Year() != 2026 {
			t.Errorf("disk %d: %+v", i, v)
		}
	}

	template := r.mustImport("", r.get("/export?ref="+string(snap)))
	if v := wiretest.Get(r.Server, template); v.IsASnapshot || !v.IsATemplate || v.NameLabel != "before" || v.SnapshotOf != "" {
		t.Errorf("a snapshot on its own is %+v", v)
	}
	r.same(old, r.vdis(template))

	// Restored over, the snapshots that were not described are those of the new VM.
	again := r.mustImport("&restore=1&force=1", without)
	if v := wiretest.Get(r.Server, again); !slices.Equal(v.Snapshots, []api.VMRef{snap}) {
		t.Errorf("%v", v.Snapshots)
	}
}

// TestRestoreOfATree: what was taken of a VM after it was exported stands by the new VM
// and the new snapshots as it stood by the old ones.
func TestRestoreOfATree(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	first, _ := r.snapshot(from, "first")
	b := r.get("/export?include_snapshots=true&ref=" + string(from))
	second, _ := r.snapshot(from, "second")
	offshoot, _ := r.insert("offshoot", nil)
	r.update(func(tx *db.Tx) {
		for ref, parent := range map[api.VMRef]api.VMRef{second: first, offshoot: from} {
			vm, err := db.Edit(tx, ref)
			must(t, err)
			vm.Parent = parent
		}
	})

	made := r.mustImport("&restore=true&force=true", b)
	now := wiretest.Get(r.Server, made)
	root := now.Parent
	if root == "" || root == first || root == second {
		t.Fatalf("the VM's parent is %q", root)
	}
	if s := wiretest.Get(r.Server, root); s.NameLabel != "first" || s.SnapshotOf != made || s.Parent != "" || !among(s.Children, made, second) {
		t.Errorf("the first snapshot: of %s, parent %q, children %v", s.SnapshotOf, s.Parent, s.Children)
	}
	if s := wiretest.Get(r.Server, second); s.SnapshotOf != made || s.Parent != root || len(s.Children) != 0 {
		t.Errorf("the second snapshot: of %s, parent %q, children %v", s.SnapshotOf, s.Parent, s.Children)
	}
	if !among(now.Snapshots, root, second) || !among(now.Children, offshoot) {
		t.Errorf("the VM: snapshots %v, children %v", now.Snapshots, now.Children)
	}
	if s := wiretest.Get(r.Server, offshoot); s.Parent != made {
		t.Errorf("what came of the VM: parent %q", s.Parent)
	}
}

// among reports whether a set has these members, in whatever order.
func among(set []api.VMRef, want ...api.VMRef) bool {
	slices.Sort(want)
	return slices.Equal(slices.Sorted(slices.Values(set)), want)
}

// suspended gives a VM memory, as a suspend does.
func (r *rig) suspended() (api.VMRef, api.VDIRef) {
	r.T.Helper()
	memory, err := r.disks.Create(r.T.Context(), storage.CreateSpec{SR: r.sr, Size: 2 * mib, Name: "memory", Type: api.VDITypeSuspend})
	must(r.T, err)
	_, err = r.disks.memory(memory).WriteAt(noise(9, 2*mib), 0)
	must(r.T, err)
	ref, _ := r.insert("asleep", func(vm *api.VM) { vm.PowerState, vm.SuspendVDI = api.VMPowerStateSuspended, memory })
	return ref, memory
}

func TestSuspended(t *testing.T) {
	r := newRig(t)
	from, memory := r.suspended()
	b := r.get("/export?preserve_power_state=true&ref=" + string(from))
	if v := wiretest.Get(r.Server, r.mustImport("", b)); v.PowerState != api.VMPowerStateHalted || v.SuspendVDI != "" || len(v.VBDs) != 3 {
		t.Errorf("what is somebody else cannot wake up: %+v", v)
	}
	r.update(func(tx *db.Tx) { // as if destroyed
		vm, err := db.Get(tx, from)
		must(t, err)
		for _, v := range vm.VBDs {
			must(t, db.Delete(tx, v))
		}
		must(t, db.Delete(tx, vm.VIFs[0]))
		must(t, db.Delete(tx, from))
	})
	made := r.mustImport("&restore=true", b)
	v := wiretest.Get(r.Server, made)
	if v.PowerState != api.VMPowerStateSuspended || v.SuspendVDI == "" || !slices.Contains(v.AllowedOperations, api.VMOperationsResume) {
		t.Fatalf("%+v", v)
	}
	r.same([]api.VDIRef{memory}, []api.VDIRef{v.SuspendVDI})
	if d := wiretest.Get(r.Server, v.SuspendVDI); d.Type != api.VDITypeSuspend || d.SMConfig["made-for"] != "" {
		t.Errorf("%+v", d)
	}
	if d := wiretest.Get(r.Server, r.mustImport("", r.get("/export?ref="+string(made)))); d.PowerState != api.VMPowerStateHalted {
		t.Error("memory goes along unasked")
	}
}

// members are the names in an archive, in order, without checksums.
func members(t *testing.T, b []byte) (names []string, xml []byte) {
	t.Helper()
	in := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := in.Next()
		if err == io.EOF {
			return names, xml
		}
		must(t, err)
		if h.Name == "ova.xml" {
			xml, err = io.ReadAll(in)
			must(t, err)
		}
		if !strings.HasSuffix(h.Name, ".xxhash") {
			names = append(names, h.Name)
		}
	}
}

func TestMetadata(t *testing.T) {
	r := newRig(t)
	from, vdis := r.insert("web", nil)
	r.snapshot(from, "before")
	b := r.get("/export_metadata?ref=" + string(from))
	names, xml := members(t, b)
	d, err := ova.Parse(xml)
	must(t, err)
	count := map[string]int{}
	for _, o := range d.Objects {
		count[o.Record.Class().Name]++
	}
	if fmt.Sprint(names, count) != "[ova.xml] map[SR:1 VBD:6 VDI:4 VIF:2 VM:2 network:1]" {
		t.Errorf("%v %v", names, count)
	}
	if d.Version.ProductBrand != "Cairn" || d.Version.Hostname != "here" {
		t.Errorf("%+v", d.Version)
	}
	before := r.state()
	put := func(query string) ([]string, error) {
		return r.put("/import_metadata?"+query, bytes.NewReader(b), int64(len(b)))
	}
	if refs, err := put("dry_run=true"); err != nil || len(refs) != 0 {
		t.Error(refs, err)
	}
	r.unchanged("dry run", before)
	refs, err := put("force=true")
	if err != nil || len(refs) != 1 {
		t.Fatal(refs, err)
	}
	if got := r.vdis(api.VMRef(refs[0])); !slices.Equal(got, vdis) {
		t.Errorf("disks %v, want those that are here: %v", got, vdis)
	}
	for _, vdi := range vdis {
		if v := wiretest.Get(r.Server, vdi); v.IsASnapshot {
			t.Errorf("%+v", v)
		}
	}
	other := r.newDisk("replica", noise(3, 6*mib))
	refs, err = put("vdi:" + url.QueryEscape(wiretest.Get(r.Server, vdis[0]).UUID) + "=" + wiretest.Get(r.Server, other).UUID)
	if err != nil || len(refs) != 1 || r.vdis(api.VMRef(refs[0]))[0] != other {
		t.Errorf("%v %v", refs, err)
	}
	_, xml = members(t, r.get("/export_metadata?export_snapshots=false&excluded_device_types=vif,VBD&ref="+string(from)))
	if d, err = ova.Parse(xml); err != nil || len(d.Objects) != 1 {
		t.Errorf("%d objects, %v", len(d.Objects), err)
	}
	_, xml = members(t, r.get("/export_metadata?all=true"))
	if d, err = ova.Parse(xml); err != nil {
		t.Fatal(err)
	}
	vms := 0
	for _, o := range d.Objects {
		if vm, ok := o.Record.(*api.VM); ok {
			vms++
			if vm.IsDefaultTemplate || vm.IsControlDomain {
				t.Errorf("%s is described", vm.NameLabel)
			}
		}
	}
	if vms != 6 {
		t.Errorf("%d VMs are described, want three and a snapshot of each", vms)
	}
}

// TestOtherPool: what an archive needs and is not here is made, or left empty.
func TestOtherPool(t *testing.T) {
	r := newRig(t)
	from, vdis := r.insert("web", nil)
	b := r.get("/export?ref=" + string(from))
	names, _ := members(t, b)
	if names[0] != "ova.xml" || !strings.HasSuffix(names[1], "/00000000") || len(names) < 5 {
		t.Errorf("%v", names)
	}
	there := newRig(t)
	there.update(func(tx *db.Tx) {
		n, err := db.Edit(tx, there.net)
		must(t, err)
		n.NameLabel = "other" // but of the same bridge
	})
	made := there.mustImport("", b)
	if v := wiretest.Get(there.Server, wiretest.Get(there.Server, made).VIFs[0]); v.Network != there.net {
		t.Errorf("%+v", v)
	}
	there.update(func(tx *db.Tx) {
		n, err := db.Edit(tx, there.net)
		must(t, err)
		n.Bridge = "xenbr7"
	})
	made = there.mustImport("", b)
	nic := wiretest.Get(there.Server, wiretest.Get(there.Server, made).VIFs[0])
	if n := wiretest.Get(there.Server, nic.Network); n.NameLabel != "office" || n.Bridge != "xapi0" || !n.Managed {
		t.Errorf("%+v", n)
	}
	for i, vdi := range there.vdis(made) {
		if !bytes.Equal(there.disks.memory(vdi).Bytes(), r.disks.memory(vdis[i]).Bytes()) {
			t.Errorf("disk %d differs", i)
		}
	}
}

// TestLarge: a disk of 5 TiB that is nearly empty is a small archive, and comes back as
// sparse as it was.
func TestLarge(t *testing.T) {
	r := newRig(t)
	const size = 5 << 40
	ref, _ := r.insert("large", nil)
	big, err := r.disks.Create(t.Context(), storage.CreateSpec{SR: r.sr, Size: size, Name: "big"})
	must(t, err)
	for _, at := range []int64{4<<40 + 12345, size - 512} {
		_, err = r.disks.memory(big).WriteAt([]byte("here"), at)
		must(t, err)
	}
	r.update(func(tx *db.Tx) {
		v := api.NewVBD()
		v.UUID, v.VM, v.VDI, v.Userdevice, v.Type, v.Mode = api.NewUUID(), ref, big, "7", api.VBDTypeDisk, api.VBDModeRW
		db.Insert(tx, v)
	})
	b := r.get("/export?ref=" + string(ref) + "&use_compression=zstd")
	if len(b) > 20*mib {
		t.Errorf("the archive has %d bytes", len(b))
	}
	made := r.vdis(r.mustImport("", b))
	m := r.disks.memory(made[2])
	if m.Size() != size || m.Held() > 2*64<<10 {
		t.Errorf("%d bytes, of which %d are held", m.Size(), m.Held())
	}
	for _, at := range []int64{4<<40 + 12345, size - 512} {
		p := make([]byte, 4)
		if _, err := m.ReadAt(p, at); err != nil || string(p) != "here" {
			t.Errorf("%q at %d, %v", p, at, err)
		}
	}
}

// TestOldArchive reads what an older product writes: checksums of its time, a drive
// named as Linux names it, and a disk whose size is no whole MiB.
func TestOldArchive(t *testing.T) {
	r := newRig(t)
	const size = 3*mib + 512
	vm, vbd, vdi := api.NewVM(), api.NewVBD(), api.NewVDI()
	vm.UUID, vm.NameLabel, vm.HVMBootPolicy = api.NewUUID(), "old", "BIOS order"
	vm.MemoryStaticMax, vm.MemoryDynamicMax, vm.MemoryDynamicMin, vm.MemoryStaticMin, vm.VCPUsMax, vm.VCPUsAtStartup = 1<<28, 1<<28, 1<<28, 1<<28, 1, 1
	vbd.VM, vbd.VDI, vbd.Userdevice, vbd.Type, vbd.Mode = "OpaqueRef:vm", "OpaqueRef:vdi", "xvda", api.VBDTypeDisk, api.VBDModeRW
	vdi.VirtualSize, vdi.Type, vdi.SMConfig = size, api.VDITypeMetadata, map[string]string{"vhd-parent": "x", "made-for": "y"}
	doc := &ova.Document{
		Version: ova.Version{ProductBrand: "XenServer", Export: 2},
		Objects: ova.Number([]ova.Named{{Ref: "OpaqueRef:vm", Record: vm}, {Ref: "OpaqueRef:vbd", Record: vbd}, {Ref: "OpaqueRef:vdi", Record: vdi}}),
	}
	data := noise(4, size)
	var b bytes.Buffer
	w, err := xva.NewWriter(&b, xva.Gzip, doc.Append(nil))
	must(t, err)
	must(t, w.Disk("Ref:2", size))
	for at := 0; at < size; at += mib {
		must(t, w.Chunk(int64(at), data[at:min(at+mib, size)]))
	}
	must(t, w.Close())
	made := r.mustImport("", b.Bytes())
	disks := r.vdis(made)
	v := wiretest.Get(r.Server, disks[0])
	if got := r.disks.memory(disks[0]).Bytes(); v.VirtualSize != 4*mib || !bytes.Equal(got[:size], data) || v.Type != api.VDITypeUser || v.SMConfig["vhd-parent"] != "" || v.SMConfig["made-for"] != "" {
		t.Errorf("%+v", v)
	}
}

// TestCheckpoint: a snapshot with memory comes back with it, where the VM comes back as
// itself.
func TestCheckpoint(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	snap, _ := r.snapshot(from, "awake")
	memory, err := r.disks.Create(t.Context(), storage.CreateSpec{SR: r.sr, Size: 2 * mib, Name: "memory", Type: api.VDITypeSuspend})
	must(t, err)
	_, err = r.disks.memory(memory).WriteAt(noise(9, 2*mib), 0)
	must(t, err)
	r.update(func(tx *db.Tx) {
		s, err := db.Edit(tx, snap)
		must(t, err)
		s.PowerState, s.SuspendVDI, s.SnapshotMetadata = api.VMPowerStateSuspended, memory, `{"name_label":"web"}`
	})
	b := r.get("/export?include_snapshots=true&preserve_power_state=true&use_compression=zstd&ref=" + string(from))
	for query, want := range map[string]api.VMPowerState{"": api.VMPowerStateHalted, "&restore=true&force=true": api.VMPowerStateSuspended} {
		made := wiretest.Get(r.Server, r.mustImport(query, b))
		s := wiretest.Get(r.Server, made.Snapshots[0])
		if made.PowerState != api.VMPowerStateHalted || s.PowerState != want || (s.SuspendVDI != "") != (want == api.VMPowerStateSuspended) {
			t.Errorf("import%s: %s, snapshot %s with %q", query, made.PowerState, s.PowerState, s.SuspendVDI)
		}
		if s.SuspendVDI != "" {
			r.same([]api.VDIRef{memory}, []api.VDIRef{s.SuspendVDI})
			if s.SnapshotMetadata == "" {
				t.Error("what a revert needs is lost")
			}
		}
	}
}
