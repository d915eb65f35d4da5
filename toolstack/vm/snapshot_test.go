package vm_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

// bring brings a VM into a power state.
func (r *rig) bring(ref string, state api.VMPowerState) {
	r.T.Helper()
	if state == api.VMPowerStateHalted {
		return
	}
	r.Must(nil, "VM.start", ref, false, false)
	switch state {
	case api.VMPowerStatePaused:
		r.Must(nil, "VM.pause", ref)
	case api.VMPowerStateSuspended:
		r.Must(nil, "VM.suspend", ref)
	}
	r.state(ref, state)
}

func TestSnapshotInEveryState(t *testing.T) {
	for _, state := range []api.VMPowerState{api.VMPowerStateHalted, api.VMPowerStateRunning, api.VMPowerStatePaused, api.VMPowerStateSuspended} {
		t.Run(string(state), func(t *testing.T) {
			r := newRig(t)
			r.Covers("VM.snapshot")
			ref := r.install("x")
			cd := r.insertCD(ref)
			r.bring(ref, state)
			var snap string
			r.Must(&snap, "VM.snapshot", ref, "before")
			v, s := r.record(ref), r.record(snap)
			if !s.IsASnapshot || !s.IsATemplate || string(s.SnapshotOf) != ref || s.NameLabel != "before" || s.SnapshotTime.IsZero() ||
				s.SnapshotInfo["power-state-at-snapshot"] != string(state) || !slices.Contains(v.Snapshots, api.VMRef(snap)) ||
				string(v.Parent) != snap || v.PowerState != state || len(v.CurrentOperations) != 0 {
				t.Errorf("snapshot %+v of %+v", s, v)
			}
			want := api.VMPowerStateHalted
			if state == api.VMPowerStateSuspended {
				want = state
			}
			if s.PowerState != want || s.SuspendVDI.IsNull() != (want == api.VMPowerStateHalted) || s.SuspendVDI != "" && s.SuspendVDI == v.SuspendVDI {
				t.Errorf("the snapshot is %s with memory in %s", s.PowerState, s.SuspendVDI)
			}
			if !slices.Contains(s.AllowedOperations, api.VMOperationsRevert) || slices.Contains(s.AllowedOperations, api.VMOperationsStart) {
				t.Errorf("a snapshot allows %v", s.AllowedOperations)
			}
			if state == api.VMPowerStateRunning {
				r.guestWrites(ref, 0, 0, 77)
				r.guestWrites(ref, 1, 0, 77)
			}
			kept := r.vdis(snap)
			for i, vdi := range r.vdis(ref) {
				d := r.vdi(kept[i])
				if !d.IsASnapshot || d.SnapshotOf != vdi || r.read(kept[i], 0) != uint64(10+i) || d.SMConfig["made-for"] != "" {
					t.Errorf("disk %d: %+v reads %d", i, d, r.read(kept[i], 0))
				}
				if state == api.VMPowerStateRunning && r.read(vdi, 0) != 77 {
					t.Errorf("disk %d of the running VM reads %d", i, r.read(vdi, 0))
				}
			}
			nic, own := wiretest.Get(r.Server, s.VIFs[0]), wiretest.Get(r.Server, v.VIFs[0])
			if nic.MAC != own.MAC || nic.CurrentlyAttached {
				t.Errorf("the snapshot's NIC %+v", nic)
			}
			if !slices.ContainsFunc(s.VBDs, func(v api.VBDRef) bool { return wiretest.Get(r.Server, v).VDI == cd }) {
				t.Error("the snapshot has not the CD")
			}
		})
	}
}

func TestSnapshotLeavesOutWhatIsIgnored(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	disks := r.vdis(ref)
	var snap string
	r.Must(&snap, "VM.snapshot", ref, "s", []api.VDIRef{disks[1]})
	if kept := r.vdis(snap); len(kept) != 1 || r.vdi(kept[0]).SnapshotOf != disks[0] {
		t.Errorf("kept %v of %v", kept, disks)
	}
	r.refused(api.CodeVMIsSnapshot, nil, "VM.snapshot", snap, "of a snapshot")
	if _, err := r.Call("VM.snapshot_with_quiesce", ref, "q"); err == nil {
		t.Error("a removed message answers")
	}
}

// goesOn asserts that a guest writes to its first disk where that is, and that no other
// disk has come of what was tried.
func (r *rig) goesOn(ref string) {
	r.T.Helper()
	r.onlyDisks(2)
	r.guestWrites(ref, 0, 0, 77)
	if got := r.read(r.vdis(ref)[0], 0); got != 77 {
		r.T.Errorf("the disk reads %d", got)
	}
}

// TestSnapshotThatFails: the guest goes on with its disks as they were.
func TestSnapshotThatFails(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	r.bring(ref, api.VMPowerStateRunning)
	r.hv.FailNext("Snapshot", errors.New("boom"))
	if _, err := r.Call("VM.snapshot", ref, "s"); err == nil {
		t.Fatal("the snapshot succeeds")
	}
	r.goesOn(ref)
	if v := r.record(ref); len(v.Snapshots) != 0 || !v.Parent.IsNull() {
		t.Errorf("snapshots %v", v.Snapshots)
	}
}

