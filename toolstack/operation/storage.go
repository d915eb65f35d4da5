package operation

import (
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// vdiRule is one line of what may be done to a disk.
type vdiRule struct {
	op      api.VDIOperations
	feature string // what the storage driver must be able to do
	// live allows it on a disk that is attached, readOnly on one that is
	// attached to readers only.
	live, readOnly bool
	missing        bool // also for a disk that is missing from its repository
	unmanaged      bool // also for one that is not managed
}

var vdiRules = []vdiRule{
	{op: api.VDIOperationsClone, feature: "VDI_CLONE", live: true},
	{op: api.VDIOperationsCopy, readOnly: true},
	{op: api.VDIOperationsResize, feature: "VDI_RESIZE"},
	{op: api.VDIOperationsResizeOnline, feature: "VDI_RESIZE_ONLINE", live: true},
	{op: api.VDIOperationsSnapshot, feature: "VDI_SNAPSHOT", live: true},
	{op: api.VDIOperationsMirror, feature: "VDI_MIRROR", live: true},
	{op: api.VDIOperationsDestroy, feature: "VDI_DELETE", missing: true, unmanaged: true},
	{op: api.VDIOperationsForget, missing: true, unmanaged: true},
	{op: api.VDIOperationsUpdate, feature: "VDI_UPDATE", live: true, unmanaged: true},
	{op: api.VDIOperationsForceUnlock},
	{op: api.VDIOperationsGenerateConfig, feature: "VDI_GENERATE_CONFIG", live: true},
	{op: api.VDIOperationsEnableCBT, feature: "VDI_CONFIG_CBT", live: true},
	{op: api.VDIOperationsDisableCBT, feature: "VDI_CONFIG_CBT", live: true},
	{op: api.VDIOperationsDataDestroy, feature: "VDI_CONFIG_CBT", live: true},
	{op: api.VDIOperationsListChangedBlocks, feature: "VDI_CONFIG_CBT", live: true},
	{op: api.VDIOperationsSetOnBoot, feature: "VDI_RESET_ON_BOOT"},
	{op: api.VDIOperationsRevertTo, feature: "VDI_REVERT"},
	{op: api.VDIOperationsRevertFrom, feature: "VDI_REVERT"},
}

// vdiBuilt are the operations on disks that this version performs.
var vdiBuilt = []api.VDIOperations{
	api.VDIOperationsClone, api.VDIOperationsCopy, api.VDIOperationsResize, api.VDIOperationsResizeOnline,
	api.VDIOperationsSnapshot, api.VDIOperationsDestroy, api.VDIOperationsForget, api.VDIOperationsUpdate,
	api.VDIOperationsSetOnBoot, api.VDIOperationsRevertTo, api.VDIOperationsRevertFrom,
	api.VDIOperationsEnableCBT, api.VDIOperationsDisableCBT, api.VDIOperationsDataDestroy, api.VDIOperationsListChangedBlocks,
}

// VDI is the table of disks: a disk that is copied may be used, any other
// operation has it for itself.
var VDI = vdiTable()

func vdiTable() *Table[api.VDI, *api.VDI, api.VDIOperations] {
	t := &Table[api.VDI, *api.VDI, api.VDIOperations]{
		built: vdiBuilt,
		fields: func(v *api.VDI) (*[]api.VDIOperations, *map[string]api.VDIOperations) {
			return &v.AllowedOperations, &v.CurrentOperations
		},
	}
	for _, r := range vdiRules {
		t.rules = append(t.rules, rule[api.VDI, api.VDIOperations]{
			op: r.op, beside: []api.VDIOperations{api.VDIOperationsCopy},
			then: all(r.present, r.supported, r.free, r.remembered, r.kind, r.destructible),
		})
	}
	return t
}

func (r vdiRule) present(s *subject[api.VDI]) error {
	switch {
	case s.rec.Missing && !r.missing:
		return api.ErrVDIMissing(s.rec.SR.String(), s.ref.String())
	case !s.rec.Managed && !r.unmanaged:
		return api.ErrVDINotManaged(s.ref.String())
	}
	return nil
}

// supported asks that the repository is there and its driver is able.
func (r vdiRule) supported(s *subject[api.VDI]) error {
	sr, err := db.Get(s.r, s.rec.SR)
	if err != nil {
		return err
	}
	if r.op == api.VDIOperationsForget {
		return nil // it is about the record only
	}
	if !attachedTo(s.r, sr, "") {
		return api.ErrSRNotAttached(s.rec.SR.String())
	}
	return able(s.r, s.rec.SR, sr, r.feature)
}

// free forbids to change a disk under those who use it.
func (r vdiRule) free(s *subject[api.VDI]) error {
	if r.live {
		return nil
	}
	for _, ref := range s.rec.VBDs {
		v, err := db.Get(s.r, ref)
		used := err == nil && (v.CurrentlyAttached || len(v.CurrentOperations) > 0)
		if used && !(r.readOnly && v.Mode == api.VBDModeRO) {
			return api.ErrVDIInUse(s.ref.String(), s.op)
		}
	}
	return nil
}

// sparing are the operations that leave a disk and its layers as they are.
var sparing = []api.VDIOperations{
	api.VDIOperationsCopy, api.VDIOperationsUpdate, api.VDIOperationsGenerateConfig, api.VDIOperationsListChangedBlocks,
}

// remembered forbids to change or take the memory of a machine, which comes back only
// from the very volume it was saved to.
func (r vdiRule) remembered(s *subject[api.VDI]) error {
	if !slices.Contains(sparing, r.op) && HoldsMemory(s.r, s.ref, s.rec) {
		return api.ErrVDIInUse(s.ref.String(), s.op)
	}
	return nil
}

// HoldsMemory reports whether a machine, or a snapshot of one, names a disk as its
// memory.
func HoldsMemory(r db.Reader, ref api.VDIRef, disk *api.VDI) bool {
	if disk.Type != api.VDITypeSuspend {
		return false
	}
	for _, vm := range db.All[api.VM](r) {
		if vm.SuspendVDI == ref {
			return true
		}
	}
	return false
}

// kind looks at what the disk is for.
func (r vdiRule) kind(s *subject[api.VDI]) error {
	if s.rec.Type == api.VDITypeCBTMetadata && !slices.Contains(bytesless, r.op) {
		return api.ErrVDIIncompatibleType(s.ref.String(), string(s.rec.Type))
	}
	if s.rec.Sharable && !s.rec.IsASnapshot && slices.Contains(layering, r.op) {
		return api.ErrVDIIsSharable(s.ref.String())
	}
	switch r.op {
	case api.VDIOperationsDestroy, api.VDIOperationsForget, api.VDIOperationsDataDestroy:
		if s.rec.Type != api.VDITypeHAStatefile && s.rec.Type != api.VDITypeRedoLog {
			return nil
		}
		for _, pool := range db.All[api.Pool](s.r) {
			if pool.HAEnabled || pool.RedoLogEnabled && s.rec.Type == api.VDITypeRedoLog {
				return api.ErrHAIsEnabled()
			}
		}
	case api.VDIOperationsResize, api.VDIOperationsResizeOnline:
		if s.rec.CBTEnabled {
			return api.ErrVDICBTEnabled(s.ref.String())
		}
	case api.VDIOperationsEnableCBT, api.VDIOperationsDisableCBT:
		return trackable(s)
	}
	return nil
}

// trackable says whether changes of a disk can be tracked.
func trackable(s *subject[api.VDI]) error {
	switch {
	case s.rec.IsASnapshot:
		return api.ErrOperationNotAllowed("changes of a snapshot cannot be tracked")
	case s.rec.Type != api.VDITypeUser && s.rec.Type != api.VDITypeSystem:
		return api.ErrVDIIncompatibleType(s.ref.String(), string(s.rec.Type))
	case s.rec.OnBoot == api.OnBootReset:
		return api.ErrVDIOnBootModeIncompatibleWithOperation()
	}
	return nil
}

// layering are the operations that put a layer on a disk, or need one: several machines
// cannot write to it.
var layering = []api.VDIOperations{api.VDIOperationsSnapshot, api.VDIOperationsClone, api.VDIOperationsEnableCBT}

// bytesless are the operations on a disk of which only the record of its changes is
// left.
var bytesless = []api.VDIOperations{
	api.VDIOperationsDestroy, api.VDIOperationsForget, api.VDIOperationsDataDestroy, api.VDIOperationsListChangedBlocks,
	api.VDIOperationsUpdate, api.VDIOperationsForceUnlock, api.VDIOperationsGenerateConfig,
}

// destructible says whether a disk's bytes can be let go and its record kept.
func (r vdiRule) destructible(s *subject[api.VDI]) error {
	switch {
	case r.op != api.VDIOperationsDataDestroy:
		return nil
	case !s.rec.IsASnapshot:
		return api.ErrOperationNotAllowed("the VDI is not a snapshot")
	case !s.rec.CBTEnabled:
		return api.ErrVDINoCBTMetadata(s.ref.String())
	}
	return nil
}

// Attached reports whether a host has a repository attached.
func Attached(r db.Reader, host api.HostRef, ref api.SRRef) bool {
	sr, err := db.Get(r, ref)
	return err == nil && attachedTo(r, sr, host)
}

// attachedTo is Attached; no host is any.
func attachedTo(r db.Reader, sr *api.SR, host api.HostRef) bool {
	return slices.ContainsFunc(sr.PBDs, func(ref api.PBDRef) bool {
		pbd, err := db.Get(r, ref)
		return err == nil && pbd.CurrentlyAttached && (host == "" || pbd.Host == host)
	})
}

// able asks for a feature of the repository's driver; "" is none.
func able(r db.Reader, ref api.SRRef, sr *api.SR, feature string) error {
	if feature == "" {
		return nil
	}
	for _, sm := range db.All[api.SM](r) {
		if _, ok := sm.Features[feature]; ok && sm.Type == sr.Type {
			return nil
		}
	}
	return api.ErrSROperationNotSupported(ref.String())
}

// srFeatures are the operations on a repository and what its driver must be
// able to do for them.
var srFeatures = []struct {
	op      api.StorageOperations
	feature string
}{
	{api.StorageOperationsScan, "SR_SCAN"},
	{api.StorageOperationsDestroy, ""},
	{api.StorageOperationsForget, ""},
	{api.StorageOperationsPlug, ""},
	{api.StorageOperationsUnplug, ""},
	{api.StorageOperationsUpdate, "SR_UPDATE"},
	{api.StorageOperationsVDICreate, "VDI_CREATE"},
	{api.StorageOperationsVDIIntroduce, "VDI_INTRODUCE"},
	{api.StorageOperationsVDIDestroy, "VDI_DELETE"},
	{api.StorageOperationsVDIResize, "VDI_RESIZE"},
	{api.StorageOperationsVDIClone, "VDI_CLONE"},
	{api.StorageOperationsVDISnapshot, "VDI_SNAPSHOT"},
	{api.StorageOperationsVDIMirror, "VDI_MIRROR"},
	{api.StorageOperationsVDIEnableCBT, "VDI_CONFIG_CBT"},
	{api.StorageOperationsVDIDisableCBT, "VDI_CONFIG_CBT"},
	{api.StorageOperationsVDIDataDestroy, "VDI_CONFIG_CBT"},
	{api.StorageOperationsVDIListChangedBlocks, "VDI_CONFIG_CBT"},
	{api.StorageOperationsVDISetOnBoot, "VDI_RESET_ON_BOOT"},
	{api.StorageOperationsVDICopy, ""},
	{api.StorageOperationsVDIForget, ""},
	{api.StorageOperationsVDIGenerateConfig, "VDI_GENERATE_CONFIG"},
	{api.StorageOperationsVDIResizeOnline, "VDI_RESIZE_ONLINE"},
	{api.StorageOperationsVDIUpdate, "VDI_UPDATE"},
	{api.StorageOperationsVDIRevert, "VDI_REVERT"},
	{api.StorageOperationsPBDCreate, ""},
	{api.StorageOperationsPBDDestroy, ""},
}

// unsaid are operations on disks that allowed_operations of a repository leaves to
// the disks themselves: clients older than these values refuse a whole record for
// one they do not know.
var unsaid = []api.StorageOperations{
	api.StorageOperationsVDIResizeOnline, api.StorageOperationsVDICopy, api.StorageOperationsVDIForget,
	api.StorageOperationsVDIUpdate, api.StorageOperationsVDIRevert,
}

// srBuilt are the operations on repositories that this version performs.
var srBuilt = slices.Concat(slices.DeleteFunc(slices.Clone(withDisks), func(op api.StorageOperations) bool {
	return slices.Contains(unsaid, op)
}), []api.StorageOperations{
	api.StorageOperationsDestroy, api.StorageOperationsForget, api.StorageOperationsPlug, api.StorageOperationsUnplug,
	api.StorageOperationsPBDCreate, api.StorageOperationsPBDDestroy,
})

// withDisks are operations that disturb no other on the same repository: disks have
// locks of their own.
var withDisks = []api.StorageOperations{
	api.StorageOperationsScan, api.StorageOperationsUpdate, api.StorageOperationsVDICreate, api.StorageOperationsVDIIntroduce,
	api.StorageOperationsVDIDestroy, api.StorageOperationsVDIResize, api.StorageOperationsVDIResizeOnline,
	api.StorageOperationsVDIClone, api.StorageOperationsVDISnapshot, api.StorageOperationsVDICopy,
	api.StorageOperationsVDIForget, api.StorageOperationsVDISetOnBoot, api.StorageOperationsVDIUpdate,
	api.StorageOperationsVDIRevert, api.StorageOperationsVDIEnableCBT, api.StorageOperationsVDIDisableCBT,
	api.StorageOperationsVDIDataDestroy, api.StorageOperationsVDIListChangedBlocks,
}

// SR is the table of storage repositories: hosts may plug one side by side, and what
// is done to its disks goes on during a scan; all else comes one after another.
var SR = srTable()

func srTable() *Table[api.SR, *api.SR, api.StorageOperations] {
	t := &Table[api.SR, *api.SR, api.StorageOperations]{
		built: srBuilt,
		fields: func(r *api.SR) (*[]api.StorageOperations, *map[string]api.StorageOperations) {
			return &r.AllowedOperations, &r.CurrentOperations
		},
	}
	for _, f := range srFeatures {
		r := rule[api.SR, api.StorageOperations]{op: f.op}
		r.then = all(func(s *subject[api.SR]) error { return able(s.r, s.ref, s.rec, f.feature) })
		if slices.Contains(withDisks, f.op) {
			r.beside = withDisks
		}
		switch f.op {
		case api.StorageOperationsPlug:
			r.beside = []api.StorageOperations{api.StorageOperationsPlug}
		case api.StorageOperationsDestroy:
			r.then = all(destructible, hasPBD, noneAttached, holdsNothing)
		case api.StorageOperationsForget:
			r.then = all(destructible, noneAttached)
		}
		t.rules = append(t.rules, r)
	}
	return t
}

func destructible(s *subject[api.SR]) error {
	if truth(s.rec.OtherConfig["indestructible"]) {
		return api.ErrSRIndestructible(s.ref.String())
	}
	return nil
}

func hasPBD(s *subject[api.SR]) error {
	if len(s.rec.PBDs) == 0 {
		return api.ErrSRHasNoPbds(s.ref.String())
	}
	return nil
}

func noneAttached(s *subject[api.SR]) error {
	if attachedTo(s.r, s.rec, "") {
		return api.ErrSRHasPBD(s.ref.String())
	}
	return nil
}

func holdsNothing(s *subject[api.SR]) error {
	for _, ref := range s.rec.VDIs {
		if v, err := db.Get(s.r, ref); err == nil && v.Managed {
			return api.ErrSRNotEmpty()
		}
	}
	return nil
}
