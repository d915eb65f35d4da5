// Package plan says what an import makes, before anything is made: a pure function of a
// description of VMs and of the database. It refuses what cannot be, with the error a
// client gets.
//
// Which VM becomes what:
//   - A restore keeps identities: uuids, MACs and the seed they are made of, places in
//     HA. It replaces the VM of the same uuid, which must be halted and of an older
//     version; with force any version will do, and one that is not halted is left alone
//     together with what would have replaced it. Any other import makes new VMs.
//   - A snapshot whose VM is not described becomes a template. Control domains and the
//     templates that every host has are left out.
//   - Memory is kept of VMs that keep their identity to the last device, and that this
//     product has saved: nobody else's would wake up here.
//
// Disks are made on one repository, the one that is asked for or else the default. With
// metadata only they are there already and found by uuid, or by where they lie. What is in
// a CD drive is never made; a drive whose disc is not found is empty. Networks are found by uuid, name or bridge, and
// made if there is none.
//
// A plan is made when an archive begins and carried out when all of it has come; Settle
// says then whether it still can be.
//
// What is kept: every disk, NIC and VM that a plan names belongs to it, so that whoever
// carries it out has nothing left to look up. Of objects that nothing uses nothing is made.
package plan

import (
	"slices"

	"github.com/google/uuid"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/transfer/ova"
)

// Options is how an import was asked for.
type Options struct {
	SR       api.SRRef // for new disks; null: the pool's default
	Restore  bool
	Force    bool
	Metadata bool // disks are here already
	// Disks are uuids of disks here by those that are described, for metadata only.
	Disks map[string]string
	// Brand is what this product calls itself in a description.
	Brand string
}

// None is where there is no disk, network or VM.
const None = -1

// Plan is what an import makes.
type Plan struct {
	SR       api.SRRef // of new disks
	Disks    []Disk
	Networks []Network // to be made
	VMs      []VM
	// Sizes are those of all described disks by their folder in an archive, wanted or not.
	Sizes map[string]int64

	o Options
}

// Network is one that was not here.
type Network struct {
	Record *api.Network
	Here   api.NetworkRef // null, or what Settle has found in its place
	from   *api.Network   // as described
}

// Disk is one that VMs use.
type Disk struct {
	ID     string     // its folder in an archive
	Record *api.VDI   // as described
	Here   api.VDIRef // null for one that is to be made
	Of     int        // the disk it is a snapshot of, or None
}

// VM is one to be made.
type VM struct {
	ID       string
	Record   *api.VM // references to what is outside the plan are null
	Drives   []Drive
	NICs     []NIC
	TPMs     []*api.VTPM
	Replaces api.VMRef
	Of       int // the VM it is a snapshot of, or None
	Parent   int // or None
	Memory   int // the disk that holds its memory, or None

	person string // uuid of the VM that it is, or is a snapshot of, as described
}

// Drive is a VM's, with the disk in it: Record.VDI is set for one that is no disk of the plan.
type Drive struct {
	Record *api.VBD
	Disk   int // or None
}

// NIC is a VM's: Record.Network is set where Network is None.
type NIC struct {
	Record  *api.VIF
	Network int
}

// New plans the import of what a document describes.
func New(r db.Reader, d *ova.Document, o Options) (*Plan, error) {
	if !d.Version.Readable() {
		return nil, api.ErrImportIncompatibleVersion()
	}
	p := newPlanner(r, d, o)
	for _, step := range []func() error{p.bounds, p.planVMs, p.relate, p.planDrives, p.planNICs, p.planTPMs, p.planMemory, p.snapshots, p.placeDisks} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return &p.plan, nil
}

// planner is the work on one plan.
type planner struct {
	r   db.Reader
	doc *ova.Document
	o   Options

	vms      map[string]*api.VM
	vdis     map[string]*api.VDI
	networks map[string]*api.Network
	srs      map[string]*api.SR

	plan     Plan
	vm       map[string]int  // of the plan, by name
	left     map[string]bool // VMs that are left out
	disk     map[string]int
	made     map[string]int // networks of the plan, by name
	uuids    map[string]bool
	replaced map[api.VMRef]bool

	// Looked up for every object, so that what is described by the ten thousand is
	// planned in no time.
	devices map[api.VMRef][]string  // uuids of described drives and NICs
	seeds   map[string][]api.VMRef  // VMs here
	places  map[string][]api.VDIRef // disks here by location
}

func newPlanner(r db.Reader, d *ova.Document, o Options) *planner {
	p := &planner{
		r: r, doc: d, o: o,
		vms: map[string]*api.VM{}, vdis: map[string]*api.VDI{}, networks: map[string]*api.Network{}, srs: map[string]*api.SR{},
		vm: map[string]int{}, left: map[string]bool{}, disk: map[string]int{}, made: map[string]int{},
		uuids: map[string]bool{}, replaced: map[api.VMRef]bool{},
	}
	p.plan.Sizes, p.plan.o = map[string]int64{}, o
	p.lookAround()
	for _, obj := range d.Objects {
		switch rec := obj.Record.(type) {
		case *api.VM:
			p.vms[obj.ID] = rec
		case *api.VDI:
			p.vdis[obj.ID] = rec
			p.plan.Sizes[obj.ID] = rec.VirtualSize
		case *api.Network:
			p.networks[obj.ID] = rec
		case *api.SR:
			p.srs[obj.ID] = rec
		case *api.VBD:
			p.devices[rec.VM] = append(p.devices[rec.VM], rec.UUID)
		case *api.VIF:
			p.devices[rec.VM] = append(p.devices[rec.VM], rec.UUID)
		}
	}
	return p
}

// lookAround notes what is here.
func (p *planner) lookAround() {
	p.devices, p.places = map[api.VMRef][]string{}, map[string][]api.VDIRef{}
	p.lookAtSeeds()
	for ref, vdi := range db.All[api.VDI](p.r) {
		if vdi.Managed && !vdi.Missing {
			p.places[vdi.Location] = append(p.places[vdi.Location], ref)
		}
	}
	for _, refs := range p.places {
		slices.Sort(refs)
	}
}

func (p *planner) lookAtSeeds() {
	p.seeds = map[string][]api.VMRef{}
	for ref, vm := range db.All[api.VM](p.r) {
		if seed := vm.OtherConfig[device.MACSeed]; seed != "" {
			p.seeds[seed] = append(p.seeds[seed], ref)
		}
	}
}

// uuid is what a described object of a class gets: its own where identities are kept
// and nobody else has it, else a new one.
func (p *planner) uuid(class *api.ClassInfo, told string, mine bool) (text string, own bool) {
	taken := p.uuids[told] || !mine && p.r.RefByUUID(class, told) != ""
	if !p.o.Restore || !proper(told) || taken {
		return api.NewUUID(), false
	}
	p.uuids[told] = true
	return told, true
}

// proper tells uuids as we spell them from what else may stand in their place.
func proper(text string) bool {
	id, err := uuid.Parse(text)
	return err == nil && id.String() == text
}
