package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"cairn/toolstack/db"
)

func put(key string, size int) db.Batch {
	return db.Batch{Puts: []db.Pair{{Key: key, Value: bytes.Repeat([]byte{'v'}, size)}}}
}

// fastDir is a directory in memory if there is one: how large a file is has
// nothing to do with the disk below.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cairn-db-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func fileSize(t *testing.T, dir string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "member", "snap", "db"))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// The file stays small under steady updates, and shrinks after a large delete.
func TestFileIsBounded(t *testing.T) { boundFile(t, 60, 100<<10) }

// boundFile writes one object again and again. The file grows in steps of 16 MiB,
// most of them holes.
func boundFile(t *testing.T, updates, size int) {
	t.Helper()
	const bound = 34 << 20
	c := Config{Dir: fastDir(t), Garbage: 1 << 20, Free: 1 << 20}
	e, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for range updates {
		if err := e.Commit(t.Context(), put("obj/VM/one", size)); err != nil {
			t.Fatal(err)
		}
	}
	n := fileSize(t, c.Dir)
	if n > bound {
		t.Errorf("%d updates of %d bytes make a file of %d", updates, size, n)
	}
	t.Logf("%d updates of %d bytes: the file has %d MiB, %d KiB of them in use", updates, size, n>>20, e.server.Backend().SizeInUse()>>10)
	var b db.Batch
	var keys []string
	for i := range 40 {
		keys = append(keys, fmt.Sprint("obj/VM/", i))
		b.Puts = append(b.Puts, put(keys[i], 1<<20).Puts...)
	}
	if err := e.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	e.space.mu.Lock()
	e.settle()
	large := fileSize(t, c.Dir)
	e.space.mu.Unlock()
	if err := e.Commit(t.Context(), db.Batch{Deletes: keys}); err != nil {
		t.Fatal(err)
	}
	e.space.mu.Lock()
	e.compact(t.Context())
	e.space.mu.Unlock()
	if n := fileSize(t, c.Dir); n > bound || n >= large {
		t.Errorf("a file of %d is one of %d after everything large is deleted", large, n)
	}
	if err := e.Commit(t.Context(), put("obj/VM/one", 1)); err != nil {
		t.Errorf("after the file was rewritten: %v", err)
	}
}

// A full database refuses puts, keeps what it has, lets go of it, and opens.
func TestQuota(t *testing.T) {
	var levels []Level
	c := Config{Dir: fastDir(t), Quota: 2 << 20, OnAlarm: func(a Alarm) { levels = append(levels, a.Level) }}
	e, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; err == nil && n < 100; n++ {
		err = e.Commit(t.Context(), put(fmt.Sprint("obj/VM/", n), 50<<10))
	}
	if !errors.Is(err, db.ErrFull) || n < 25 {
		t.Fatalf("put %d: %v", n, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err = Open(t.Context(), c); err != nil {
		t.Fatalf("open a full database: %v", err)
	}
	defer e.Close()
	kept := 0
	e.Load(t.Context(), "obj/", func(string, []byte) error { kept++; return nil })
	if kept != n-1 {
		t.Errorf("%d objects, want %d", kept, n-1)
	}
	if err := e.Commit(t.Context(), put("meta/generation", 8)); err != nil {
		t.Errorf("the database's own note: %v", err)
	}
	if err := e.Commit(t.Context(), put("obj/VM/more", 200<<10)); !errors.Is(err, db.ErrFull) {
		t.Errorf("put into a full database: %v", err)
	}
	var b db.Batch
	for i := range 20 {
		b.Deletes = append(b.Deletes, fmt.Sprint("obj/VM/", i))
	}
	if err := e.Commit(t.Context(), b); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if want := "[near-full full near-full full clear]"; fmt.Sprint(levels) != want {
		t.Errorf("alarms %v, want %s", levels, want)
	}
	if err := e.Commit(t.Context(), put("obj/VM/more", 200<<10)); err != nil {
		t.Errorf("put after deletes: %v", err)
	}
}

// A transaction asked for again, because nobody knows whether it happened,
// happens once.
func TestTransactionHappensOnce(t *testing.T) {
	e := openIn(t, filepath.Join(t.TempDir(), "db"))
	defer e.Close()
	ask := func(value, token string) {
		t.Helper()
		b := db.Batch{Puts: []db.Pair{{Key: "a", Value: []byte(value)}}}
		if _, err := e.server.Txn(t.Context(), transaction(b, token)); err != nil {
			t.Fatal(err)
		}
		e.Load(t.Context(), "a", func(_ string, v []byte) error { value = string(v); return nil })
		if want := token[:1]; value != want {
			t.Errorf("after %s it is %s, want %s", token, value, want)
		}
	}
	ask("1", "1-first")
	ask("X", "1-first")
	ask("2", "2-second")
	ask("Y", "2-second")
}
