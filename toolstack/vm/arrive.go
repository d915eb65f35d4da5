package vm

import (
	"cmp"
	"context"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Nowhere is where there is no other VM in a list of arrivals.
const Nowhere = -1

// Arrival is a VM that comes from elsewhere, with what belongs to it. Its record says who
// it is; drives and NICs name disks and networks that are here.
type Arrival struct {
	VM       *api.VM
	VBDs     []*api.VBD
	VIFs     []*api.VIF
	VTPMs    []*api.VTPM
	Replaces api.VMRef  // which goes, all but its disks
	Of       int        // the arrival it is a snapshot of, or Nowhere
	Parent   int        // or Nowhere
	Memory   api.VDIRef // null, or what it is suspended with
}

// Making is a context under which to make disks of VMs that are not here yet. What was
// made under it and has not arrived with a VM when end is called, or when this process
// dies, is destroyed.
func (m *Manager) Making(ctx context.Context) (making context.Context, end func()) {
	j := m.newJob()
	return j.making(ctx), j.end
}

// Keep makes a disk that was made under Making stay, although no VM has it.
func (m *Manager) Keep(ctx context.Context, vdi api.VDIRef) error {
	ctx, cancel := finishing(ctx)
	defer cancel()
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error { return keep(tx, vdi) })
}

// Hold enters an operation that somebody else performs on a VM, until it is released.
func (m *Manager) Hold(c *api.Call, ref api.VMRef, op api.VMOperations) (release func(), err error) {
	o, err := m.begin(c, ref, op, nil)
	if err != nil {
		return nil, err
	}
	return func() { _ = o.end(c, nil, nil) }, nil // which goes on until it is recorded
}

// Arrive writes VMs, all of them or none, in one transaction: first what also writes,
// which may be what they need. It may refuse, and sees all as it was.
func (m *Manager) Arrive(ctx context.Context, also func(*db.Tx) error, list []Arrival) ([]api.VMRef, error) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	refs := make([]api.VMRef, len(list))
	for i := range list {
		refs[i] = api.NewRef[api.VM]()
	}
	var gone map[api.VMRef]string
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) (err error) {
		if err := also(tx); err != nil {
			return err
		}
		if gone, err = m.makeRoom(tx, list, refs); err != nil {
			return err
		}
		for i := range list {
			if err := m.arrive(tx, refs, i, &list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for ref, uuid := range gone {
		m.forget(ref, uuid)
	}
	m.poke()
	return refs, nil
}

// makeRoom removes VMs that are replaced. What stood by them, snapshots and what came of
// them, stands by the new ones from before they go: a VM that is destroyed leaves what
// came of it to its own parent.
func (m *Manager) makeRoom(tx *db.Tx, list []Arrival, refs []api.VMRef) (map[api.VMRef]string, error) {
	gone, heirs := map[api.VMRef]string{}, map[api.VMRef]api.VMRef{}
	for i, a := range list {
		vm, err := db.Get(tx, a.Replaces)
		if a.Replaces.IsNull() || err != nil || heirs[a.Replaces] != "" {
			continue // nobody is in the way any more, or an arrival before takes the place
		}
		if vm.PowerState != api.VMPowerStateHalted && !vm.IsASnapshot {
			return nil, api.ErrVMBadPowerState(a.Replaces.String(), "halted", lower(vm.PowerState))
		}
		if err := check(a.Replaces, vm, api.VMOperationsDestroy); err != nil {
			return nil, err
		}
		gone[a.Replaces], heirs[a.Replaces] = vm.UUID, refs[i]
	}
	if err := inheritTree(tx, heirs); err != nil {
		return nil, err
	}
	for ref := range gone {
		vm, err := db.Edit(tx, ref)
		if err == nil {
			err = m.removeRows(tx, ref, vm)
		}
		if err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// inheritTree makes what stands by VMs stand by their heirs.
func inheritTree(tx *db.Tx, heirs map[api.VMRef]api.VMRef) error {
	var orphans []api.VMRef
	for ref, vm := range db.All[api.VM](tx) {
		if heirs[vm.SnapshotOf] != "" || heirs[vm.Parent] != "" {
			orphans = append(orphans, ref)
		}
	}
	for _, ref := range orphans {
		s, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		s.SnapshotOf, s.Parent = cmp.Or(heirs[s.SnapshotOf], s.SnapshotOf), cmp.Or(heirs[s.Parent], s.Parent)
	}
	return nil
}

// arrive writes one VM.
func (m *Manager) arrive(tx *db.Tx, refs []api.VMRef, i int, a *Arrival) error {
	ref, vm := refs[i], a.VM
	m.reset(vm)
	if vm.IsASnapshot = a.Of != Nowhere; vm.IsASnapshot {
		vm.SnapshotOf = refs[a.Of]
	}
	if a.Parent != Nowhere {
		vm.Parent = refs[a.Parent]
	}
	if !a.Memory.IsNull() {
		if err := keep(tx, a.Memory); err != nil {
			return err
		}
		memory, err := db.Edit(tx, a.Memory)
		if err != nil {
			return err
		}
		memory.Type = api.VDITypeSuspend // whatever its description says
		vm.PowerState, vm.SuspendVDI = api.VMPowerStateSuspended, a.Memory
	}
	insertAs(tx, ref, vm)
	for _, v := range a.VBDs {
		v.VM = ref
		if v.Type != api.VBDTypeCD {
			if err := keep(tx, v.VDI); err != nil {
				return err
			}
		}
		if err := insertVBD(tx, v); err != nil {
			return err
		}
	}
	for _, v := range a.VIFs {
		v.VM = ref
		insertVIF(tx, v)
	}
	for _, v := range a.VTPMs {
		v.VM = ref
		insertVTPM(tx, v)
	}
	return nil
}
