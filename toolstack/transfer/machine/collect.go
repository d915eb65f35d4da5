package machine

import (
	"slices"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/transfer/ova"
)

// scope is how much of VMs an export describes.
type scope struct {
	snapshots bool            // theirs, too
	memory    bool            // of suspended ones
	without   map[string]bool // kinds of devices left out: "vbd", "vif", "vtpm"
}

// collection is what belongs to VMs: a pure function of the database.
type collection struct {
	r     db.Reader
	s     scope
	named []ova.Named
	seen  map[string]int      // places in named
	taken map[api.VDIRef]bool // into disks
	disks []disc              // in the order in which they are described
}

// disc is a disk that is described: its place among the objects, and what it is here.
type disc struct {
	at  int
	ref api.VDIRef
	vdi *api.VDI
}

// collect describes VMs in the order given, each with its snapshots.
func collect(r db.Reader, s scope, vms []api.VMRef) (*collection, error) {
	c := &collection{r: r, s: s, seen: map[string]int{}, taken: map[api.VDIRef]bool{}}
	for _, ref := range vms {
		all, err := family(r, s, ref)
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			if err := c.vm(one); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// family is a VM with those of its snapshots that go along.
func family(r db.Reader, s scope, ref api.VMRef) ([]api.VMRef, error) {
	vm, err := db.Get(r, ref)
	if err != nil || !s.snapshots {
		return []api.VMRef{ref}, err
	}
	return append([]api.VMRef{ref}, slices.Sorted(slices.Values(vm.Snapshots))...), nil
}

func (c *collection) has(ref string) bool {
	_, ok := c.seen[ref]
	return ok
}

// add describes a record once, and reports whether this was the first time.
func (c *collection) add(ref string, r api.Record) bool {
	if c.has(ref) {
		return false
	}
	c.seen[ref] = len(c.named)
	c.named = append(c.named, ova.Named{Ref: ref, Record: r})
	return true
}

// vm describes a VM as it will be where it arrives: not busy, and awake nowhere.
func (c *collection) vm(ref api.VMRef) error {
	from, err := db.Get(c.r, ref)
	if err != nil || c.has(string(ref)) {
		return err
	}
	vm := from.Clone()
	vm.AllowedOperations, vm.CurrentOperations = nil, nil
	kept := c.s.memory && vm.PowerState == api.VMPowerStateSuspended
	if !kept {
		vm.PowerState, vm.SuspendVDI = api.VMPowerStateHalted, ""
	}
	if vm.IsASnapshot && !c.has(string(vm.SnapshotOf)) {
		vm.IsASnapshot, vm.IsATemplate = false, true // on its own it is a template
	}
	c.add(string(ref), vm)
	c.devices(vm)
	if kept {
		c.disk(vm.SuspendVDI)
	}
	c.sr(vm.SuspendSR)
	if metrics, err := db.Get(c.r, vm.Metrics); err == nil {
		c.add(string(vm.Metrics), metrics)
	}
	return nil
}

func (c *collection) devices(vm *api.VM) {
	for _, ref := range vm.VBDs {
		if v, err := db.Get(c.r, ref); err == nil && !c.s.without["vbd"] {
			c.vbd(ref, v.Clone())
		}
	}
	for _, ref := range vm.VIFs {
		if v, err := db.Get(c.r, ref); err == nil && !c.s.without["vif"] {
			v = v.Clone()
			v.AllowedOperations, v.CurrentOperations = nil, nil
			c.add(string(ref), v)
			c.network(v.Network)
		}
	}
	for _, ref := range vm.VTPMs {
		if v, err := db.Get(c.r, ref); err == nil && !c.s.without["vtpm"] {
			v = v.Clone()
			v.AllowedOperations, v.CurrentOperations = nil, nil
			c.add(string(ref), v)
		}
	}
}

func (c *collection) vbd(ref api.VBDRef, v *api.VBD) {
	v.AllowedOperations, v.CurrentOperations = nil, nil
	c.add(string(ref), v)
	if v.Empty || v.VDI.IsNull() {
		return
	}
	if v.Type != api.VBDTypeCD {
		c.disk(v.VDI)
		return
	}
	if vdi, err := db.Get(c.r, v.VDI); err == nil && c.add(string(v.VDI), public(vdi)) {
		c.sr(vdi.SR)
	}
}

// disk describes one whose bytes go along.
func (c *collection) disk(ref api.VDIRef) {
	vdi, err := db.Get(c.r, ref)
	if err != nil {
		return
	}
	c.add(string(ref), public(vdi))
	if !c.taken[ref] {
		c.taken[ref] = true
		c.disks = append(c.disks, disc{c.seen[string(ref)], ref, vdi})
	}
	c.sr(vdi.SR)
}

// public is a disk's record without what is the affair of its repository.
func public(from *api.VDI) *api.VDI {
	v := from.Clone()
	v.AllowedOperations, v.CurrentOperations, v.SMConfig = nil, nil, nil
	return v
}

func (c *collection) sr(ref api.SRRef) {
	if from, err := db.Get(c.r, ref); err == nil && !c.has(string(ref)) {
		sr := from.Clone()
		sr.AllowedOperations, sr.CurrentOperations, sr.SMConfig = nil, nil, nil
		c.add(string(ref), sr)
	}
}

func (c *collection) network(ref api.NetworkRef) {
	if from, err := db.Get(c.r, ref); err == nil && !c.has(string(ref)) {
		n := from.Clone()
		n.AllowedOperations, n.CurrentOperations, n.AssignedIps = nil, nil, nil
		c.add(string(ref), n)
	}
}

// everything is every VM of the pool that somebody has made.
func everything(r db.Reader) (all []api.VMRef) {
	for ref, vm := range db.All[api.VM](r) {
		if !vm.IsControlDomain && !vm.IsDefaultTemplate && !vm.IsASnapshot {
			all = append(all, ref)
		}
	}
	slices.Sort(all)
	return all
}

// kinds reads a list of kinds of devices.
func kinds(text string) map[string]bool {
	set := map[string]bool{}
	for kind := range strings.SplitSeq(text, ",") {
		set[strings.ToLower(strings.TrimSpace(kind))] = true
	}
	return set
}
