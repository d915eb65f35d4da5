package storage

import (
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// grove is rows of layers, and a gate before them.
type grove struct {
	*testing.T
	d    *db.DB
	g    *gate
	told int // that somebody has left who kept a coalesce from its work
}

func newGrove(t *testing.T) *grove {
	d, err := db.Open(t.Context(), db.NewMemory(), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	g := &grove{T: t, d: d}
	g.g = newGate(func() db.Reader { return d.Snapshot() }, func() { g.told++ })
	return g
}

// plant makes a row, based on another if that is not nil.
func (g *grove) plant(on *api.VDI) (api.VDIRef, *api.VDI) {
	g.Helper()
	v := api.NewVDI()
	v.UUID, v.SMConfig = api.NewUUID(), map[string]string{}
	if on != nil {
		v.SMConfig[parentKey] = on.UUID
	}
	var ref api.VDIRef
	g.change(func(tx *db.Tx) error { ref = db.Insert(tx, v); return nil })
	return ref, v
}

// base puts a row on another.
func (g *grove) base(ref api.VDIRef, on *api.VDI) {
	g.Helper()
	g.change(func(tx *db.Tx) error {
		v, err := db.Edit(tx, ref)
		if err == nil {
			v.SMConfig = amend(v.SMConfig, parentKey, on.UUID)
		}
		return err
	})
}

func (g *grove) change(f func(*db.Tx) error) {
	g.Helper()
	if err := g.d.Update(g.Context(), f); err != nil {
		g.Fatal(err)
	}
}

func (g *grove) join(vdi api.VDIRef) (leave func()) {
	g.Helper()
	leave, wait := g.g.join(vdi, false)
	if wait != nil {
		g.Fatal("an operation has to wait")
	}
	return leave
}

// claims asserts whether a coalesce gets in, and has it leave.
func (g *grove) claims(vdi api.VDIRef, want bool, when string) {
	g.Helper()
	_, release, alone := g.g.claim(g.Context(), vdi)
	if alone != want {
		g.Errorf("%s: a coalesce is alone: %t", when, alone)
	}
	if alone {
		release()
	}
}

func TestGate(t *testing.T) {
	g := newGrove(t)
	base, row := g.plant(nil)
	top, _ := g.plant(row)
	other, _ := g.plant(nil)
	leave, also := g.join(top), g.join(base)
	g.claims(base, false, "beside two operations")
	g.claims(other, true, "in another tree")
	leave()
	g.claims(top, false, "beside one")
	also()
	ctx, release, alone := g.g.claim(t.Context(), top)
	if !alone {
		t.Fatal("not alone")
	}
	g.claims(base, false, "beside another")
	_, wait := g.g.join(base, false)
	if wait == nil || ctx.Err() == nil {
		t.Fatal("a coalesce does not give way")
	}
	release()
	<-wait
	if g.join(base)(); len(g.g.inside) != 0 {
		t.Errorf("%d inside", len(g.g.inside))
	}
}

// TestGateTells: what kept a coalesce from its work says that it no longer does.
func TestGateTells(t *testing.T) {
	g := newGrove(t)
	vdi, _ := g.plant(nil)
	told := func(when string, want int) {
		t.Helper()
		if g.told != want {
			t.Errorf("%s: told %d times, not %d", when, g.told, want)
		}
	}
	g.join(vdi)()
	g.claims(vdi, true, "with nobody inside")
	told("undisturbed", 0)
	leave := g.join(vdi)
	g.claims(vdi, false, "beside an operation")
	told("refused", 0)
	leave()
	told("the operation has left", 1)
	_, release, _ := g.g.claim(t.Context(), vdi)
	g.g.join(vdi, false)
	release()
	told("the coalesce has given way", 1)
	again, _ := g.g.join(vdi, true)
	again()
	told("the operation it gave way to has left", 2)
}

// TestGateWhenRootsMove: a tree is the same one when a layer comes below its root, and
// when the row by which somebody came in is gone.
func TestGateWhenRootsMove(t *testing.T) {
	g := newGrove(t)
	base, row := g.plant(nil)
	top, _ := g.plant(row)
	leave := g.join(top)
	_, below := g.plant(nil)
	g.base(base, below) // a snapshot of the disk at the root
	g.claims(top, false, "the root has moved")
	g.claims(base, false, "the root has moved")
	g.change(func(tx *db.Tx) error { return db.Delete(tx, top) })
	g.claims(base, false, "the row is gone")
	leave()
	g.claims(base, true, "all have left")
}
