package operation

import (
	"context"
	"log/slog"
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// table is any class's.
type table interface {
	class() *api.ClassInfo
	refresh(tx *db.Tx, ref string, clear bool) (forgotten []string, err error)
	right(r db.Reader, ref string) bool
}

var tables = []table{VM, VBD, VIF, VUSB, VTPM, Network, VDI, SR, Host, Pool, Cluster, ClusterHost, Appliance}

func tableOf(class *api.ClassInfo) table {
	i := slices.IndexFunc(tables, func(t table) bool { return t.class() == class })
	if i < 0 {
		return nil
	}
	return tables[i]
}

// Refresh corrects allowed_operations of an object in a transaction.
func Refresh(tx *db.Tx, class *api.ClassInfo, ref string) error {
	t := tableOf(class)
	if t == nil {
		return nil
	}
	_, err := t.refresh(tx, ref, false)
	return err
}

// Recover makes the database true after a start: no operation outlives the
// process that performed it. Machines keep theirs, whose owner has to finish or
// undo what they left.
func Recover(ctx context.Context, d *db.DB, log *slog.Logger) error {
	return d.Update(ctx, func(tx *db.Tx) error {
		for _, t := range tables {
			class := t.class()
			for _, ref := range refs(d.Snapshot(), class) {
				forgotten, err := t.refresh(tx, ref, class != vmClass)
				if err != nil {
					return err
				}
				for _, op := range forgotten {
					log.Warn("operation-interrupted", "class", class.Name, "ref", ref, "op", op)
				}
			}
		}
		return nil
	})
}

func refs(r db.Reader, class *api.ClassInfo) []string {
	var all []string
	r.Objects(class, func(o *db.Object) bool {
		all = append(all, o.Ref())
		return true
	})
	return all
}

// Keeper corrects allowed_operations after changes of other objects.
type Keeper struct{ db *db.DB }

// NewKeeper returns a keeper; Run makes it work.
func NewKeeper(d *db.DB) *Keeper { return &Keeper{d} }

// watched are the classes a change of which may change what is allowed.
var watched = func() map[*api.ClassInfo]bool {
	m := map[*api.ClassInfo]bool{api.ClassOf[api.PBD](): true, api.ClassOf[api.HostMetrics](): true}
	for _, t := range tables {
		m[t.class()] = true
	}
	return m
}()

// Run corrects until the context ends, beginning with all there is.
func (k *Keeper) Run(ctx context.Context) error {
	w := k.db.WatchSince(k.db.Snapshot().Generation(), func(ch *db.Change) bool { return watched[ch.Class] })
	defer w.Close()
	for first := true; ; first = false {
		snap, changes, ok := w.Next()
		if !ok || first {
			changes = everything(snap)
		}
		if err := k.correct(ctx, snap, changes); err != nil {
			return err
		}
		select {
		case <-w.C():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// everything is what to look at after too much has happened.
func everything(snap *db.Snapshot) []db.Change {
	var changes []db.Change
	for _, t := range tables {
		for _, ref := range refs(snap, t.class()) {
			changes = append(changes, db.Change{Class: t.class(), Ref: ref})
		}
	}
	return changes
}

// correct looks at what changed and at what depends on it. Most of that is right
// already, and then nothing is written.
func (k *Keeper) correct(ctx context.Context, snap *db.Snapshot, changes []db.Change) error {
	type object struct {
		table table
		ref   string
	}
	wrong := map[object]bool{}
	look := func(class *api.ClassInfo, ref string) {
		if t := tableOf(class); t != nil && !t.right(snap, ref) {
			wrong[object{t, ref}] = true
		}
	}
	for _, ch := range changes {
		look(ch.Class, ch.Ref)
		dependents(snap, ch, look)
	}
	if len(wrong) == 0 {
		return nil
	}
	return k.db.Update(ctx, func(tx *db.Tx) error {
		for o := range wrong {
			if tx.Object(o.table.class(), o.ref) == nil {
				continue
			}
			if _, err := o.table.refresh(tx, o.ref, false); err != nil {
				return err
			}
		}
		return nil
	})
}

// dependents calls look for each object whose operations depend on another.
func dependents(r db.Reader, ch db.Change, look func(*api.ClassInfo, string)) {
	o := r.Object(ch.Class, ch.Ref)
	if o == nil {
		return
	}
	switch rec := o.Record().(type) {
	case *api.VM:
		each(rec.VBDs, look)
		each(rec.VIFs, look)
		each(rec.VUSBs, look)
		each(rec.VTPMs, look)
		each([]api.VMApplianceRef{rec.Appliance}, look)
		each([]api.VDIRef{rec.SuspendVDI}, look)
	case *api.VBD:
		each([]api.VDIRef{rec.VDI}, look)
		if vdi, err := db.Get(r, rec.VDI); err == nil {
			each(vdi.VBDs, look)
		}
	case *api.VDI:
		each(rec.VBDs, look)
		each([]api.SRRef{rec.SR}, look)
	case *api.PBD:
		each([]api.SRRef{rec.SR}, look)
		if sr, err := db.Get(r, rec.SR); err == nil {
			each(sr.VDIs, look)
		}
	case *api.Network:
		each(rec.VIFs, look)
	case *api.HostMetrics:
		for host, h := range db.All[api.Host](r) {
			if string(h.Metrics) == ch.Ref {
				each([]api.HostRef{host}, look)
			}
		}
	case *api.Cluster:
		each(firstPool(r), look)
	}
}

func firstPool(r db.Reader) []api.PoolRef {
	var pools []api.PoolRef
	for ref := range db.All[api.Pool](r) {
		pools = append(pools, ref)
	}
	return pools
}

func each[T any, P api.RecordPtr[T]](refs []api.Ref[T], look func(*api.ClassInfo, string)) {
	for _, ref := range refs {
		look(P(nil).Class(), string(ref))
	}
}
