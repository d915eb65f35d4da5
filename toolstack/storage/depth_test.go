package storage_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/wire/wiretest"
)

func TestChainHasAnEnd(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", mib)
	var s api.VDIRef
	for range 21 {
		r.Must(&s, "VDI.snapshot", ref, noMap)
	}
	r.Refused(errTooLong, "VDI.snapshot", ref, noMap)
	r.Refused(errTooLong, "VDI.clone", ref, noMap)
	r.Must(nil, "VDI.clone", s, noMap) // which has one less
	r.Must(nil, "VDI.revert", s)
	r.Refused(errTooLong, "VDI.snapshot", ref, noMap)
	r.vm(ref)
	r.sound(sr)
}

// errTooLong is how another layer is refused.
var errTooLong = &api.Error{Code: "SR_BACKEND_FAILURE_109", Params: []string{"", "The snapshot chain is too long", ""}}

// lengthen gives a disk that nobody uses layers, as a version did that allowed more.
func (r *rig) lengthen(ref api.VDIRef, n int) {
	r.T.Helper()
	for range n {
		disk, top := r.vdi(ref), api.NewUUID()
		_, err := r.hostd.CreateVolume(r.T.Context(), r.uuid(ref), top, client.VolumeSpec{Size: disk.VirtualSize, Format: client.Qcow2, Backing: disk.Location})
		if err != nil {
			r.T.Fatal(err)
		}
		layer := disk.Clone()
		layer.UUID, layer.Managed, layer.NameLabel, layer.VBDs = api.NewUUID(), false, "base copy", nil
		layer.SMConfig = maps.Clone(disk.SMConfig)
		layer.SMConfig["cairn:layer"] = "hidden"
		wiretest.Insert(r.Server, layer)
		edit(r, ref, func(v *api.VDI) {
			v.Location, v.SMConfig = top, maps.Clone(v.SMConfig)
			v.SMConfig["vhd-parent"] = layer.UUID
		})
	}
}

// What has more layers than a domain can open, from a time when more were allowed, is
// refused by name before it is touched, and can be used when it has been merged.
func TestChainTooLongToOpen(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	r.write(ref, 0, 1)
	r.lengthen(ref, 28)
	want := "VDI " + r.vdi(ref).UUID + " would be opened as 29 volumes, 22 can be"
	for _, writable := range []bool{true, false} {
		r.hostd.Fail(func(verb, _, _ string) error { return fmt.Errorf("asked to %s", verb) })
		_, err := r.m.Attach(t.Context(), r.host, ref, writable)
		r.hostd.Fail(nil)
		if !isAPI(err, "SR_BACKEND_FAILURE_109") || !strings.Contains(err.Error(), want) {
			t.Errorf("attached, writable %v: %v", writable, err)
		}
	}
	if u := r.vdi(ref).SMConfig["host_"+string(r.host)]; u != "" {
		t.Errorf("it is said to be attached: %s", u)
	}
	r.Refused(errTooLong, "VDI.snapshot", ref, noMap)
	r.coalesce(sr)
	r.vm(ref)
	r.reads("the disk", ref, map[int64]uint64{0: 1})
	r.sound(sr)
}

// The layer of a disk that resets counts.
func TestResetChainHasAnEnd(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", mib)
	r.Must(nil, "VDI.set_on_boot", ref, "reset")
	for range 20 {
		r.Must(nil, "VDI.snapshot", ref, noMap)
	}
	vm, vbd := r.vm(ref)
	r.Must(nil, "VDI.snapshot", ref, noMap)
	if _, err := r.m.Attach(t.Context(), r.host, ref, true); err != nil {
		t.Errorf("attached again, to what it has: %v", err)
	}
	r.halt(vm, vbd)
	if _, err := r.m.Attach(t.Context(), r.host, ref, true); !isAPI(err, "SR_BACKEND_FAILURE_109") {
		t.Errorf("attached: %v", err)
	}
	r.sound(sr)
}

// A tool that takes and destroys snapshots faster than their layers are merged is
// refused in the end, without disturbing the merges, and served again after them.
func TestSnapshotsFasterThanMerges(t *testing.T) {
	r := newBusy(t)
	refused := 0
	for range 26 {
		var s api.VDIRef
		text, err := r.Call("VDI.snapshot", r.ref, noMap)
		if isAPI(err, "SR_BACKEND_FAILURE_109") {
			refused++
			continue
		}
		if err == nil {
			err = json.Unmarshal(text, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		r.writes(2, 7)
		r.Must(nil, "VDI.destroy", s)
	}
	if refused != 5 {
		t.Errorf("%d were refused", refused)
	}
	begun := 0
	r.domains.before = func() {
		if begun++; begun == 1 {
			r.Refused(errTooLong, "VDI.snapshot", r.ref, noMap)
			r.Refused(errTooLong, "VDI.clone", r.ref, noMap)
		}
	}
	r.coalesce(r.sr)
	if n := r.volumes(r.sr); n != 1 || begun != 21 {
		t.Errorf("%d volumes are left of 22, after %d merges", n, begun)
	}
	r.Must(nil, "VDI.snapshot", r.ref, noMap)
	r.ends(map[int64]uint64{0: 1, 2: 7})
}
