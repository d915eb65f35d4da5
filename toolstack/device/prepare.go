package device

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/operation"
)

// undoTimeout bounds letting go of what a failed call had made ready.
const undoTimeout = 30 * time.Second

// Reserve takes a machine's devices for the domain it is about to get, in the
// transaction that records that intent: from then on nobody else may use its
// disks or change its devices, until Started or Stopped. A device with an
// operation in progress forbids a start; a restart leaves it to that operation.
func (m *Manager) Reserve(tx *db.Tx, ref api.VMRef, task string) error {
	vm, err := db.Get(tx, ref)
	if err != nil {
		return err
	}
	m.epoch.Add(1)
	restart := vm.PowerState == api.VMPowerStateRunning || vm.PowerState == api.VMPowerStatePaused
	saved := vm.PowerState == api.VMPowerStateSuspended && anyAttached(tx, vm)
	for _, vbd := range vm.VBDs {
		if err := reserveVBD(tx, vbd, task, restart, saved); err != nil {
			return err
		}
	}
	for _, vif := range vm.VIFs {
		v, err := db.Edit(tx, vif)
		if err != nil {
			return err
		}
		if by, op, busy := other(v.CurrentOperations, task); busy {
			if restart {
				continue
			}
			return api.ErrOtherOperationInProgress("VIF", vif.String(), string(op), by)
		}
		operation.VIF.Enter(tx, vif, v, api.VIFOperationsAttach, task)
	}
	return nil
}

// anyAttached: the rows tell which drives a saved domain has. After a revert they do
// not, and every drive may be one of them.
func anyAttached(r db.Reader, vm *api.VM) bool {
	return slices.ContainsFunc(vm.VBDs, func(ref api.VBDRef) bool {
		v, err := db.Get(r, ref)
		return err == nil && v.CurrentlyAttached
	})
}

// reserveVBD takes a drive, or leaves it: in a restart to whoever is busy with it,
// and of a saved domain to whoever uses the disk if the domain had it not.
func reserveVBD(tx *db.Tx, ref api.VBDRef, task string, restart, saved bool) error {
	v, err := db.Edit(tx, ref)
	if err != nil {
		return err
	}
	if by, op, busy := other(v.CurrentOperations, task); busy {
		if restart {
			return nil
		}
		return api.ErrOtherOperationInProgress("VBD", ref.String(), string(op), by)
	}
	if err := operation.DiskFree(tx, ref, v, api.VBDOperationsAttach); err != nil {
		if saved && !v.CurrentlyAttached {
			return nil
		}
		return err
	}
	operation.VBD.Enter(tx, ref, v, api.VBDOperationsAttach, task)
	return nil
}

// other finds an operation of another task.
func other[O ~string](current map[string]O, task string) (by string, op O, busy bool) {
	for t, o := range current {
		if t != task {
			return t, o, true
		}
	}
	return "", "", false
}

