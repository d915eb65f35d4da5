package device

import (
	"context"
	"errors"
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/operation"
)

// allows is the check of an operation by the table.
func allows(ref api.VIFRef, op api.VIFOperations) func(*db.Tx, *api.VIF) error {
	return func(tx *db.Tx, v *api.VIF) error { return operation.VIF.Check(tx, ref, v, op) }
}

// letGo removes the port of a NIC that no domain has.
func (w *vifWork) letGo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := w.m.releasePort(ctx, w.host, w.ref); err != nil {
		w.m.cfg.Log.Warn("vif-port-later", "uuid", w.row.UUID, "err", err)
		w.m.leave()
	}
}

func (m *Manager) plugVIF(c *api.Call, ref api.VIFRef) error {
	w, err := m.beginVIF(c, ref, api.VIFOperationsPlug, func(tx *db.Tx, v *api.VIF) error {
		if err := allows(ref, api.VIFOperationsPlug)(tx, v); err != nil {
			return err
		}
		return onHost(tx, v)
	})
	if err != nil {
		return err
	}
	n, err := m.readyNIC(c, w.host, w.vm, ref, w.row)
	if err == nil {
		err = w.attach(c, n)
	}
	if err != nil {
		failed := w.end(c, err)
		w.letGo(c)
		return failed
	}
	return w.end(c, w.settle(c))
}

// onHost asks that the network of a NIC is there where its machine runs.
func onHost(r db.Reader, v *api.VIF) error {
	vm, err := db.Get(r, v.VM)
	if err != nil {
		return err
	}
	if !reachable(r, vm.ResidentOn, v.Network) {
		return api.ErrVMRequiresNetwork(v.VM.String(), v.Network.String())
	}
	return nil
}

func (w *vifWork) attach(ctx context.Context, n hypervisor.NIC) error {
	had, err := w.given(ctx, w.hv.AttachNIC(ctx, w.uuid, n), w.there)
	if had {
		err = errors.Join(err, w.record(ctx, func(v *api.VIF) { v.CurrentlyAttached = true }))
	}
	return w.answer("VIF", w.ref.String(), err)
}

func (w *vifWork) there(hw hypervisor.Hardware) bool {
	_, ok := hw.NIC(w.row.UUID)
	return ok
}

// settle is for NICs what it is for disks.
func (w *vifWork) settle(ctx context.Context) error {
	snap := w.m.cfg.DB.Snapshot()
	vm, err := db.Get(snap, w.machine.ref)
	if err == nil && w.same(snap) && len(vm.CurrentOperations) == 0 {
		return nil
	}
	there := w.has(ctx, w.there)
	err = w.record(ctx, func(v *api.VIF) { v.CurrentlyAttached = there })
	if err == nil && !there {
		defer w.letGo(ctx)
	}
	return err
}

// unplugVIFForce differs from unplug in nothing: a guest that holds on to a NIC
// cannot be forced.
func (m *Manager) unplugVIFForce(c *api.Call, ref api.VIFRef) error { return m.unplugVIF(c, ref) }

func (m *Manager) unplugVIF(c *api.Call, ref api.VIFRef) error {
	w, err := m.beginVIF(c, ref, api.VIFOperationsUnplug, allows(ref, api.VIFOperationsUnplug))
	if err != nil {
		return err
	}
	err = w.hv.DetachNIC(c, w.uuid, w.row.UUID)
	if !w.taken(c, err, w.there) {
		return w.end(c, w.detached("VIF", ref.String(), err))
	}
	err = w.record(c, func(v *api.VIF) { v.CurrentlyAttached = false })
	if err == nil {
		w.letGo(c)
	}
	return w.end(c, err)
}

// moveVIF takes a NIC to another network, under a running guest too. The row says
// so first: a crash in between is finished by Found.
func (m *Manager) moveVIF(c *api.Call, ref api.VIFRef, network api.NetworkRef) error {
	var was api.NetworkRef
	w, err := m.beginVIF(c, ref, api.VIFOperationsAttach, func(tx *db.Tx, v *api.VIF) error {
		was, v.Network = v.Network, network
		return movable(tx, ref, v)
	})
	if err != nil {
		return err
	}
	if !w.row.CurrentlyAttached || w.hv == nil {
		return w.end(c, nil)
	}
	if err = w.connect(c); err == nil {
		return w.end(c, nil)
	}
	if uerr := w.record(c, func(v *api.VIF) { v.Network = was }); uerr == nil {
		if uerr = w.connect(context.WithoutCancel(c)); uerr != nil {
			m.cfg.Log.Warn("vif-move-undo", "uuid", w.row.UUID, "err", uerr)
		}
	}
	return w.end(c, err)
}

// movable says why a NIC cannot go to the network its record names now.
func movable(tx *db.Tx, ref api.VIFRef, v *api.VIF) error {
	if _, err := db.Get(tx, v.Network); err != nil {
		return err
	}
	if task, op, busy := other(v.CurrentOperations, ""); busy {
		return api.ErrOtherOperationInProgress("VIF", ref.String(), string(op), task)
	}
	vm, err := db.Get(tx, v.VM)
	if err != nil {
		return err
	}
	states := []api.VMPowerState{api.VMPowerStateHalted, api.VMPowerStateRunning, api.VMPowerStatePaused}
	if !slices.Contains(states, vm.PowerState) {
		return api.ErrVMBadPowerState(v.VM.String(), "halted; running; paused", lower(vm.PowerState))
	}
	if v.CurrentlyAttached {
		return onHost(tx, v)
	}
	return nil
}

// connect joins the NIC to the network its row names.
func (w *vifWork) connect(ctx context.Context) error {
	n, err := w.m.readyNIC(ctx, w.host, w.vm, w.ref, w.row)
	if err != nil {
		return err
	}
	err = w.hv.UpdateNIC(ctx, w.uuid, n)
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil // it stopped meanwhile
	}
	return w.answer("VIF", w.ref.String(), err)
}
