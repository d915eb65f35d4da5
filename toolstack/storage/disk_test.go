package storage_test

import (
	"context"
	"errors"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/wire/wiretest"
)

const mib = 1 << 20

func TestCreateAndDestroy(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 10*mib-1)
	d := r.vdi(ref)
	if d.VirtualSize != 10*mib || !d.Managed || d.SMConfig["image-format"] != "qcow2" || d.Type != api.VDITypeUser || len(d.Tags) != 1 {
		t.Errorf("created %+v", d)
	}
	if s := wiretest.Get(r.Server, sr); s.VirtualAllocation != 10*mib || s.PhysicalUtilisation == 0 || s.PhysicalSize == 0 || d.PhysicalUtilisation == 0 {
		t.Errorf("figures %d of %d, %d allocated", s.PhysicalUtilisation, s.PhysicalSize, s.VirtualAllocation)
	}
	r.sound(sr)
	b := api.NewVBD()
	b.VDI, b.Type = ref, api.VBDTypeDisk
	vbd := wiretest.Insert(r.Server, b)
	r.Must(nil, "VDI.destroy", ref)
	if _, err := db.Get(r.DB.Snapshot(), ref); err == nil {
		t.Error("the disk is still there")
	}
	if _, err := db.Get(r.DB.Snapshot(), vbd); err == nil {
		t.Error("its VBD is still there")
	}
	if s := wiretest.Get(r.Server, sr); s.VirtualAllocation != 0 || s.PhysicalUtilisation != 0 {
		t.Errorf("figures after all is gone: %+v", s)
	}
	r.sound(sr)
	r.Refused(api.ErrHandleInvalid("VDI", ref.String()), "VDI.destroy", ref)
	r.Covers("VDI.create", "VDI.destroy")
}

func TestCreateRefused(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	disk := func(sr api.SRRef, size int64) map[string]any {
		return map[string]any{
			"name_label": "x", "name_description": "", "SR": sr, "virtual_size": size, "type": "user", "sharable": false,
			"read_only": false, "other_config": noMap, "xenstore_data": noMap, "sm_config": noMap, "tags": []string{},
		}
	}
	r.Refused(api.ErrInvalidValue("virtual_size", "0"), "VDI.create", disk(sr, 0))
	r.Refused(api.ErrHandleInvalid("SR", "OpaqueRef:x"), "VDI.create", disk("OpaqueRef:x", 1))
	r.hostd.AddFile("/isos", "a.iso", mib)
	iso := r.sr("iso", "/isos")
	r.Refused(api.ErrSROperationNotSupported(iso.String()), "VDI.create", disk(iso, 1))
	loose := api.NewSR()
	loose.Type = "ext"
	off := wiretest.Insert(r.Server, loose)
	r.Refused(api.ErrSRNotAttached(off.String()), "VDI.create", disk(off, 1))
	if n := r.names(sr); len(n) != 0 {
		t.Errorf("refused calls made %v", n)
	}
}

func TestNoSpace(t *testing.T) {
	r := newRig(t)
	r.hostd.SetSize("/dev/sdb", 100*mib)
	sr := r.sr("lvm", "/dev/sdb")
	r.disk(sr, "a", 60*mib)
	_, err := r.Call("VDI.create", map[string]any{
		"name_label": "b", "name_description": "", "SR": sr, "virtual_size": 60 * mib, "type": "user", "sharable": false,
		"read_only": false, "other_config": noMap, "xenstore_data": noMap, "sm_config": noMap, "tags": []string{},
	})
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeSRFull || e.Params[0] != "62914560" {
		t.Errorf("got %v, want SR_FULL", err)
	}
	r.sound(sr)
	if told := r.toldFull(sr); told != 1 {
		t.Errorf("%d alerts, want 1", told)
	}
}

