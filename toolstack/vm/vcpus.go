package vm

import (
	"context"
	"errors"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// setVCPUsNumberLive changes how many vCPUs the running guest has, and has the
// next start begin with as many.
func (m *Manager) setVCPUsNumberLive(c *api.Call, ref api.VMRef, n int64) error {
	o, err := m.begin(c, ref, api.VMOperationsChangingVCPUsLive, func(_ *db.Tx, vm *api.VM) error {
		if n < 1 || n > vm.VCPUsMax {
			return api.ErrInvalidValue("nvcpu", strconv.FormatInt(n, 10))
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = o.site.Hypervisor.SetVCPUs(c, o.uuid, int(n))
	if err != nil { // it may have got, or given up, some
		m.lookAgain(map[string]bool{o.uuid: true}, false)
	}
	if errors.Is(err, hypervisor.ErrUnsupported) || errors.Is(err, hypervisor.ErrBusy) {
		err = api.ErrOperationNotAllowed("the guest does not give up vCPUs: " + err.Error())
	}
	return o.end(c, hvError(ref, err), func(tx *db.Tx, vm *api.VM) error {
		if err != nil {
			return nil
		}
		vm.VCPUsAtStartup = n
		return writeVCPUs(tx, vm, n)
	})
}

func writeVCPUs(tx *db.Tx, vm *api.VM, n int64) error {
	metrics, err := db.Edit(tx, vm.Metrics)
	if err == nil {
		metrics.VCPUsNumber = n
	}
	return err
}

// recordVCPUs writes down how many a domain has.
func (m *Manager) recordVCPUs(ctx context.Context, ref api.VMRef, f finding, n int64) error {
	snap := m.cfg.DB.Snapshot()
	vm, err := db.Get(snap, ref)
	if err != nil {
		return nil
	}
	metrics, err := db.Get(snap, vm.Metrics)
	if err != nil || n == 0 || metrics.VCPUsNumber == n {
		return nil
	}
	done, err := m.settled(ctx, ref, f, func(tx *db.Tx, vm *api.VM) error { return writeVCPUs(tx, vm, n) })
	if err == nil && !done {
		return errStale
	}
	return err
}
