package pool_test

import (
	"os"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/db/etcd"
	"cairn/toolstack/pool"
	"cairn/toolstack/wire/wiretest"
)

// TestSyncDatabase: after the answer a copy of what lies on disk has what was
// written before, though the database it is copied from still runs.
func TestSyncDatabase(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	engine, err := etcd.Open(t.Context(), etcd.Config{Dir: dir})
	must(t, err)
	d, err := db.Open(t.Context(), engine, db.Options{})
	must(t, err)
	t.Cleanup(func() { d.Close() })
	ref, owner := api.NewRef[api.Pool](), api.NewRef[api.Host]()
	must(t, d.Update(t.Context(), func(tx *db.Tx) error {
		p := api.NewPool()
		p.Master, p.NameLabel = owner, "durable"
		db.InsertAs(tx, ref, p)
		db.InsertAs(tx, owner, api.NewHost())
		return nil
	}))
	m, err := pool.New(pool.Config{DB: d, Dir: t.TempDir(), ThisHost: func() api.HostRef { return owner }})
	must(t, err)
	s := wiretest.New(t, func(r *api.Registry, _ *db.DB) { m.Register(r) })
	s.Must(nil, "pool.sync_database")
	must(t, os.CopyFS(copied, os.DirFS(dir)))
	second, err := etcd.Open(t.Context(), etcd.Config{Dir: copied})
	must(t, err)
	after, err := db.Open(t.Context(), second, db.Options{})
	must(t, err)
	defer after.Close()
	if p, err := db.Get(after.Snapshot(), ref); err != nil || p.NameLabel != "durable" {
		t.Errorf("the copy has %+v, %v", p, err)
	}
	s.Covers("pool.sync_database")
}