// toldFull is how many alerts there are of a repository without space.
func (r *rig) toldFull(sr api.SRRef) (told int) {
	for _, m := range db.All[api.Message](r.DB.Snapshot()) {
		if m.Name == "SM_GC_NO_SPACE" && m.ObjUUID == wiretest.Get(r.Server, sr).UUID {
			told++
		}
	}
	return told
}

func TestResize(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	r.write(ref, 1, 7)
	r.Must(nil, "VDI.resize", ref, 16*mib)
	if d := r.vdi(ref); d.VirtualSize != 16*mib {
		t.Errorf("size %d", d.VirtualSize)
	}
	r.Refused(&api.Error{Code: "SR_BACKEND_FAILURE_79", Params: []string{"", "VDI Invalid size [opterr=shrinking not allowed]", ""}}, "VDI.resize", ref, 8*mib)
	vm, vbd := r.vm(ref)
	r.Refused(api.ErrVDIInUse(ref.String(), "resize"), "VDI.resize", ref, 32*mib)
	r.Must(nil, "VDI.resize_online", ref, 32*mib)
	if d := r.vdi(ref); d.VirtualSize != 32*mib || r.domains.grown[wiretest.Get(r.Server, vbd).UUID] != 32*mib {
		t.Errorf("size %d, the domain was told %v", d.VirtualSize, r.domains.grown)
	}
	r.halt(vm, vbd)
	var s api.VDIRef
	r.Must(&s, "VDI.snapshot", ref, noMap)
	r.Refused(api.ErrVDIReadonly(s.String()), "VDI.resize", s, 64*mib)
	r.reads("the disk", ref, map[int64]uint64{1: 7})
	r.Covers("VDI.resize", "VDI.resize_online")
}

func TestSnapshotCloneRevert(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	r.write(ref, 0, 1)
	var s, c, c2 api.VDIRef
	r.Must(&s, "VDI.snapshot", ref, noMap)
	r.write(ref, 0, 2)
	r.write(ref, 1, 2)
	if err := r.hostd.Write(r.uuid(s), r.vdi(s).Location, 0, 9); err == nil {
		t.Error("a snapshot can be written to")
	}
	snap := r.vdi(s)
	if !snap.IsASnapshot || snap.SnapshotOf != ref || snap.NameLabel != "root" || snap.SnapshotTime.IsZero() || !snap.Managed {
		t.Errorf("snapshot %+v", snap)
	}
	if p := r.vdi(ref).SMConfig["vhd-parent"]; p != snap.UUID {
		t.Errorf("the disk is based on %s, want %s", p, snap.UUID)
	}
	r.reads("the snapshot", s, map[int64]uint64{0: 1})
	r.Must(&c, "VDI.clone", s, noMap)
	r.write(c, 3, 3)
	r.Must(&c2, "VDI.clone", ref, noMap)
	r.write(ref, 4, 4)
	r.write(c2, 5, 5)
	r.reads("the clone of the snapshot", c, map[int64]uint64{0: 1, 3: 3})
	r.reads("the clone of the disk", c2, map[int64]uint64{0: 2, 1: 2, 5: 5})
	r.reads("the disk", ref, map[int64]uint64{0: 2, 1: 2, 4: 4})
	r.sound(sr)
	r.Must(nil, "VDI.revert", s)
	r.reads("the disk, reverted", ref, map[int64]uint64{0: 1})
	r.write(ref, 0, 6)
	r.reads("the snapshot after it", s, map[int64]uint64{0: 1})
	r.sound(sr)
	r.Must(nil, "VDI.destroy", s)
	r.reads("the disk without its snapshot", ref, map[int64]uint64{0: 6})
	r.reads("the clone without the snapshot", c, map[int64]uint64{0: 1, 3: 3})
	r.sound(sr)
	for _, v := range []api.VDIRef{ref, c, c2} {
		r.Must(nil, "VDI.destroy", v)
	}
	r.Covers("VDI.snapshot", "VDI.clone", "VDI.revert")
}