// thief takes one disk away from a domain that is about to be switched.
type thief struct {
	*hypervisor.Fake
	serial *string
}

func (h thief) Snapshot(ctx context.Context, uuid string, o []hypervisor.Overlay) error {
	hw, err := h.Hardware(ctx, uuid)
	if err != nil {
		return err
	}
	for _, d := range hw.Disks {
		if d.Serial == *h.serial {
			err = errors.Join(err, h.DetachDisk(ctx, uuid, d.ID))
		}
	}
	if err != nil {
		return err
	}
	return h.Fake.Snapshot(ctx, uuid, o)
}

// TestSnapshotMeetsUnplug: a domain that lacks a disk is not one that has ended. The
// disks that it has are those that it writes to, before and after.
func TestSnapshotMeetsUnplug(t *testing.T) {
	var second string
	r := newRigEdit(t, func(c *vm.Config) { c.Hypervisor = thief{c.Hypervisor.(*hypervisor.Fake), &second} })
	ref := r.install("x")
	second = r.vdi(r.vdis(ref)[1]).UUID
	r.bring(ref, api.VMPowerStateRunning)
	if _, err := r.Call("VM.snapshot", ref, "s"); err == nil {
		t.Error("the snapshot succeeds")
	}
	r.goesOn(ref)
}

// slow is a hypervisor in the middle of whose work others come.
type slow struct {
	*hypervisor.Fake
	meanwhile *func(step string)
}

func (h slow) DetachDisk(ctx context.Context, uuid, id string) error {
	(*h.meanwhile)("detach")
	return h.Fake.DetachDisk(ctx, uuid, id)
}

func (h slow) Snapshot(ctx context.Context, uuid string, o []hypervisor.Overlay) error {
	(*h.meanwhile)("snapshot")
	return h.Fake.Snapshot(ctx, uuid, o)
}

// TestUnplugAndSnapshotRefuseEachOther: a disk is not unplugged while its domain is
// being switched, nor the other way round, and who comes second hears of the first.
func TestUnplugAndSnapshotRefuseEachOther(t *testing.T) {
	meanwhile := func(string) {}
	r := newRigEdit(t, func(c *vm.Config) { c.Hypervisor = slow{c.Hypervisor.(*hypervisor.Fake), &meanwhile} })
	ref := r.install("x")
	r.bring(ref, api.VMPowerStateRunning)
	vdi := r.vdis(ref)[1]
	vbd := string(r.vdi(vdi).VBDs[0])
	busy := func(class, what, method string, args ...any) {
		t.Helper()
		_, err := r.Call(method, args...)
		var refused *api.Error
		if !errors.As(err, &refused) || refused.Code != api.CodeOtherOperationInProgress || refused.Params[0] != class || refused.Params[2] != what {
			t.Errorf("%s answers %v", method, err)
		}
	}
	steps, inside := 0, false
	meanwhile = func(step string) {
		if inside { // nobody was refused
			return
		}
		steps, inside = steps+1, true
		defer func() { inside = false }()
		switch step {
		case "snapshot":
			busy("VDI", "snapshot", "VBD.unplug", vbd)
		case "detach":
			busy("VBD", "unplug", "VM.snapshot", ref, "s")
			busy("VBD", "unplug", "VDI.snapshot", vdi, map[string]string{})
			busy("VBD", "unplug", "VDI.clone", vdi, map[string]string{})
		}
	}
	var snap string
	r.Must(&snap, "VM.snapshot", ref, "s")
	r.Must(nil, "VBD.unplug", vbd)
	if steps != 2 {
		t.Errorf("%d steps", steps)
	}
}