// Prepare makes all reserved devices of a machine ready on a host and says what
// its domain needs to know of them. When one fails none is kept.
func (m *Manager) Prepare(ctx context.Context, host api.HostRef, ref api.VMRef) ([]hypervisor.Disk, []hypervisor.NIC, error) {
	disks, nics, err := m.prepare(ctx, host, ref)
	if err == nil {
		return disks, nics, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if uerr := m.giveUp(undo, host, ref); uerr != nil {
		m.cfg.Log.Warn("device-undo-later", "vm", ref, "err", uerr)
	}
	return nil, nil, err
}

func (m *Manager) prepare(ctx context.Context, host api.HostRef, ref api.VMRef) ([]hypervisor.Disk, []hypervisor.NIC, error) {
	snap := m.cfg.DB.Snapshot()
	vm, err := db.Get(snap, ref)
	if err != nil {
		return nil, nil, err
	}
	var disks []hypervisor.Disk
	for _, vbd := range byPlace(snap, vm) {
		v, err := db.Get(snap, vbd)
		if err != nil || !reserved(v.CurrentOperations, api.VBDOperationsAttach) {
			continue
		}
		d, err := m.readyDisk(ctx, host, vm, v)
		if err != nil {
			return nil, nil, err
		}
		disks = append(disks, d)
	}
	var nics []hypervisor.NIC
	for _, vif := range byDevice(snap, vm) {
		v, err := db.Get(snap, vif)
		if err != nil || !reserved(v.CurrentOperations, api.VIFOperationsAttach) {
			continue
		}
		n, err := m.readyNIC(ctx, host, vm, vif, v)
		if err != nil {
			return nil, nil, err
		}
		nics = append(nics, n)
	}
	return disks, nics, nil
}

func reserved[O ~string](current map[string]O, op O) bool {
	for _, o := range current {
		if o == op {
			return true
		}
	}
	return false
}

// byPlace lists a machine's disks and drives in the order of their places.
func byPlace(r db.Reader, vm *api.VM) []api.VBDRef {
	at := func(ref api.VBDRef) int {
		v, err := db.Get(r, ref)
		if err != nil {
			return maxVBDs
		}
		n, _ := Place(v.Userdevice)
		return n
	}
	return slices.SortedFunc(slices.Values(vm.VBDs), func(a, b api.VBDRef) int { return cmp.Compare(at(a), at(b)) })
}

func byDevice(r db.Reader, vm *api.VM) []api.VIFRef {
	at := func(ref api.VIFRef) int {
		v, err := db.Get(r, ref)
		if err != nil {
			return maxVIFs
		}
		n, _ := VIFPlace(v.Device)
		return n
	}
	return slices.SortedFunc(slices.Values(vm.VIFs), func(a, b api.VIFRef) int { return cmp.Compare(at(a), at(b)) })
}

// readyDisk attaches what is in a drive, if anything, and describes the drive.
func (m *Manager) readyDisk(ctx context.Context, host api.HostRef, vm *api.VM, v *api.VBD) (hypervisor.Disk, error) {
	d, vdi := describe(m.cfg.DB.Snapshot(), vm, v)
	if vdi.IsNull() {
		return d, nil
	}
	release, err := m.disks.Hold(ctx, vdi)
	if err != nil {
		return d, err
	}
	defer release()
	if err := m.reset(ctx, host, vm, v); err != nil {
		return d, err
	}
	d.Source, err = m.cfg.Storage.Attach(ctx, host, vdi, v.Mode == api.VBDModeRW)
	return d, err
}

// reset lets go of a disk that begins anew with each domain. A suspended machine
// goes on with what it had.
func (m *Manager) reset(ctx context.Context, host api.HostRef, vm *api.VM, v *api.VBD) error {
	disk, err := db.Get(m.cfg.DB.Snapshot(), v.VDI)
	if err != nil || disk.OnBoot != api.OnBootReset || disk.Sharable || v.Mode != api.VBDModeRW || vm.PowerState == api.VMPowerStateSuspended {
		return nil
	}
	return m.cfg.Storage.Detach(ctx, host, v.VDI)
}

// diskBus of VM.platform puts disks where guests without drivers find them.
const (
	diskBus  = "disk-bus"
	nicModel = "nic-model"
)

// describe says what a domain needs to know of a drive, all but where its disk
// is, and which disk is in it.
func describe(r db.Reader, vm *api.VM, v *api.VBD) (hypervisor.Disk, api.VDIRef) {
	n, _ := Place(v.Userdevice)
	d := hypervisor.Disk{
		ID: v.UUID, Device: diskName(n), Bus: hypervisor.SCSI,
		CD: v.Type == api.VBDTypeCD, ReadOnly: v.Mode == api.VBDModeRO,
	}
	if d.CD || vm.Platform[diskBus] == string(hypervisor.SATA) {
		d.Bus = hypervisor.SATA
	}
	vdi := inside(v)
	if disk, err := db.Get(r, vdi); err == nil {
		d.Shareable, d.Serial = disk.Sharable, disk.UUID
	} else if d.CD {
		vdi = "" // the image was destroyed while nobody used it
	}
	return d, vdi
}

// inside is the disk in a drive, null when there is none.
func inside(v *api.VBD) api.VDIRef {
	if v.Empty {
		return ""
	}
	return v.VDI
}

// readyNIC makes a NIC's port.
func (m *Manager) readyNIC(ctx context.Context, host api.HostRef, vm *api.VM, ref api.VIFRef, v *api.VIF) (hypervisor.NIC, error) {
	release, err := m.ports.Hold(ctx, ref)
	if err != nil {
		return hypervisor.NIC{}, err
	}
	defer release()
	n, err := m.cfg.Network.Plug(ctx, host, ref)
	n.ID = v.UUID
	if n.Model == "" {
		n.Model = vm.Platform[nicModel]
	}
	return n, err
}

// Started records, in the transaction that records the start, that the domain has
// what was reserved.
func (m *Manager) Started(tx *db.Tx, ref api.VMRef) error {
	m.epoch.Add(1)
	return m.each(tx, ref, func(vbd api.VBDRef, v *api.VBD) {
		if !take(v.CurrentOperations, api.VBDOperationsAttach) {
			return
		}
		attachedVBD(v, true)
	}, func(vif api.VIFRef, v *api.VIF) {
		if take(v.CurrentOperations, api.VIFOperationsAttach) {
			v.CurrentlyAttached = true
		}
	})
}

// Stopped records that there is no domain, and none under way. Release follows.
func (m *Manager) Stopped(tx *db.Tx, ref api.VMRef) error {
	m.epoch.Add(1)
	return m.each(tx, ref, func(_ api.VBDRef, v *api.VBD) {
		take(v.CurrentOperations, api.VBDOperationsAttach)
		attachedVBD(v, false)
	}, func(_ api.VIFRef, v *api.VIF) {
		take(v.CurrentOperations, api.VIFOperationsAttach)
		v.CurrentlyAttached = false
	})
}

// attachedVBD keeps device, the name of an attached disk, in step.
func attachedVBD(v *api.VBD, is bool) {
	v.CurrentlyAttached, v.Device = is, ""
	if n, ok := Place(v.Userdevice); ok && is {
		v.Device = diskName(n)
	}
}

// take removes an operation and reports whether it was there.
func take[O ~string](current map[string]O, op O) bool {
	found := false
	for task, o := range current {
		if o == op {
			delete(current, task)
			found = true
		}
	}
	return found
}

// each edits all devices of a machine.
func (m *Manager) each(tx *db.Tx, ref api.VMRef, disk func(api.VBDRef, *api.VBD), nic func(api.VIFRef, *api.VIF)) error {
	vm, err := db.Get(tx, ref)
	if err != nil {
		return err
	}
	for _, vbd := range vm.VBDs {
		v, err := db.Edit(tx, vbd)
		if err != nil {
			return err
		}
		disk(vbd, v)
		operation.VBD.Renew(tx, vbd, v)
	}
	for _, vif := range vm.VIFs {
		v, err := db.Edit(tx, vif)
		if err != nil {
			return err
		}
		nic(vif, v)
		operation.VIF.Renew(tx, vif, v)
	}
	return nil
}

// giveUp ends a reservation and lets go of what was made ready.
func (m *Manager) giveUp(ctx context.Context, host api.HostRef, ref api.VMRef) error {
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		m.epoch.Add(1)
		return m.each(tx, ref,
			func(_ api.VBDRef, v *api.VBD) { take(v.CurrentOperations, api.VBDOperationsAttach) },
			func(_ api.VIFRef, v *api.VIF) { take(v.CurrentOperations, api.VIFOperationsAttach) })
	})
	return errors.Join(err, m.Release(ctx, host, ref))
}

