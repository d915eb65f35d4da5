package storage

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage/coalesce"
)

// mergeRetry is how long a merge that failed is left alone.
const mergeRetry = 5 * time.Minute

// pokeWorkers wakes the worker of each repository that can be reached, which
// starts when there is none.
func (m *Manager) pokeWorkers(ctx context.Context) {
	for _, at := range m.attached() {
		if d, err := driverOf(at.kind); err != nil || d.found {
			continue
		}
		m.mu.Lock()
		w := m.workers[at.ref]
		if w == nil {
			w = coalesce.NewWorker(merger{m, at.ref}, m.cfg.Quiet, mergeRetry, m.cfg.Log)
			m.workers[at.ref] = w
			m.working.Go(func() { w.Run(ctx) })
		}
		m.mu.Unlock()
		w.Poke()
	}
}

// Coalesce merges what can be merged of a repository now, and reports false when
// something is left.
func (m *Manager) Coalesce(ctx context.Context, sr api.SRRef) bool {
	return coalesce.NewWorker(merger{m, sr}, 0, 0, m.cfg.Log).Drain(ctx)
}

// merger is the layers of one repository.
type merger struct {
	m  *Manager
	sr api.SRRef
}

var _ coalesce.Store = merger{}

func (s merger) at() (repository, error) { return s.m.reach(s.m.cfg.DB.Snapshot(), s.sr, "") }

// Layers implements coalesce.Store.
func (s merger) Layers(ctx context.Context) ([]coalesce.Layer, error) {
	at, err := s.at()
	if err != nil {
		return nil, nil // nothing can be done, and it pokes when it is attached
	}
	s.m.keepOwed(ctx, at)
	return s.layers(s.m.cfg.DB.Snapshot()), nil
}

func (s merger) layers(r db.Reader) []coalesce.Layer {
	var all []coalesce.Layer
	refs := map[string]api.VDIRef{}
	for ref, v := range disks(r, s.sr) {
		refs[v.UUID] = ref
	}
	open := openSteps(r, s.sr)
	for _, ref := range refs {
		if v, err := db.Get(r, ref); err == nil {
			l := s.layer(r, ref, v)
			l.Busy = l.Busy || open[v.UUID]
			l.Parent = string(refs[v.SMConfig[parentKey]])
			all = append(all, l)
		}
	}
	return all
}

func (s merger) layer(r db.Reader, ref api.VDIRef, v *api.VDI) coalesce.Layer {
	l := coalesce.Layer{
		ID: string(ref), Hidden: !v.Managed && v.SMConfig[layerKey] != "", Size: v.PhysicalUtilisation,
		Attached: len(users(v)) > 0, Running: s.live(r, v),
		Busy: v.SMConfig[stateKey] != "" || len(v.CurrentOperations) > 0 || v.Missing || !v.Managed && v.SMConfig[layerKey] == "",
		Step: coalesce.Kind(v.SMConfig[stepKey]), Tracked: s.keeps(r, v),
	}
	l.Busy = l.Busy || v.SMConfig[owedKey] != ""
	for _, b := range v.VBDs {
		if b, err := db.Get(r, b); err == nil && (b.CurrentlyAttached || len(b.CurrentOperations) > 0) {
			l.Attached = true
		}
	}
	return l
}

// live reports whether a disk is one running machine's, which nobody is about to
// change.
func (s merger) live(r db.Reader, v *api.VDI) bool {
	uses := usesOf(r, v)
	if len(users(v)) != 1 || len(uses) != 1 || v.OnBoot == api.OnBootReset || s.m.cfg.Domains(uses[0].host) == nil {
		return false
	}
	if users(v)[uses[0].host] != readWrite {
		return false
	}
	for _, ref := range v.VBDs {
		b, err := db.Get(r, ref)
		if err != nil || len(b.CurrentOperations) > 0 {
			return false
		}
		vm, err := db.Get(r, b.VM)
		if err != nil || len(vm.CurrentOperations) > 0 || vm.PowerState != api.VMPowerStateRunning {
			return false
		}
	}
	return true
}

// Claim implements coalesce.Store.
func (s merger) Claim(ctx context.Context, step coalesce.Step) (context.Context, func(), bool) {
	return s.m.gate.claim(ctx, api.VDIRef(step.Layer))
}

// Begin implements coalesce.Store. The step is planned again in the transaction
// that records it.
func (s merger) Begin(ctx context.Context, step coalesce.Step) error {
	return s.m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		if !planned(coalesce.Plan(s.layers(tx)), step) {
			return coalesce.ErrStale
		}
		v, err := db.Edit(tx, api.VDIRef(step.Layer))
		if err != nil {
			return err
		}
		if step.Kind == coalesce.Drop {
			v.SMConfig = amend(v.SMConfig, stateKey, stateGarbage)
			return nil
		}
		v.SMConfig = amend(v.SMConfig, stepKey, string(step.Kind))
		if step.Kind == coalesce.Inner || v.IsASnapshot {
			return nil
		}
		return cut(tx, v) // of a chain too long to keep: see keeps
	})
}