func TestRevert(t *testing.T) {
	for _, state := range []api.VMPowerState{api.VMPowerStateHalted, api.VMPowerStateRunning, api.VMPowerStateSuspended} {
		t.Run(string(state), func(t *testing.T) {
			r := newRig(t)
			r.Covers("VM.revert")
			ref := r.install("x")
			disks, mac := r.vdis(ref), wiretest.Get(r.Server, r.record(ref).VIFs[0]).MAC
			var first, second string
			r.Must(&first, "VM.snapshot", ref, "first")
			r.Must(nil, "VM.set_name_label", ref, "renamed")
			r.Must(nil, "VM.set_memory_static_max", ref, 3*gib)
			r.Must(nil, "VIF.destroy", string(r.record(ref).VIFs[0]))
			for _, vdi := range disks {
				r.write(vdi, 0, 99)
			}
			r.Must(&second, "VM.snapshot", ref, "second")
			r.bring(ref, state)
			r.Must(nil, "VM.revert", first)
			v := r.record(ref)
			if v.PowerState != api.VMPowerStateHalted || v.NameLabel != "x" || v.MemoryStaticMax != 2*gib || string(v.Parent) != first ||
				v.IsASnapshot || v.IsATemplate || len(v.CurrentOperations) != 0 || len(v.Snapshots) != 2 || !v.SuspendVDI.IsNull() {
				t.Errorf("reverted: %+v", v)
			}
			if len(v.VIFs) != 1 || wiretest.Get(r.Server, v.VIFs[0]).MAC != mac || len(v.VBDs) != 3 {
				t.Errorf("devices %v %v", v.VBDs, v.VIFs)
			}
			for i, vdi := range r.vdis(ref) {
				if vdi != disks[i] || r.read(vdi, 0) != uint64(10+i) {
					t.Errorf("disk %d reads %d", i, r.read(vdi, 0))
				}
			}
			if !slices.Contains(r.record(first).Children, api.VMRef(ref)) || string(r.record(second).Parent) != first {
				t.Errorf("the tree: %v %v", r.record(first).Children, r.record(second).Parent)
			}
			r.onlyDisks(6)
			r.Must(nil, "VM.revert", second)
			if got := r.read(r.vdis(ref)[1], 0); got != 99 {
				t.Errorf("reverted to the second, a disk reads %d", got)
			}
			r.Must(nil, "VM.start", ref, false, false)
		})
	}
}

func TestRevertIsRefused(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	var snap string
	r.Must(&snap, "VM.snapshot", ref, "s")
	r.refused(api.CodeOperationNotAllowed, nil, "VM.revert", ref)
	must(t, r.DB.Update(r.ctx, func(tx *db.Tx) error {
		v, err := db.Edit(tx, api.VMRef(ref))
		v.CurrentOperations = map[string]api.VMOperations{"OpaqueRef:t": api.VMOperationsClone}
		return err
	}))
	r.refused(api.CodeOtherOperationInProgress, []string{"VM", ref, "clone", "OpaqueRef:t"}, "VM.revert", snap)
	must(t, r.DB.Update(r.ctx, func(tx *db.Tx) error {
		v, err := db.Edit(tx, api.VMRef(ref))
		v.CurrentOperations = nil
		return err
	}))
	r.Must(nil, "VM.destroy", ref)
	r.refused(api.CodeVMRevertFailed, []string{ref, snap}, "VM.revert", snap)
}

// TestDisksThatAreGoneComeBack: a disk that was destroyed, or that another VM has
// now, is made anew from its snapshot.
func TestDisksThatAreGoneComeBack(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	disks := r.vdis(ref)
	var snap string
	r.Must(&snap, "VM.snapshot", ref, "s")
	for _, vbd := range r.record(ref).VBDs {
		r.Must(nil, "VBD.destroy", string(vbd))
	}
	must(t, r.disks.Destroy(r.ctx, disks[0]))
	var other string
	r.Must(&other, "VM.clone", r.templates()["other-install-media"], "other")
	r.Must(nil, "VM.provision", other)
	r.Must(nil, "VBD.create", r.vbd(other, disks[1], "0", "Disk"))
	r.write(disks[1], 0, 55)
	r.Must(nil, "VM.revert", snap)
	back := r.vdis(ref)
	if len(back) != 2 || r.read(back[0], 0) != 10 || r.read(back[1], 0) != 11 || back[1] == disks[1] || r.read(disks[1], 0) != 55 {
		t.Errorf("after the revert: %v, was %v", back, disks)
	}
}

// TestSnapshotsOfSnapshotsGone: the tree stays one when a snapshot in its middle is
// destroyed.
func TestTreeWithoutItsMiddle(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	var first, second string
	r.Must(&first, "VM.snapshot", ref, "first")
	r.Must(&second, "VM.snapshot", ref, "second")
	r.Must(nil, "VM.destroy", second)
	if v := r.record(ref); string(v.Parent) != first || len(v.Snapshots) != 1 || !slices.Contains(r.record(first).Children, api.VMRef(ref)) {
		t.Errorf("parent %s, snapshots %v", v.Parent, v.Snapshots)
	}
}

// TestVMsOfSnapshots: a clone of a snapshot is a template with disks of its own.
func TestVMsOfSnapshots(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	r.bring(ref, api.VMPowerStateRunning)
	var snap, made string
	r.Must(&snap, "VM.checkpoint", ref, "s")
	r.Must(&made, "VM.clone", snap, "made")
	v := r.record(made)
	if !v.IsATemplate || v.IsASnapshot || !v.SnapshotOf.IsNull() || v.SnapshotMetadata != "" || v.PowerState != api.VMPowerStateHalted || !v.SuspendVDI.IsNull() {
		t.Errorf("made of a snapshot: %+v", v)
	}
	r.Must(nil, "VM.provision", made)
	r.Must(nil, "VM.start", made, false, false)
	if got := r.read(r.vdis(made)[1], 0); got != 11 {
		t.Errorf("its disk reads %d", got)
	}
}
