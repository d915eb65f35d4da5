package vm_test

import (
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/storage"
)

// TestSharedDiskOfTwo: two machines run with one disk, and nothing that would put a
// layer on it is done to either, or half done.
func TestSharedDiskOfTwo(t *testing.T) {
	r := newRig(t)
	shared, err := r.disks.Create(r.ctx, storage.CreateSpec{SR: r.sr, Size: gib, Name: "quorum", Sharable: true})
	must(t, err)
	one, two := r.install("one"), r.install("two")
	for _, ref := range []string{one, two} {
		r.Must(nil, "VBD.create", r.vbd(ref, shared, "2", "Disk"))
	}
	sharable, had := api.ErrVDIIsSharable(shared.String()), r.managed()
	for _, state := range []api.VMPowerState{api.VMPowerStateHalted, api.VMPowerStateRunning} {
		r.bring(one, state)
		if state == api.VMPowerStateRunning {
			r.bring(two, state)
			r.Refused(sharable, "VM.checkpoint", one, "c")
		} else {
			r.Refused(sharable, "VM.clone", one, "clone")
		}
		r.Refused(sharable, "VM.snapshot", one, "s", []string{})
		r.onlyDisks(had)
		var s string
		r.Must(&s, "VM.snapshot", one, "s", []string{shared.String()})
		had = r.managed()
		r.state(one, state)
	}
	for _, ref := range []string{one, two} {
		hw, err := r.hv.Hardware(r.ctx, r.uuid(ref))
		must(t, err)
		if len(hw.Disks) != 4 || !hw.Disks[2].Shareable || hw.Disks[2].Source.Backing != nil {
			t.Errorf("%s has %+v", ref, hw.Disks)
		}
	}
	r.Must(nil, "VM.hard_shutdown", one)
	r.guestWrites(two, 2, 0, 5)
	r.Must(nil, "VM.start", one, false, false)
}