// Release lets go of the host's side of each device of a machine that nothing
// uses. It is idempotent, and goes on after an error.
func (m *Manager) Release(ctx context.Context, host api.HostRef, ref api.VMRef) error {
	snap := m.cfg.DB.Snapshot()
	vm, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	var failed []error
	for _, vbd := range vm.VBDs {
		if v, err := db.Get(snap, vbd); err == nil && !inside(v).IsNull() {
			failed = append(failed, m.releaseDisk(ctx, host, v.VDI))
		}
	}
	for _, vif := range vm.VIFs {
		failed = append(failed, m.releasePort(ctx, host, vif))
	}
	return errors.Join(failed...)
}

// releaseDisk detaches a disk that no machine of the host uses or is about to.
func (m *Manager) releaseDisk(ctx context.Context, host api.HostRef, vdi api.VDIRef) error {
	release, err := m.disks.Hold(ctx, vdi)
	if err != nil {
		return err
	}
	defer release()
	snap := m.cfg.DB.Snapshot() // after whoever held it has recorded why
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return nil // it is gone, and with it what there was to detach
	}
	for _, vbd := range disk.VBDs {
		if v, err := db.Get(snap, vbd); err == nil && inUse(snap, host, v) {
			return nil
		}
	}
	return m.cfg.Storage.Detach(ctx, host, vdi)
}

// inUse: the domain has the disk, or is about to get it.
func inUse(r db.Reader, host api.HostRef, v *api.VBD) bool {
	for _, op := range v.CurrentOperations {
		if op == api.VBDOperationsAttach || op == api.VBDOperationsPlug || op == api.VBDOperationsInsert {
			return true
		}
	}
	return v.CurrentlyAttached && awakeOn(r, host, v.VM)
}

// awakeOn: a suspended machine keeps its devices, but nothing on a host.
func awakeOn(r db.Reader, host api.HostRef, ref api.VMRef) bool {
	vm, err := db.Get(r, ref)
	if err != nil || vm.ResidentOn != host {
		return false
	}
	return vm.PowerState == api.VMPowerStateRunning || vm.PowerState == api.VMPowerStatePaused
}

// releasePort removes the port of a NIC that no domain has.
func (m *Manager) releasePort(ctx context.Context, host api.HostRef, ref api.VIFRef) error {
	release, err := m.ports.Hold(ctx, ref)
	if err != nil {
		return err
	}
	defer release()
	snap := m.cfg.DB.Snapshot()
	v, err := db.Get(snap, ref)
	if err != nil {
		return nil
	}
	busy := reserved(v.CurrentOperations, api.VIFOperationsAttach) || reserved(v.CurrentOperations, api.VIFOperationsPlug)
	if busy || v.CurrentlyAttached && awakeOn(snap, host, v.VM) {
		return nil
	}
	return m.cfg.Network.Unplug(ctx, host, ref)
}
