package device

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// createVBD makes a drive, which the domain gets by plug or with its next start.
func (m *Manager) createVBD(c *api.Call, args *api.VBD) (api.VBDRef, error) {
	v := args.Clone()
	v.UUID, v.Device = api.NewUUID(), ""
	v.CurrentlyAttached, v.StorageLock, v.CurrentOperations = false, false, nil
	v.StatusCode, v.StatusDetail, v.RuntimeProperties, v.Metrics = 0, "", nil, ""
	if v.Empty {
		v.VDI = ""
	}
	ref := api.NewRef[api.VBD]()
	return ref, m.cfg.DB.Update(c, func(tx *db.Tx) error {
		vm, err := db.Get(tx, v.VM)
		if err != nil {
			return err
		}
		if err := checkVBD(tx, v); err != nil {
			return err
		}
		if err := notMigrating(v.VM, vm); err != nil {
			return err
		}
		if v.Userdevice, err = choosePlace(tx, vm, v.Userdevice, v.Type); err != nil {
			return err
		}
		db.InsertAs(tx, ref, v)
		r, err := db.Edit(tx, ref)
		if err == nil {
			operation.VBD.Renew(tx, ref, r)
		}
		return err
	})
}

// checkVBD checks drive and disk against each other.
func checkVBD(r db.Reader, v *api.VBD) error {
	var vdi *api.VDI
	if !v.Empty {
		var err error
		if vdi, err = db.Get(r, v.VDI); err != nil {
			return err
		}
	}
	switch {
	case v.Type == api.VBDTypeFloppy:
		return api.ErrValueNotSupported("type", "Floppy", "machines have no floppy controller")
	case v.Type == api.VBDTypeCD && v.Mode != api.VBDModeRO:
		return api.ErrVBDCdsMustBeReadonly()
	case v.Type != api.VBDTypeCD && v.Empty:
		return api.ErrVBDNotRemovableMedia("in constructor")
	case vdi != nil && !vdi.Managed:
		return api.ErrVDINotManaged(v.VDI.String())
	case vdi != nil && vdi.Type == api.VDITypeCBTMetadata:
		return api.ErrVDIIncompatibleType(v.VDI.String(), string(vdi.Type))
	case vdi != nil && v.Mode == api.VBDModeRW && vdi.ReadOnly:
		return api.ErrVDIReadonly(v.VDI.String())
	}
	return nil
}

// notMigrating: what moves to another host takes the devices it began with.
func notMigrating(ref api.VMRef, vm *api.VM) error {
	for task, op := range vm.CurrentOperations {
		if op == api.VMOperationsMigrateSend || op == api.VMOperationsPoolMigrate {
			return api.ErrOtherOperationInProgress("VM", ref.String(), string(op), task)
		}
	}
	return nil
}

func (m *Manager) destroyVBD(c *api.Call, ref api.VBDRef) error {
	return m.cfg.DB.Update(c, func(tx *db.Tx) error {
		v, err := db.Get(tx, ref)
		if err != nil {
			return err
		}
		if task, op, busy := other(v.CurrentOperations, ""); busy {
			return api.ErrOtherOperationInProgress("VBD", ref.String(), string(op), task)
		}
		if v.CurrentlyAttached {
			return api.ErrOperationNotAllowed("VBD '" + v.UUID + "' still attached to '" + uuidOf(tx, v.VM) + "'")
		}
		return db.Delete(tx, ref)
	})
}

func uuidOf(r db.Reader, ref api.VMRef) string {
	vm, err := db.Get(r, ref)
	if err != nil {
		return ref.String()
	}
	return vm.UUID
}

// setMode changes what the next start goes by.
func (m *Manager) setMode(c *api.Call, ref api.VBDRef, mode api.VBDMode) error {
	return m.changeVBD(c, ref, func(tx *db.Tx, v *api.VBD) error {
		v.Mode = mode
		return checkVBD(tx, v)
	})
}

// setType makes a disk's drive a CD drive or the other way round, for the next start.
func (m *Manager) setType(c *api.Call, args []api.Value) (api.Result, error) {
	kind := api.VBDType(args[1].Text)
	return api.Void{}, m.changeVBD(c, api.VBDRef(api.ParseRef(args[0].Text)), func(tx *db.Tx, v *api.VBD) error {
		v.Type = kind
		return checkVBD(tx, v)
	})
}

// setUserdevice moves a drive to another place, for the next start.
func (m *Manager) setUserdevice(c *api.Call, args []api.Value) (api.Result, error) {
	userdevice := args[1].Text
	return api.Void{}, m.changeVBD(c, api.VBDRef(api.ParseRef(args[0].Text)), func(tx *db.Tx, v *api.VBD) error {
		vm, err := db.Get(tx, v.VM)
		if err != nil {
			return err
		}
		if n, ok := Place(userdevice); ok {
			if have, _ := Place(v.Userdevice); have == n {
				return nil
			}
		}
		v.Userdevice, err = choosePlace(tx, vm, userdevice, v.Type)
		return err
	})
}

// changeVBD edits a drive of a halted machine.
func (m *Manager) changeVBD(c *api.Call, ref api.VBDRef, change func(*db.Tx, *api.VBD) error) error {
	return db.Modify(c, m.cfg.DB, ref, func(tx *db.Tx, v *api.VBD) error {
		if task, op, busy := other(v.CurrentOperations, ""); busy {
			return api.ErrOtherOperationInProgress("VBD", ref.String(), string(op), task)
		}
		vm, err := db.Get(tx, v.VM)
		if err != nil {
			return err
		}
		if vm.PowerState != api.VMPowerStateHalted {
			return api.ErrVMBadPowerState(v.VM.String(), "halted", lower(vm.PowerState))
		}
		if err := change(tx, v); err != nil {
			return err
		}
		operation.VBD.Renew(tx, ref, v)
		return nil
	})
}

func (m *Manager) assertAttachable(_ *api.Call, ref api.VBDRef) error {
	snap := m.cfg.DB.Snapshot()
	v, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	return operation.VBD.Check(snap, ref, v, api.VBDOperationsAttach)
}
