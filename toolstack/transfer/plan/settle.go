package plan

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
)

// Settle looks again at what has become of the database since the plan was made, in the
// transaction that carries it out and before anything of it is written: hours may have
// passed. A VM that has come meanwhile refuses the plan as it would have been refused with
// that VM there; with force, too, which was told to replace another VM, or none. A network
// that somebody has made meanwhile is used.
func (p *Plan) Settle(r db.Reader) error {
	q := &planner{r: r, o: p.o, replaced: map[api.VMRef]bool{}}
	for i := range p.Networks {
		p.Networks[i].Here, _ = q.network(p.Networks[i].from)
	}
	if !p.o.Restore {
		return nil // all it has is new
	}
	q.lookAtSeeds()
	for i := range p.VMs {
		if err := q.stillFree(&p.VMs[i]); err != nil {
			return err
		}
	}
	for i := range p.VMs {
		if err := q.devicesFree(&p.VMs[i]); err != nil {
			return err
		}
	}
	return nil
}

// stillFree refuses a VM whose place somebody has taken.
func (p *planner) stillFree(vm *VM) error {
	here, skip, err := p.existing(vm.Record)
	if err != nil {
		return err
	}
	if skip || here != "" && here != vm.Replaces {
		return api.ErrDuplicateVM(p.r.RefByUUID(vm.Record.Class(), vm.Record.UUID))
	}
	return p.seedFree(vm.Record.OtherConfig[device.MACSeed], vm.person, vm.Replaces)
}

// devicesFree refuses one that would share a drive's or a NIC's uuid.
func (p *planner) devicesFree(vm *VM) error {
	taken := func(class *api.ClassInfo, uuid string) error {
		if p.r.RefByUUID(class, uuid) == "" || p.mine(class, uuid) {
			return nil
		}
		return api.ErrImportError("another " + class.Name + " " + uuid + " has come meanwhile")
	}
	for _, d := range vm.Drives {
		if err := taken(d.Record.Class(), d.Record.UUID); err != nil {
			return err
		}
	}
	for _, n := range vm.NICs {
		if err := taken(n.Record.Class(), n.Record.UUID); err != nil {
			return err
		}
	}
	return nil
}
