package plan

import (
	"maps"
	"strconv"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/vm/template"
)

// planVMs takes snapshots after VMs: with one that is left out go those of it.
func (p *planner) planVMs() error {
	for _, snapshots := range []bool{false, true} {
		for _, obj := range p.doc.Objects {
			rec, ok := obj.Record.(*api.VM)
			if !ok || rec.IsASnapshot != snapshots {
				continue
			}
			if err := p.addVM(obj.ID, rec); err != nil {
				return err
			}
		}
	}
	if len(p.plan.VMs) == 0 && len(p.left) == 0 {
		return api.ErrImportError("it describes no VM")
	}
	return nil
}

func (p *planner) addVM(id string, rec *api.VM) error {
	if standard(rec) || rec.IsASnapshot && p.left[string(rec.SnapshotOf)] {
		p.left[id] = true
		return nil
	}
	replaces, skip, err := p.existing(rec)
	if skip || err != nil {
		p.left[id] = skip
		return err
	}
	person := rec.UUID
	if rec.IsASnapshot {
		person = p.uuidOf(rec.SnapshotOf)
	}
	if err := p.seedFree(rec.OtherConfig[device.MACSeed], person, replaces); err != nil {
		return err
	}
	p.vm[id] = len(p.plan.VMs)
	p.plan.VMs = append(p.plan.VMs, VM{ID: id, Record: p.newVM(rec, replaces), Replaces: replaces, Of: None, Parent: None, Memory: None, person: person})
	return nil
}

// standard tells VMs that every host has.
func standard(vm *api.VM) bool {
	return vm.IsControlDomain || vm.IsDefaultTemplate || vm.IsATemplate && vm.OtherConfig[template.DefaultKey] == "true"
}

// existing is the VM that a restored one replaces, if any.
func (p *planner) existing(vm *api.VM) (ref api.VMRef, skip bool, err error) {
	if !p.o.Restore {
		return "", false, nil
	}
	if ref, err = db.ByUUID[api.VM](p.r, vm.UUID); err != nil {
		return "", false, nil
	}
	here, err := db.Get(p.r, ref)
	if err != nil {
		return "", false, err
	}
	switch state := strings.ToLower(string(here.PowerState)); {
	case standard(here):
		return "", false, api.ErrDuplicateVM(ref.String())
	case here.PowerState != api.VMPowerStateHalted && !here.IsASnapshot && p.o.Force:
		return "", true, nil
	case here.PowerState != api.VMPowerStateHalted && !here.IsASnapshot:
		return "", false, api.ErrVMBadPowerState(ref.String(), "halted", state)
	case here.Version >= vm.Version && !p.o.Force:
		return "", false, api.ErrVMToImportIsNotNewerVersion(ref.String(), strconv.FormatInt(here.Version, 10), strconv.FormatInt(vm.Version, 10))
	}
	p.replaced[ref] = true
	return ref, false, nil
}

// seedFree refuses a VM that keeps its MACs beside one that has the same: only VMs
// and their own snapshots share a seed.
func (p *planner) seedFree(seed, person string, replaces api.VMRef) error {
	if !p.o.Restore || seed == "" {
		return nil
	}
	for _, ref := range p.seeds[seed] {
		here, err := db.Get(p.r, ref)
		if err != nil || ref == replaces || standard(here) {
			continue
		}
		other := here.UUID
		if original, err := db.Get(p.r, here.SnapshotOf); here.IsASnapshot && err == nil {
			other = original.UUID
		}
		if other != person {
			return api.ErrDuplicateMACSeed(seed)
		}
	}
	return nil
}

func (p *planner) uuidOf(ref api.VMRef) string {
	if vm := p.vms[string(ref)]; vm != nil {
		return vm.UUID
	}
	return ""
}

