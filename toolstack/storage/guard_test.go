package storage_test

import (
	"strings"
	"testing"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/wire/wiretest"
)

// A disk that was forgotten is based on its layers still: nobody merges into them,
// not even a running domain, and with them it comes back as it was.
func TestForgottenDisksKeepTheirLayers(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	r.write(ref, 0, 1)
	var clone api.VDIRef
	r.Must(&clone, "VDI.clone", ref, noMap)
	forgotten := r.vdi(clone).Location
	r.Must(nil, "VDI.forget", clone)
	vm, _ := r.vm(ref)
	if err := r.domains.write(wiretest.Get(r.Server, vm).UUID, 0, 2); err != nil {
		t.Fatal(err)
	}
	r.m.Coalesce(t.Context(), sr)
	c, err := r.hostd.Content(wiretest.Get(r.Server, sr).UUID, forgotten)
	if err != nil || c[0] != 1 {
		t.Errorf("the forgotten disk reads %v, %v", c, err)
	}
	r.reads("the disk", ref, map[int64]uint64{0: 2})
}

// A domain opens the layers it is told and no other: a disk with one that nobody
// knows would read as zeros what is in it.
func TestUnknownLayersAreNotLeftOut(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	uuid := wiretest.Get(r.Server, sr).UUID
	ref := r.disk(sr, "root", 8*mib)
	for _, v := range []struct{ name, below string }{{"lower", ""}, {"upper", "lower"}} {
		spec := client.VolumeSpec{Size: 8 * mib, Format: client.Qcow2, Backing: v.below}
		if _, err := r.hostd.CreateVolume(t.Context(), uuid, v.name, spec); err != nil {
			t.Fatal(err)
		}
	}
	_, err := r.Call("VDI.introduce", api.NewUUID(), "x", "", sr, "user", false, false, noMap, "upper", noMap, noMap, true, 0, 0, "", false, "19700101T00:00:00Z", "")
	if err == nil || !strings.Contains(err.Error(), "lower") {
		t.Errorf("introduced: %v", err)
	}
	edit(r, ref, func(v *api.VDI) { v.Location = "upper" })
	if _, err := r.m.Attach(t.Context(), r.host, ref, true); err == nil || !strings.Contains(err.Error(), "lower") {
		t.Errorf("attached: %v", err)
	}
}

// A start that cannot attach a repository says that it is not attached. It is not to
// be forgotten for that while machines run on it.
func TestRepositoriesInUseAreNotForgotten(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	vm, vbd := r.vm(ref)
	pbd := wiretest.Get(r.Server, sr).PBDs[0]
	edit(r, pbd, func(p *api.PBD) { p.CurrentlyAttached = false })
	r.Refused(api.ErrVDIInUse(ref.String(), "forget"), "SR.forget", sr)
	edit(r, ref, func(v *api.VDI) { v.Managed = false })
	r.Refused(api.ErrVDIInUse(ref.String(), "destroy"), "SR.destroy", sr)
	edit(r, ref, func(v *api.VDI) { v.Managed = true })
	edit(r, pbd, func(p *api.PBD) { p.CurrentlyAttached = true })
	r.reads("the disk", ref, map[int64]uint64{})
	r.halt(vm, vbd)
}
