package vm

import (
	"maps"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// maxVTPMs is how many a VM may have.
const maxVTPMs = "1"

// createVTPM gives a halted VM a TPM. One that is unique is never copied: what is
// made of the VM begins with an empty one.
func (m *Manager) createVTPM(c *api.Call, ref api.VMRef, unique bool) (made api.VTPMRef, err error) {
	err = m.edit(c, ref, func(tx *db.Tx, vm *api.VM) error {
		switch err := check(ref, vm, api.VMOperationsCreateVTPM); {
		case err != nil:
			return err
		case vm.HVMBootPolicy == "":
			return api.ErrVMHvmRequired(ref.String())
		case len(vm.VTPMs) > 0:
			return api.ErrVTPMMaxAmountReached(maxVTPMs)
		}
		made = newVTPM(tx, ref, unique)
		return nil
	})
	return made, err
}

func newVTPM(tx *db.Tx, vm api.VMRef, unique bool) api.VTPMRef {
	v := api.NewVTPM()
	v.UUID, v.VM, v.IsUnique = api.NewUUID(), vm, unique
	return insertVTPM(tx, v)
}

// wantedVTPM makes the TPM of a VM about to start whose template asks for one and
// that nobody has given one yet.
func wantedVTPM(tx *db.Tx, ref api.VMRef, vm *api.VM) {
	if vm.HVMBootPolicy != "" && len(vm.VTPMs) == 0 && on(vm.Platform[vtpmKey]) {
		newVTPM(tx, ref, false)
	}
}

// destroyVTPM takes a halted VM's TPM away, with all that is in it; what was locked
// with its keys cannot be unlocked any more. The secrets go first: cut off in
// between, there is an empty TPM to destroy again.
func (m *Manager) destroyVTPM(c *api.Call, ref api.VTPMRef) error {
	tpm, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return err
	}
	o, err := m.begin(c, tpm.VM, api.VMOperationsChangingNVRAM, func(tx *db.Tx, _ *api.VM) error {
		_, err := db.Get(tx, ref)
		return err
	})
	if err != nil {
		return err
	}
	if m.cfg.NVRAM != nil { // nobody is called that, so there is nothing to be had from there
		nobody := client.NVRAM{From: api.NewUUID(), TPM: true}
		if err := m.cfg.NVRAM.CopyNVRAM(c, o.uuid, nobody); err != nil {
			return o.end(c, asCancelled(c, err), nil)
		}
	}
	return o.finish(c, func(tx *db.Tx, vm *api.VM) error {
		vm.Platform = maps.Clone(vm.Platform)
		delete(vm.Platform, vtpmKey) // or the next start would make another
		return db.Delete(tx, ref)
	})
}
