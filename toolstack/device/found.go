package device

import (
	"context"
	"errors"
	"fmt"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// Found makes rows and domain agree where a crash left them apart: the rows say
// what the domain has, then what is neither in the domain nor about to be is let
// go, and drives hold what their rows say. Devices with an operation in progress
// are left to it.
func (m *Manager) Found(ctx context.Context, host api.HostRef, ref api.VMRef) (recorded bool, err error) {
	epoch := m.epoch.Load()
	vm, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return false, err
	}
	hv := m.cfg.Hypervisor(host)
	if hv == nil {
		return false, fmt.Errorf("host %s: %w", host, hypervisor.ErrUnavailable)
	}
	hw, err := hv.Hardware(ctx, vm.UUID)
	if err != nil {
		return false, err
	}
	if err := m.record(ctx, ref, hw, epoch); err != nil {
		return false, err
	}
	failed := []error{m.Release(ctx, host, ref)}
	snap := m.cfg.DB.Snapshot()
	for _, vbd := range vm.VBDs {
		if v, err := db.Get(snap, vbd); err == nil && v.CurrentlyAttached && len(v.CurrentOperations) == 0 {
			failed = append(failed, m.agree(ctx, host, hv, vm, v, hw))
		}
	}
	for _, vif := range vm.VIFs {
		if v, err := db.Get(snap, vif); err == nil && v.CurrentlyAttached && len(v.CurrentOperations) == 0 {
			failed = append(failed, m.reconnect(ctx, host, hv, vm, vif, v, hw))
		}
	}
	return true, errors.Join(failed...)
}

// errStale is a finding that an operation has overtaken.
var errStale = errors.New("an operation on a device began or ended meanwhile")

// record writes down what the domain had in an epoch, if that is still so.
func (m *Manager) record(ctx context.Context, ref api.VMRef, hw hypervisor.Hardware, epoch uint64) error {
	if m.recorded(ref, hw) {
		return nil
	}
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		if m.epoch.Load() != epoch {
			return errStale
		}
		return m.each(tx, ref, func(_ api.VBDRef, v *api.VBD) {
			if _, there := hw.Disk(v.UUID); len(v.CurrentOperations) == 0 && there != v.CurrentlyAttached {
				m.cfg.Log.Info("vbd-found", "uuid", v.UUID, "attached", there)
				attachedVBD(v, there)
			}
		}, func(_ api.VIFRef, v *api.VIF) {
			if _, there := hw.NIC(v.UUID); len(v.CurrentOperations) == 0 && there != v.CurrentlyAttached {
				m.cfg.Log.Info("vif-found", "uuid", v.UUID, "attached", there)
				v.CurrentlyAttached = there
			}
		})
	})
}

// recorded reports whether the rows are right already.
func (m *Manager) recorded(ref api.VMRef, hw hypervisor.Hardware) bool {
	snap := m.cfg.DB.Snapshot()
	vm, err := db.Get(snap, ref)
	if err != nil {
		return true
	}
	for _, vbd := range vm.VBDs {
		if v, err := db.Get(snap, vbd); err == nil {
			if _, there := hw.Disk(v.UUID); there != v.CurrentlyAttached {
				return false
			}
		}
	}
	for _, vif := range vm.VIFs {
		if v, err := db.Get(snap, vif); err == nil {
			if _, there := hw.NIC(v.UUID); there != v.CurrentlyAttached {
				return false
			}
		}
	}
	return true
}

// agree finishes or undoes a change of a drive's medium.
func (m *Manager) agree(ctx context.Context, host api.HostRef, hv hypervisor.Hypervisor, vm *api.VM, v *api.VBD, hw hypervisor.Hardware) error {
	has, there := hw.Disk(v.UUID)
	want, vdi := describe(m.cfg.DB.Snapshot(), vm, v)
	if !there || !want.CD || (has.Source == nil) == vdi.IsNull() {
		return nil
	}
	m.cfg.Log.Info("vbd-medium-repaired", "uuid", v.UUID, "empty", vdi.IsNull())
	if vdi.IsNull() {
		return hv.ChangeMedia(ctx, vm.UUID, v.UUID, nil)
	}
	want, err := m.readyDisk(ctx, host, vm, v)
	if err != nil {
		return err
	}
	return hv.ChangeMedia(ctx, vm.UUID, v.UUID, want.Source)
}

// reconnect makes a NIC's port anew, which costs nothing when it is there, and
// finishes or undoes a move to another network.
func (m *Manager) reconnect(ctx context.Context, host api.HostRef, hv hypervisor.Hypervisor, vm *api.VM, ref api.VIFRef, v *api.VIF, hw hypervisor.Hardware) error {
	want, err := m.readyNIC(ctx, host, vm, ref, v)
	if err != nil {
		return err
	}
	has, there := hw.NIC(v.UUID)
	if !there || has.Bridge == want.Bridge {
		return nil
	}
	m.cfg.Log.Info("vif-moved", "uuid", v.UUID, "was", has.Bridge, "is", want.Bridge)
	return hv.UpdateNIC(ctx, vm.UUID, want)
}

// attachedKey of VDI.sm_config, before a host's reference, says that the storage
// has the disk ready there.
const attachedKey = "host_"

// Sweep lets go of all disks a host has ready for nobody, as after a crash. The
// images of suspended machines' memory are not drives' and left alone.
func (m *Manager) Sweep(ctx context.Context, host api.HostRef) error {
	var failed []error
	for ref, vdi := range db.All[api.VDI](m.cfg.DB.Snapshot()) {
		if vdi.SMConfig[attachedKey+string(host)] == "" || vdi.Type == api.VDITypeSuspend || len(vdi.CurrentOperations) > 0 {
			continue
		}
		failed = append(failed, m.releaseDisk(ctx, host, ref))
	}
	return errors.Join(failed...)
}