// newVM is the record of a VM without what ties it to where it was.
func (p *planner) newVM(from *api.VM, replaces api.VMRef) *api.VM {
	vm := from.Clone()
	vm.UUID, _ = p.uuid(vm.Class(), from.UUID, replaces != "")
	vm.IsDefaultTemplate, vm.IsASnapshot = false, false
	vm.AllowedOperations, vm.CurrentOperations = nil, nil
	vm.ResidentOn, vm.ScheduledToBeResidentOn, vm.Affinity = "", "", ""
	vm.Consoles, vm.VIFs, vm.VBDs, vm.VUSBs, vm.VTPMs, vm.VGPUs, vm.AttachedPCIs, vm.CrashDumps = nil, nil, nil, nil, nil, nil, nil, nil
	vm.Snapshots, vm.Children, vm.Groups, vm.Blobs = nil, nil, nil, nil
	vm.Metrics, vm.GuestMetrics, vm.SuspendVDI = "", "", ""
	vm.SnapshotOf, vm.Parent = "", ""
	vm.Appliance, vm.SnapshotSchedule, vm.ProtectionPolicy = "", "", ""
	vm.HAAlwaysRun, vm.LastBootedRecord, vm.LastBootCPUFlags = false, "", nil
	vm.PendingGuidances, vm.PendingGuidancesFull, vm.PendingGuidancesRecommended, vm.RequiresReboot = nil, nil, nil, false
	vm.PowerState, vm.Domid = api.VMPowerStateHalted, -1
	vm.SuspendSR = p.srHere(from.SuspendSR)
	vm.OtherConfig = maps.Clone(vm.OtherConfig)
	delete(vm.OtherConfig, template.DefaultKey)
	delete(vm.OtherConfig, template.StampKey)
	if !p.o.Restore || vm.OtherConfig[device.MACSeed] == "" {
		device.Seed(vm)
	}
	if !p.o.Restore {
		vm.HARestartPriority = ""
	}
	return vm
}

// srHere is the repository here that a described one is, or null.
func (p *planner) srHere(id api.SRRef) api.SRRef {
	sr := p.srs[string(id)]
	if sr == nil || sr.UUID == "" {
		return ""
	}
	ref, err := db.ByUUID[api.SR](p.r, sr.UUID)
	if err != nil {
		return ""
	}
	return ref
}

// relate says which VM is a snapshot of which, and what came of what.
func (p *planner) relate() error {
	for i := range p.plan.VMs {
		vm := &p.plan.VMs[i]
		from := p.vms[vm.ID]
		if parent, ok := p.vm[string(from.Parent)]; ok && parent != i {
			vm.Parent = parent
		}
		if !from.IsASnapshot {
			vm.Record.SnapshotTime, vm.Record.SnapshotInfo, vm.Record.SnapshotMetadata, vm.Record.TransportableSnapshotID = time.Time{}, nil, "", ""
			continue
		}
		vm.Record.IsATemplate = true
		if of, ok := p.vm[string(from.SnapshotOf)]; ok && !p.vms[p.plan.VMs[of].ID].IsASnapshot {
			vm.Of = of
			vm.Record.OtherConfig[device.MACSeed] = p.plan.VMs[of].Record.OtherConfig[device.MACSeed]
			continue
		}
		vm.Record.SnapshotTime, vm.Record.SnapshotInfo, vm.Record.SnapshotMetadata = time.Time{}, nil, ""
	}
	return p.noCircle()
}

// noCircle refuses VMs that are their own ancestors.
func (p *planner) noCircle() error {
	fine := map[int]bool{None: true}
	for i := range p.plan.VMs {
		var line []int
		seen := map[int]bool{}
		for at := i; !fine[at]; at = p.plan.VMs[at].Parent {
			if seen[at] {
				return api.ErrImportError("the parents of " + p.plan.VMs[i].ID + " go round in a circle")
			}
			seen[at] = true
			line = append(line, at)
		}
		for _, at := range line {
			fine[at] = true
		}
	}
	return nil
}