func TestCopy(t *testing.T) {
	r := newRig(t)
	from, to := r.sr("ext", "/dev/sdb"), r.sr("file", "/srv")
	ref := r.disk(from, "root", 8*mib)
	r.write(ref, 0, 1)
	var s, c api.VDIRef
	r.Must(&s, "VDI.snapshot", ref, noMap)
	r.write(ref, 1, 2)
	r.Must(&c, "VDI.copy", ref, to, "OpaqueRef:NULL", "OpaqueRef:NULL")
	if d := r.vdi(c); d.SR != to || d.NameLabel != "root" || d.SMConfig["vhd-parent"] != "" || d.IsASnapshot {
		t.Errorf("copy %+v", d)
	}
	r.reads("the copy", c, map[int64]uint64{0: 1, 1: 2})
	into := r.disk(to, "there", 16*mib)
	r.write(into, 5, 5)
	var same api.VDIRef
	r.Must(&same, "VDI.copy", s, "OpaqueRef:NULL", "OpaqueRef:NULL", into)
	if same != into || r.vdi(into).VirtualSize != 16*mib {
		t.Errorf("copied into %v of %d bytes", same, r.vdi(into).VirtualSize)
	}
	r.reads("the disk copied into", into, map[int64]uint64{0: 1})
	small := r.disk(to, "small", mib)
	r.Refused(api.ErrVDITooSmall(small.String(), "8388608"), "VDI.copy", s, "OpaqueRef:NULL", "OpaqueRef:NULL", small)
	r.sound(from)
	r.sound(to)
	r.Covers("VDI.copy")
}

func TestForgetAndIntroduce(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	r.write(ref, 0, 1)
	d := r.vdi(ref)
	introduce := func(uuid, location string) []any {
		return []any{
			uuid, "again", "d", sr, "user", false, false, noMap, location, noMap, noMap, true, 0, 0,
			"OpaqueRef:NULL", false, "19700101T00:00:00Z", "OpaqueRef:NULL",
		}
	}
	r.Refused(api.ErrUUIDInvalid("VDI", d.UUID), "VDI.introduce", introduce(d.UUID, d.Location)...)
	r.Refused(api.ErrLocationNotUnique(sr.String(), d.Location), "VDI.introduce", introduce(api.NewUUID(), d.Location)...)
	r.Refused(api.ErrVDILocationMissing(sr.String(), "nowhere"), "VDI.introduce", introduce(api.NewUUID(), "nowhere")...)
	r.Must(nil, "VDI.forget", ref)
	if n := r.names(sr); len(n) != 0 {
		t.Errorf("left are %v", n)
	}
	var again api.VDIRef
	r.Must(&again, "VDI.introduce", introduce(d.UUID, d.Location)...)
	if n := r.vdi(again); n.UUID != d.UUID || n.NameLabel != "again" || n.VirtualSize != 8*mib || n.SMConfig["image-format"] != "qcow2" {
		t.Errorf("introduced %+v", n)
	}
	r.reads("the disk", again, map[int64]uint64{0: 1})
	r.write(again, 1, 1)
	was := r.vdi(again).PhysicalUtilisation
	r.Must(nil, "VDI.update", again)
	if now := r.vdi(again).PhysicalUtilisation; now <= was {
		t.Errorf("takes %d bytes, before the write %d", now, was)
	}
	r.Covers("VDI.forget", "VDI.introduce", "VDI.update")
}

