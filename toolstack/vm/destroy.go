package vm

import (
	"context"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// destroy removes a VM and what belongs to it alone. Its disks stay, as clients of
// this API expect, save the memory it was suspended with. What was made from a
// snapshot that goes counts to the snapshot before. A destroy that was begun is
// finished after a crash: what the firmware remembered may be gone already.
func (m *Manager) destroy(c *api.Call, ref api.VMRef) error {
	vm, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return err
	}
	if !remembers(vm) {
		return m.vanish(c, ref, func(vm *api.VM) error { return check(ref, vm, api.VMOperationsDestroy) })
	}
	o, err := m.begin(c, ref, api.VMOperationsDestroy, nil)
	if err != nil {
		return err
	}
	return m.destroyBegun(c, o)
}

// remembers tells VMs of which there may be more than rows: variables of their
// firmware, secrets of their TPM.
func remembers(vm *api.VM) bool { return vm.HVMBootPolicy != "" }

func (m *Manager) destroyBegun(c *api.Call, o *running) error {
	for _, s := range m.sites {
		if err := s.Hypervisor.Erase(c, o.uuid); err != nil {
			m.cfg.Log.Warn("vm-not-erased", "uuid", o.uuid, "host", s.ref(), "err", err)
		}
	}
	ctx, cancel := finishing(c)
	defer cancel()
	if err := m.vanish(ctx, o.vm, func(*api.VM) error { return nil }); err != nil {
		return o.end(c, err, nil)
	}
	return nil
}

// vanish removes a VM's rows, if it may.
func (m *Manager) vanish(ctx context.Context, ref api.VMRef, may func(*api.VM) error) error {
	var uuid string
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		vm, err := db.Edit(tx, ref)
		if err == nil {
			err = may(vm)
		}
		if err != nil {
			return err
		}
		uuid = vm.UUID
		return m.removeRows(tx, ref, vm)
	})
	if err == nil {
		m.forget(ref, uuid)
	}
	return err
}

func (m *Manager) removeRows(tx *db.Tx, ref api.VMRef, vm *api.VM) error {
	if err := m.recordHalted(tx, ref, vm); err != nil { // its consoles, its memory
		return err
	}
	for _, child := range vm.Children {
		if now, err := db.Get(tx, child); err != nil || now.Parent != ref {
			continue // which went, or found another parent, in the same transaction
		}
		next, err := db.Edit(tx, child)
		if err != nil {
			return err
		}
		next.Parent = vm.Parent
	}
	if err := dropBelongings(tx, vm); err != nil {
		return err
	}
	return db.Delete(tx, ref)
}

// finishDestroys does again what a former process has begun.
func (m *Manager) finishDestroys(ctx context.Context) {
	for ref, op := range m.unfinished {
		if op != api.VMOperationsDestroy {
			continue
		}
		if err := m.destroy(&api.Call{Context: ctx, Task: noTask{}}, ref); err != nil {
			m.cfg.Log.Warn("vm-destroy-not-finished", "vm", ref, "err", err)
		}
	}
}

// forget drops what is remembered of a VM that exists no more. A domain of it may
// still appear: see doomed.
func (m *Manager) forget(ref api.VMRef, uuid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.epochs, ref)
	delete(m.stops, uuid)
}