// planned reports whether a step is still what there is to do: with the same layers above,
// which come in order, and may have been exchanged since it was planned, by a snapshot of
// the disk above.
func planned(steps []coalesce.Step, want coalesce.Step) bool {
	for _, s := range steps {
		if s.Layer == want.Layer && s.Kind == want.Kind && s.Into == want.Into && slices.Equal(s.Above, want.Above) {
			return true
		}
	}
	return false
}

// pair is the rows a step is about.
func (s merger) pair(step coalesce.Step) (at repository, layer, into *api.VDI, err error) {
	if at, err = s.at(); err != nil {
		return at, nil, nil, err
	}
	snap := s.m.cfg.DB.Snapshot()
	if layer, err = db.Get(snap, api.VDIRef(step.Layer)); err != nil {
		return at, nil, nil, err
	}
	into, err = db.Get(snap, api.VDIRef(step.Into))
	return at, layer, into, err
}

// Merge implements coalesce.Store.
func (s merger) Merge(ctx context.Context, step coalesce.Step) error {
	at, layer, into, err := s.pair(step)
	if err != nil {
		return err
	}
	if merged, err := s.merged(ctx, at, step, into); merged || err != nil {
		return err
	}
	if layer.Managed {
		// It will be the disk's volume. Were that said only afterwards, a crash could leave
		// a disk that calls itself a hidden layer, for whoever has lost the database.
		if err := at.hostd.NoteVolume(ctx, at.uuid, into.Location, noteOf(s.m.cfg.DB.Snapshot(), layer)); err != nil {
			return err
		}
	}
	progress, done := s.m.follow(ctx, fmt.Sprintf("Coalesce a layer of %s", at))
	if step.Kind == coalesce.Live {
		err = s.commitLive(ctx, at, step, into, progress)
	} else {
		err = at.hostd.CommitVolume(ctx, at.uuid, layer.Location, progress)
	}
	s.m.noSpace(ctx, at, err)
	done(err)
	return err
}

// merged reports whether a layer is based on the layer below already: that begins
// when all data is there.
func (s merger) merged(ctx context.Context, at repository, step coalesce.Step, into *api.VDI) (bool, error) {
	for _, ref := range step.Above {
		up, err := db.Get(s.m.cfg.DB.Snapshot(), api.VDIRef(ref))
		if err != nil {
			return false, err
		}
		v, err := at.hostd.Volume(ctx, at.uuid, up.Location)
		if err != nil {
			return false, err
		}
		if v.Backing == into.Location {
			return true, nil
		}
	}
	return false, nil
}

// follow makes a task of work that nobody asked for.
func (m *Manager) follow(ctx context.Context, label string) (progress func(float64), done func(error)) {
	if m.cfg.Tasks == nil {
		return nil, func(error) {}
	}
	t, err := m.cfg.Tasks.Start(context.WithoutCancel(ctx), label, "", true)
	if err != nil {
		return nil, func(error) {}
	}
	return t.Set, func(err error) { t.Finish("", err) }
}

// commitLive has the domain's hypervisor merge. When all is merged the guest is
// stopped until the rows say so: whatever dies in that moment, and even if the
// domain ends then, the former top layer reads as the disk does.
func (s merger) commitLive(ctx context.Context, at repository, step coalesce.Step, into *api.VDI, progress func(float64)) error {
	_, u, err := s.m.topOf(ctx, api.VDIRef(step.Layer))
	if err != nil {
		return err
	}
	if u.vm == "" {
		return coalesce.ErrStale
	}
	if err := s.roomBelow(ctx, at, step, into); err != nil {
		return err
	}
	if err := s.m.activate(ctx, at, into.Location); err != nil {
		return err
	}
	d := s.m.cfg.Domains(u.host)
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	return d.Commit(ctx, u.vm, u.id, func(part float64) {
		if part >= 1 {
			if err := s.stop(ctx, api.VDIRef(step.Layer), u); err != nil {
				giveUp(fmt.Errorf("stop the guest: %w", err)) // before the domain moves
			}
		}
		if progress != nil {
			progress(part)
		}
	})
}

