package vm_test

import (
	"strings"
	"testing"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
	"cairn/toolstack/wire/wiretest"
)

// lengthen gives a disk layers, as a version did that allowed more.
func (r *rig) lengthen(ref api.VDIRef, n int) {
	r.T.Helper()
	for range n {
		disk, top := r.vdi(ref), api.NewUUID()
		_, err := r.hostd.CreateVolume(r.ctx, wiretest.Get(r.Server, disk.SR).UUID, top, client.VolumeSpec{
			Size: disk.VirtualSize, Format: client.Qcow2, Backing: disk.Location,
		})
		must(r.T, err)
		layer := disk.Clone()
		layer.UUID, layer.Managed, layer.VBDs, layer.SMConfig["cairn:layer"] = api.NewUUID(), false, nil, "hidden"
		wiretest.Insert(r.Server, layer)
		must(r.T, db.Modify(r.ctx, r.DB, ref, func(_ *db.Tx, v *api.VDI) error {
			v.Location, v.SMConfig = top, layer.Clone().SMConfig
			delete(v.SMConfig, "cairn:layer")
			v.SMConfig["vhd-parent"] = layer.UUID
			return nil
		}))
	}
}

// TestNoDomainWithALongChain: a disk of more volumes than libvirt can be told of does
// not come to a domain, whichever way, and can when they are merged.
func TestNoDomainWithALongChain(t *testing.T) {
	r := newRig(t)
	ref, asleep, awake := r.install("one"), r.install("two"), r.install("three")
	r.bring(asleep, api.VMPowerStateSuspended)
	r.bring(awake, api.VMPowerStateRunning)
	spare, err := r.disks.Create(r.ctx, storage.CreateSpec{SR: r.sr, Size: gib, Name: "spare"})
	must(t, err)
	var plugged string
	r.Must(&plugged, "VBD.create", r.vbd(awake, spare, "2", "Disk"))
	long := r.vdis(ref)[1]
	for _, vdi := range []api.VDIRef{long, r.vdis(asleep)[0], spare} {
		r.lengthen(vdi, 27)
	}
	refused := func(vdi api.VDIRef, method string, args ...any) {
		t.Helper()
		_, err := r.Call(method, args...)
		if err == nil || !strings.Contains(err.Error(), "SR_BACKEND_FAILURE_109") || !strings.Contains(err.Error(), r.vdi(vdi).UUID) {
			t.Errorf("%s: %v", method, err)
		}
	}
	refused(long, "VM.start", ref, false, false)
	r.state(ref, api.VMPowerStateHalted)
	if u := r.vdi(r.vdis(ref)[0]).SMConfig["host_"+string(r.host.ref)]; u != "" {
		t.Errorf("its other disk is attached still: %s", u)
	}
	refused(r.vdis(asleep)[0], "VM.resume", asleep, false, false)
	r.state(asleep, api.VMPowerStateSuspended)
	refused(spare, "VBD.plug", plugged)
	for range 3 {
		r.disks.Coalesce(r.ctx, r.sr)
	}
	r.Must(nil, "VM.start", ref, false, false)
	r.Must(nil, "VM.resume", asleep, false, false)
	r.Must(nil, "VBD.plug", plugged)
}
