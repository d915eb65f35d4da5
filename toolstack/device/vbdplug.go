package device

import (
	"context"
	"errors"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/operation"
)

func lower(s api.VMPowerState) string { return strings.ToLower(string(s)) }

// awaitTruth keeps what takes a disk until the rows say who has it.
func (m *Manager) awaitTruth(ctx context.Context) error {
	if m.cfg.True == nil {
		return nil
	}
	select {
	case <-m.cfg.True:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *Manager) plugVBD(c *api.Call, ref api.VBDRef) error {
	if err := m.awaitTruth(c); err != nil {
		return err
	}
	w, err := m.beginVBD(c, ref, api.VBDOperationsPlug, func(tx *db.Tx, v *api.VBD) error {
		vm, err := db.Get(tx, v.VM)
		if err != nil {
			return err
		}
		return checkDisk(tx, vm.ResidentOn, v.VM, v)
	})
	if err != nil {
		return err
	}
	d, err := m.readyDisk(c, w.host, w.vm, w.row)
	if err == nil {
		err = w.attach(c, d)
	}
	if err != nil {
		failed := w.end(c, err) // what keeps the disk is this operation
		m.letGo(c, w.host, inside(w.row))
		return failed
	}
	return w.end(c, w.settle(c))
}

// attach gives the domain the disk; without success it has none, or that cannot be
// told: then the row says it has, and the answer that nobody knows.
func (w *vbdWork) attach(ctx context.Context, d hypervisor.Disk) error {
	had, err := w.given(ctx, w.hv.AttachDisk(ctx, w.uuid, d), func(hw hypervisor.Hardware) bool { _, there := hw.Disk(d.ID); return there })
	if had {
		err = errors.Join(err, w.record(ctx, func(v *api.VBD) { attachedVBD(v, true) }))
	}
	return w.answer("VBD", w.ref.String(), err)
}

// given settles the answer to giving a domain a device: whether it has it, and what to
// answer.
func (x machine) given(ctx context.Context, err error, here func(hypervisor.Hardware) bool) (had bool, _ error) {
	if err == nil || plain(err) {
		return err == nil, err
	}
	had, unsure := x.tell(ctx, here)
	switch {
	case had && unsure == nil:
		return true, nil
	case inDoubt(err):
		return had, err
	}
	if gone := x.hv.Settled(ctx, x.uuid); errors.Is(gone, hypervisor.ErrNotFound) {
		return false, gone // QEMU has ended under it
	}
	return false, err
}

// plain are the answers that leave no doubt.
func plain(err error) bool {
	for _, known := range []error{hypervisor.ErrNotFound, hypervisor.ErrBusy, hypervisor.ErrUnsupported, hypervisor.ErrUnavailable} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// inDoubt: the domain may have the device all the same.
func inDoubt(err error) bool {
	return errors.Is(err, hypervisor.ErrUnknownOutcome) || errors.Is(err, hypervisor.ErrExists)
}

// settle looks again when the machine was stopped or restarted while the domain
// changed: whoever did that may have recorded before this did.
func (w *vbdWork) settle(ctx context.Context) error {
	snap := w.m.cfg.DB.Snapshot()
	vm, err := db.Get(snap, w.machine.ref)
	if err == nil && w.same(snap) && len(vm.CurrentOperations) == 0 {
		return nil
	}
	there := w.has(ctx, func(hw hypervisor.Hardware) bool { _, ok := hw.Disk(w.row.UUID); return ok })
	err = w.record(ctx, func(v *api.VBD) { attachedVBD(v, there) })
	if err == nil && !there {
		w.m.letGo(ctx, w.host, inside(w.row))
	}
	return err
}

func (m *Manager) unplugVBD(c *api.Call, ref api.VBDRef) error {
	return m.unplugDisk(c, ref, api.VBDOperationsUnplug)
}

// unplugVBDForce differs in that it asks for no mark that the drive may be
// unplugged. A guest that holds on cannot be forced: its disk would be torn from
// under it.
func (m *Manager) unplugVBDForce(c *api.Call, ref api.VBDRef) error {
	return m.unplugDisk(c, ref, api.VBDOperationsUnplugForce)
}

// unplugDisk: the guest lets go, the row says so, and then the host does.
func (m *Manager) unplugDisk(c *api.Call, ref api.VBDRef, op api.VBDOperations) error {
	w, err := m.beginVBD(c, ref, op, nil)
	if err != nil {
		return err
	}
	err = w.hv.DetachDisk(c, w.uuid, w.row.UUID)
	there := func(hw hypervisor.Hardware) bool { _, there := hw.Disk(w.row.UUID); return there }
	if !w.taken(c, err, there) {
		return w.end(c, w.detached("VBD", ref.String(), err))
	}
	err = w.record(c, func(v *api.VBD) { attachedVBD(v, false) })
	if err == nil {
		m.letGo(c, w.host, inside(w.row))
	}
	return w.end(c, err)
}

// taken settles the answer to taking a device away: whether the domain is rid of it. A
// QEMU that ends meanwhile answers in many ways, and has nothing any more.
func (x machine) taken(ctx context.Context, err error, here func(hypervisor.Hardware) bool) bool {
	switch {
	case err == nil, errors.Is(err, hypervisor.ErrNotFound): // or the machine has stopped
		return true
	case errors.Is(err, hypervisor.ErrBusy), errors.Is(err, hypervisor.ErrUnsupported):
		return false
	}
	return !x.has(ctx, here)
}

// insert puts a disk image into a drive. The row says so first: a crash in
// between is finished by Found.
func (m *Manager) insert(c *api.Call, ref api.VBDRef, vdi api.VDIRef) error {
	if err := m.awaitTruth(c); err != nil {
		return err
	}
	w, err := m.beginVBD(c, ref, api.VBDOperationsInsert, func(tx *db.Tx, v *api.VBD) error {
		v.VDI, v.Empty = vdi, false
		return checkMedium(tx, ref, v)
	})
	if err != nil {
		return err
	}
	if !w.row.CurrentlyAttached || w.hv == nil {
		return w.end(c, nil)
	}
	d, err := m.readyDisk(c, w.host, w.vm, w.row)
	if err == nil {
		err = w.medium(c, d.Source)
	}
	if err == nil {
		return w.end(c, nil)
	}
	uerr := w.record(c, func(v *api.VBD) { v.VDI, v.Empty = "", true })
	if uerr == nil {
		m.letGo(c, w.host, vdi)
	}
	return w.end(c, err)
}

// eject takes the image out of a drive; the row follows, then the host.
func (m *Manager) eject(c *api.Call, ref api.VBDRef) error {
	w, err := m.beginVBD(c, ref, api.VBDOperationsEject, nil)
	if err != nil {
		return err
	}
	if w.row.CurrentlyAttached && w.hv != nil {
		if err := w.medium(c, nil); err != nil {
			return w.end(c, err)
		}
	}
	vdi := w.row.VDI
	err = w.record(c, func(v *api.VBD) { v.VDI, v.Empty = "", true })
	if err == nil && w.hv != nil {
		m.letGo(c, w.host, vdi)
	}
	return w.end(c, err)
}

// medium changes what is in the domain's drive. A machine that stopped meanwhile
// needs nothing.
func (w *vbdWork) medium(ctx context.Context, s *hypervisor.Source) error {
	err := w.hv.ChangeMedia(ctx, w.uuid, w.row.UUID, s)
	other := func(hw hypervisor.Hardware) bool {
		d, there := hw.Disk(w.row.UUID)
		return there && (d.Source == nil) != (s == nil)
	}
	switch {
	case errors.Is(err, hypervisor.ErrNotFound):
		return nil
	case errors.Is(err, hypervisor.ErrUnknownOutcome) && !w.has(ctx, other):
		return nil
	case errors.Is(err, hypervisor.ErrBusy):
		return api.ErrVBDTrayLocked(w.ref.String())
	default:
		return w.answer("VBD", w.ref.String(), err)
	}
}

// checkMedium says why an image cannot be put into a drive.
func checkMedium(tx *db.Tx, ref api.VBDRef, v *api.VBD) error {
	vdi, err := db.Get(tx, v.VDI)
	if err != nil {
		return err
	}
	if !vdi.Managed {
		return api.ErrVDINotManaged(v.VDI.String())
	}
	if err := operation.DiskFree(tx, ref, v, api.VBDOperationsInsert); err != nil {
		return err
	}
	vm, err := db.Get(tx, v.VM)
	if err != nil || !v.CurrentlyAttached {
		return err
	}
	return checkDisk(tx, vm.ResidentOn, v.VM, v)
}
