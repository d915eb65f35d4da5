package db_test

import (
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// TestWatchSince: what is not wanted neither wakes a waiter nor makes it fall
// behind.
func TestWatchSince(t *testing.T) {
	d, err := db.Open(t.Context(), db.NewMemory(), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	change := func(f func(*db.Tx)) {
		if err := d.Update(t.Context(), func(tx *db.Tx) error { f(tx); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	class := api.ClassOf[api.Network]()
	w := d.WatchSince(d.Snapshot().Generation(), func(c *db.Change) bool { return c.Class == class })
	defer w.Close()
	if _, changes, ok := w.Next(); !ok || len(changes) != 0 {
		t.Errorf("at first: %v, %v", changes, ok)
	}
	var vm api.VMRef
	change(func(tx *db.Tx) { vm = db.Insert(tx, api.NewVM()) })
	refs := make([]api.VMGroupRef, 700)
	change(func(tx *db.Tx) {
		for i := range refs {
			refs[i] = db.Insert(tx, api.NewVMGroup())
		}
	})
	for range 100 { // more than is remembered
		change(func(tx *db.Tx) {
			for _, ref := range refs {
				db.Edit(tx, ref)
			}
		})
	}
	select {
	case <-w.C():
		t.Error("woken by a change that is not wanted")
	default:
	}
	change(func(tx *db.Tx) { db.Delete(tx, vm); db.Insert(tx, api.NewNetwork()) })
	<-w.C()
	if _, changes, ok := w.Next(); !ok || len(changes) != 1 || changes[0].Class != class || changes[0].Op != db.Add {
		t.Errorf("changes: %v, %v", changes, ok)
	}
	late := d.WatchSince(1, nil)
	defer late.Close()
	if _, _, ok := late.Next(); ok {
		t.Error("a watch from long ago is not told that it missed something")
	}
}
