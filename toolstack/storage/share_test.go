package storage_test

import (
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

// shared makes a disk for several machines.
func (r *rig) shared(sr api.SRRef, size int64) (ref api.VDIRef) {
	r.T.Helper()
	r.Must(&ref, "VDI.create", map[string]any{
		"name_label": "quorum", "name_description": "", "SR": sr, "virtual_size": size, "type": "user", "sharable": true,
		"read_only": false, "other_config": noMap, "xenstore_data": noMap, "sm_config": noMap, "tags": []string{},
	})
	return ref
}

// What machines share is a raw volume without layers, on any kind of repository: it
// comes to two of them, and nothing puts a layer on it.
func TestSharedDisks(t *testing.T) {
	for kind, where := range map[string]string{"ext": "/dev/sdb", "lvm": "/dev/sdc", "file": "/srv"} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t)
			sr := r.sr(kind, where)
			ref := r.shared(sr, 5*mib)
			if d := r.vdi(ref); !d.Sharable || d.SMConfig["image-format"] != "raw" || d.VirtualSize != 8*mib {
				t.Errorf("made: %+v", d)
			}
			r.unlayered(ref)
			for range 2 {
				r.vm(ref)
			}
			s, err := r.m.Attach(t.Context(), r.host, ref, true)
			if err != nil || s.Format != hypervisor.Raw || s.Backing != nil {
				t.Errorf("attached: %+v, %v", s, err)
			}
			r.unlayered(ref)
			r.sound(sr)
		})
	}
}

// unlayered: what would put a layer on a disk is refused.
func (r *rig) unlayered(ref api.VDIRef) {
	r.T.Helper()
	sharable := api.ErrVDIIsSharable(ref.String())
	r.Refused(sharable, "VDI.snapshot", ref, noMap)
	r.Refused(sharable, "VDI.clone", ref, noMap)
	r.Refused(sharable, "VDI.enable_cbt", ref)
	r.Refused(sharable, "VDI.set_on_boot", ref, "reset")
}

// A snapshot of a machine with a shared disk is one of no disk.
func TestSnapshotWithASharedDisk(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	disk, shared := r.disk(sr, "root", mib), r.shared(sr, mib)
	was := r.vdi(disk).Location
	if _, err := r.m.Snapshot(t.Context(), []api.VDIRef{disk, shared}, nil); !isAPI(err, api.CodeVDIIsSharable) {
		t.Errorf("taken: %v", err)
	}
	if r.vdi(disk).Location != was || len(r.vdi(disk).CurrentOperations) != 0 {
		t.Errorf("the other disk: %+v", r.vdi(disk))
	}
	r.sound(sr)
}

func TestSetSharable(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	disk, shared := r.disk(sr, "root", mib), r.shared(sr, mib)
	r.Refused(api.ErrVDIIncompatibleType(disk.String(), "qcow2"), "VDI.set_sharable", disk, true)
	r.write(shared, 1, 1)
	r.Must(nil, "VDI.set_sharable", shared, false)
	s := r.snapshot(shared)
	r.Refused(api.ErrVDIIncompatibleType(shared.String(), "qcow2"), "VDI.set_sharable", shared, true)
	if _, err := r.Call("VDI.set_sharable", s, true); !isAPI(err, api.CodeOperationNotAllowed) {
		t.Errorf("a snapshot: %v", err)
	}
	r.write(shared, 2, 2)
	r.Must(nil, "VDI.destroy", s)
	r.coalesce(sr)
	r.Must(nil, "VDI.set_on_boot", shared, "reset")
	r.Refused(api.ErrVDIOnBootModeIncompatibleWithOperation(), "VDI.set_sharable", shared, true)
	r.Must(nil, "VDI.set_on_boot", shared, "persist")
	r.Must(nil, "VDI.enable_cbt", shared)
	r.Refused(api.ErrVDICBTEnabled(shared.String()), "VDI.set_sharable", shared, true)
	r.Must(nil, "VDI.disable_cbt", shared)
	r.Must(nil, "VDI.set_sharable", shared, true)
	r.Must(nil, "VDI.set_sharable", shared, true)
	r.unlayered(shared)
	r.reads("the disk", shared, map[int64]uint64{1: 1, 2: 2})
	r.sound(sr)
}

// A disk that was made sharable before such disks were raw is refused by name, and
// can be used alone.
func TestSharedQcow2(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "old", mib)
	edit(r, ref, func(v *api.VDI) { v.Sharable = true })
	want := api.ErrVDIIncompatibleType(ref.String(), "qcow2")
	if _, err := r.m.Attach(t.Context(), r.host, ref, true); err == nil || err.Error() != want.Error() {
		t.Errorf("attached: %v", err)
	}
	var c api.VDIRef
	r.Must(&c, "VDI.copy", ref, sr, "OpaqueRef:NULL", "OpaqueRef:NULL")
	if r.vdi(c).Sharable {
		t.Error("the copy cannot be shared, and says so")
	}
	r.Must(nil, "VDI.set_sharable", ref, false)
	r.vm(ref)
	r.sound(sr)
}

func TestCopiesOfSharedDisks(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	disk, shared := r.disk(sr, "root", 4*mib), r.shared(sr, 4*mib)
	r.write(shared, 1, 1)
	var c api.VDIRef
	r.Must(&c, "VDI.copy", shared, sr, "OpaqueRef:NULL", "OpaqueRef:NULL")
	if d := r.vdi(c); !d.Sharable || d.SMConfig["image-format"] != "raw" {
		t.Errorf("copy %+v", d)
	}
	r.reads("the copy", c, map[int64]uint64{1: 1})
	r.Must(&c, "VDI.copy", c, "", "", shared)
	r.Refused(api.ErrVDIIncompatibleType(shared.String(), "qcow2"), "VDI.copy", disk, "", "", shared)
	r.Must(nil, "VDI.copy", shared, "", "", disk)
	r.Must(nil, "VDI.resize", shared, 9*mib)
	if size := r.vdi(shared).VirtualSize; size != 12*mib {
		t.Errorf("resized to %d", size)
	}
	r.sound(sr)
	location := r.vdi(disk).Location
	r.Must(nil, "VDI.forget", disk)
	plain := r.disk(sr, "plain", mib)
	at := r.vdi(plain).Location
	r.Must(nil, "VDI.forget", plain)
	introduce := func(location string) []any {
		return []any{
			api.NewUUID(), "again", "", sr, "user", true, false, noMap, location, noMap, noMap, true, 0, 0, "OpaqueRef:NULL", false,
			"19700101T00:00:00Z", "OpaqueRef:NULL",
		}
	}
	r.Refused(api.ErrVDIIncompatibleType(at, "qcow2"), "VDI.introduce", introduce(at)...)
	r.Must(&c, "VDI.introduce", introduce(location)...)
	r.unlayered(c)
}