// roomBelow readies the layer below for a hypervisor that writes to it: hostd, which
// looks out for others that are based on it when it merges itself, does not see that.
// A volume without a row is somebody's all the same: of a disk that was forgotten.
func (s merger) roomBelow(ctx context.Context, at repository, step coalesce.Step, into *api.VDI) error {
	layer, err := db.Get(s.m.cfg.DB.Snapshot(), api.VDIRef(step.Layer))
	if err != nil {
		return err
	}
	all, err := at.hostd.Volumes(ctx, at.uuid)
	if err != nil {
		return err
	}
	for _, v := range all {
		if v.Backing == into.Location && v.Name != layer.Location {
			return fmt.Errorf("volume %s is based on %s, too", v.Name, into.Location)
		}
		if v.Name == into.Location && v.VirtualSize < layer.VirtualSize {
			if _, err := at.hostd.ResizeVolume(ctx, at.uuid, v.Name, layer.VirtualSize); err != nil {
				return err
			}
		}
	}
	return nil
}

// stop stops a guest, and says first that it was this that did. One that somebody
// else has paused writes nothing, and stays paused.
func (s merger) stop(ctx context.Context, vdi api.VDIRef, u use) error {
	ref, err := db.ByUUID[api.VM](s.m.cfg.DB.Snapshot(), u.vm)
	if err != nil {
		return err
	}
	ours := false
	err = db.Modify(ctx, s.m.cfg.DB, vdi, func(tx *db.Tx, v *api.VDI) error {
		vm, err := db.Get(tx, ref)
		if err != nil {
			return err
		}
		ours = vm.PowerState == api.VMPowerStateRunning
		if len(vm.CurrentOperations) > 0 && v.SMConfig[stepKey] != stepStopped {
			return api.ErrOperationNotAllowed("an operation of the VM is in progress")
		}
		if ours {
			v.SMConfig = amend(v.SMConfig, stepKey, stepStopped)
		}
		return nil
	})
	if err != nil || !ours {
		return err
	}
	return s.m.cfg.Domains(u.host).Pause(ctx, u.vm)
}

// Yield implements coalesce.Store. A step of a layer others are based on stays
// recorded: some of them may be based on the layer below already.
func (s merger) Yield(ctx context.Context, step coalesce.Step) error {
	ctx, cancel := finishing(ctx)
	defer cancel()
	switch step.Kind {
	case coalesce.Live:
		at, err := s.at()
		if err != nil {
			return err
		}
		if err := s.m.settle(ctx, at, api.VDIRef(step.Layer)); err != nil {
			return err
		}
		return s.m.sweep(ctx, at, s.m.garbage(s.m.cfg.DB.Snapshot(), s.sr)...)
	case coalesce.Leaf:
		return s.m.forgetLeaf(ctx, api.VDIRef(step.Layer))
	}
	return nil
}

// Rebase implements coalesce.Store.
func (s merger) Rebase(ctx context.Context, step coalesce.Step, layer string) error {
	at, _, into, err := s.pair(step)
	if err != nil {
		return err
	}
	v, err := db.Get(s.m.cfg.DB.Snapshot(), api.VDIRef(layer))
	if err != nil {
		return err
	}
	return at.hostd.RebaseVolume(ctx, at.uuid, v.Location, into.Location)
}

// Conclude implements coalesce.Store.
func (s merger) Conclude(ctx context.Context, step coalesce.Step) error {
	switch step.Kind {
	case coalesce.Drop:
		return nil // its row says so since the step began
	case coalesce.Live:
		at, err := s.at()
		if err != nil {
			return err
		}
		return s.m.settle(ctx, at, api.VDIRef(step.Layer))
	case coalesce.Leaf:
		return s.m.cfg.DB.Update(ctx, func(tx *db.Tx) error { return sink(tx, api.VDIRef(step.Layer)) })
	}
	return s.m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		layer, err := db.Edit(tx, api.VDIRef(step.Layer))
		if err != nil {
			return err
		}
		if layer.Managed {
			return sink(tx, api.VDIRef(step.Layer))
		}
		into, err := db.Edit(tx, api.VDIRef(step.Into))
		if err != nil {
			return err
		}
		if err := adopt(tx, layer, into.UUID); err != nil {
			return err
		}
		into.VirtualSize = max(into.VirtualSize, layer.VirtualSize)
		layer.SMConfig = amend(amend(layer.SMConfig, stepKey, ""), stateKey, stateGarbage)
		return nil
	})
}

// Clean implements coalesce.Store.
func (s merger) Clean(ctx context.Context, step coalesce.Step) error {
	at, err := s.at()
	if err != nil {
		return err
	}
	gone, stays := api.VDIRef(step.Layer), api.VDIRef(step.Into)
	if v, err := db.Get(s.m.cfg.DB.Snapshot(), gone); err == nil && v.Managed {
		gone, stays = stays, gone // the disk has the volume below
	}
	row, err := db.Get(s.m.cfg.DB.Snapshot(), gone)
	if err != nil || row.SMConfig[stateKey] != stateGarbage {
		return ignoreGone(err)
	}
	if err := s.m.sweep(ctx, at, gone); err != nil {
		return err
	}
	s.m.label(ctx, at.hostd, at.uuid, stays)
	return s.m.measure(ctx, at, true)
}
