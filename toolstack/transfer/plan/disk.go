package plan

import (
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// planMemory keeps the memory of VMs that will be whom they were.
func (p *planner) planMemory() error {
	for i := range p.plan.VMs {
		vm := &p.plan.VMs[i]
		from := p.vms[vm.ID]
		if from.PowerState != api.VMPowerStateSuspended || from.SuspendVDI.IsNull() || !p.same(vm) {
			if vm.Of != None && vm.Record.SnapshotMetadata != "" && !p.o.Restore {
				vm.Record.SnapshotMetadata = ""
			}
			continue
		}
		at, ok := p.useDisk(string(from.SuspendVDI))
		switch {
		case ok:
			vm.Memory = at
		case !p.o.Force:
			return api.ErrImportErrorAttachedDisksNotFound()
		}
	}
	return nil
}

// same tells VMs of this product that keep their uuid and those of all their devices.
// A snapshot wakes up as its VM, which must be such a one too.
func (p *planner) same(vm *VM) bool {
	if !p.o.Restore || p.o.Brand == "" || p.doc.Version.ProductBrand != p.o.Brand || vm.Record.UUID != p.vms[vm.ID].UUID {
		return false
	}
	for _, uuid := range p.devices[api.VMRef(vm.ID)] {
		if !p.uuids[uuid] {
			return false
		}
	}
	return vm.Of == None || p.same(&p.plan.VMs[vm.Of])
}

// snapshots says which disk is a snapshot of which: only those of VMs that are some.
func (p *planner) snapshots() error {
	for i := range p.plan.VMs {
		vm := &p.plan.VMs[i]
		if vm.Of == None {
			continue
		}
		for _, d := range vm.Drives {
			if d.Disk == None {
				continue
			}
			disk := &p.plan.Disks[d.Disk]
			if of, ok := p.disk[string(disk.Record.SnapshotOf)]; ok && of != d.Disk && disk.Record.IsASnapshot {
				disk.Of = of
			}
		}
	}
	return nil
}

// placeDisks chooses where new disks go, and checks that they can be.
func (p *planner) placeDisks() error {
	if p.o.Metadata {
		return nil
	}
	for _, d := range p.plan.Disks {
		if d.Record.VirtualSize <= 0 {
			return api.ErrInvalidValue("virtual_size", strconv.FormatInt(d.Record.VirtualSize, 10))
		}
	}
	var err error
	if p.plan.SR = p.o.SR; p.plan.SR.IsNull() {
		p.plan.SR, err = p.anySR()
	}
	if err != nil || len(p.plan.Disks) == 0 && p.o.SR.IsNull() {
		return err
	}
	sr, err := db.Get(p.r, p.plan.SR)
	if err != nil {
		return err
	}
	return operation.SR.Check(p.r, p.plan.SR, sr, api.StorageOperationsVDICreate)
}

// anySR is the pool's default, else where one of the disks was.
func (p *planner) anySR() (api.SRRef, error) {
	if len(p.plan.Disks) == 0 {
		return "", nil
	}
	var wanted api.SRRef
	for _, pool := range db.All[api.Pool](p.r) {
		if wanted = pool.DefaultSR; wanted.IsNull() {
			break
		}
		if _, err := db.Get(p.r, wanted); err == nil {
			return wanted, nil
		}
	}
	for _, d := range p.plan.Disks {
		if sr := p.srHere(d.Record.SR); sr != "" {
			return sr, nil
		}
	}
	return "", api.ErrDefaultSRNotFound(wanted.String())
}
