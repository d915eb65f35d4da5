package vm

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// destroy removes a VM and what belongs to it alone, in one transaction. Its disks
// stay, as clients of this API expect, save the memory it was suspended with. What
// was made from a snapshot that goes counts to the snapshot before.
func (m *Manager) destroy(c *api.Call, ref api.VMRef) error {
	var uuid string
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		vm, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		uuid = vm.UUID
		if err := check(ref, vm, api.VMOperationsDestroy); err != nil {
			return err
		}
		if err := m.recordHalted(tx, ref, vm); err != nil { // its consoles, its memory
			return err
		}
		for _, child := range vm.Children {
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
	})
	if err == nil {
		m.forget(ref, uuid)
	}
	return err
}

// forget drops what is remembered of a VM that exists no more. A domain of it may
// still appear: see doomed.
func (m *Manager) forget(ref api.VMRef, uuid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.epochs, ref)
	delete(m.stops, uuid)
}