func TestAttach(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	var s api.VDIRef
	r.Must(&s, "VDI.snapshot", ref, noMap)
	ctx := context.Background()
	key := "host_" + string(r.host)
	for range 2 {
		src, err := r.m.Attach(ctx, r.host, ref, true)
		if err != nil {
			t.Fatal(err)
		}
		if src.Format != hypervisor.Qcow2 || src.Backing == nil || src.Backing.Backing != nil {
			t.Errorf("source %+v", src)
		}
	}
	if d := r.vdi(ref); d.SMConfig[key] != "RW" {
		t.Errorf("sm_config %v", d.SMConfig)
	}
	other := wiretest.Insert(r.Server, api.NewHost())
	if _, err := r.m.Attach(ctx, other, ref, false); err == nil {
		t.Error("attached twice")
	}
	r.Refused(api.ErrVDIInUse(ref.String(), "destroy"), "VDI.destroy", ref)
	if _, err := r.m.Attach(ctx, r.host, s, true); err == nil {
		t.Error("a snapshot was attached for writing")
	}
	for range 2 {
		if err := r.m.Detach(ctx, r.host, ref); err != nil {
			t.Fatal(err)
		}
	}
	if d := r.vdi(ref); d.SMConfig[key] != "" {
		t.Errorf("sm_config %v", d.SMConfig)
	}
	failed := errors.New("no")
	r.hostd.Fail(func(verb, _, _ string) error {
		if verb == "activate" {
			return failed
		}
		return nil
	})
	if _, err := r.m.Attach(ctx, r.host, ref, true); err == nil || r.vdi(ref).SMConfig[key] != "" {
		t.Errorf("a failed attach: %v, %v", err, r.vdi(ref).SMConfig)
	}
}

func TestResetOnBoot(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	r.write(ref, 0, 1)
	r.Must(nil, "VDI.set_on_boot", ref, "reset")
	for range 2 {
		vm, vbd := r.vm(ref)
		uuid := wiretest.Get(r.Server, vm).UUID
		if err := r.domains.write(uuid, 0, 2); err != nil {
			t.Fatal(err)
		}
		var s api.VDIRef
		r.Must(&s, "VDI.snapshot", ref, noMap)
		if err := r.domains.write(uuid, 1, 2); err != nil {
			t.Fatal(err)
		}
		r.reads("the snapshot", s, map[int64]uint64{0: 1})
		r.halt(vm, vbd)
		r.reads("the disk", ref, map[int64]uint64{0: 1})
		r.sound(sr)
	}
}

// Clients may keep notes in sm_config, but not say where a disk's bytes are.
func TestSMConfig(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", mib)
	var s api.VDIRef
	r.Must(&s, "VDI.snapshot", ref, noMap)
	parent := r.vdi(ref).SMConfig["vhd-parent"]
	r.Must(nil, "VDI.add_to_sm_config", ref, "mine", "1")
	r.Refused(api.ErrMapDuplicateKey("VDI", "sm_config", ref.String(), "vhd-parent"), "VDI.add_to_sm_config", ref, "vhd-parent", "x")
	r.Refused(api.ErrInvalidValue("key", "host_OpaqueRef:x"), "VDI.add_to_sm_config", ref, "host_OpaqueRef:x", "RW")
	r.Refused(api.ErrInvalidValue("key", "vhd-parent"), "VDI.remove_from_sm_config", ref, "vhd-parent")
	if c := r.vdi(ref).SMConfig; c["mine"] != "1" || c["vhd-parent"] != parent {
		t.Errorf("sm_config %v", c)
	}
	r.Must(nil, "VDI.set_sm_config", ref, map[string]string{"other": "2", "vhd-parent": "x", "cairn:state": "garbage"})
	if c := r.vdi(ref).SMConfig; c["other"] != "2" || c["mine"] != "" || c["vhd-parent"] != parent || c["cairn:state"] != "" {
		t.Errorf("sm_config %v", c)
	}
	r.Must(nil, "VDI.remove_from_sm_config", ref, "other")
	if c := r.vdi(ref).SMConfig; c["other"] != "" || c["image-format"] == "" {
		t.Errorf("sm_config %v", c)
	}
	r.sound(sr)
	r.Covers("VDI.set_sm_config", "VDI.add_to_sm_config", "VDI.remove_from_sm_config")
}
