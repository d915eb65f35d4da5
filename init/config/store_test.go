package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"testing"
)

// crashFS is a file system that dies after a number of calls. It keeps what a
// disk would: contents only once synced, renames in order, from none of them to
// all of them since the last sync of the directory.
type crashFS struct {
	live    map[string]*inode
	durable map[string]*inode
	pending []func(map[string]*inode) // renames and creations not yet synced
	budget  int                       // calls left before the crash; negative: no crash
}

type inode struct {
	data   []byte
	synced []byte // what the disk surely has
}

var errCrash = errors.New("power lost")

func newCrashFS() *crashFS {
	return &crashFS{live: map[string]*inode{}, durable: map[string]*inode{}, budget: -1}
}

func (c *crashFS) step() error {
	if c.budget == 0 {
		return errCrash
	}
	c.budget--
	return nil
}

func (c *crashFS) ReadFile(name string) ([]byte, error) {
	if n, ok := c.live[name]; ok {
		return n.data, nil
	}
	return nil, fs.ErrNotExist
}

func (c *crashFS) WriteFile(name string, data []byte) error {
	n := &inode{data: data}
	// Truncating an existing file loses its content at once.
	if err := c.step(); err != nil {
		n.data = data[:len(data)/2]
		c.link(name, n)
		return err
	}
	c.link(name, n)
	return nil
}

func (c *crashFS) link(name string, n *inode) {
	c.live[name] = n
	c.pending = append(c.pending, func(m map[string]*inode) { m[name] = n })
}

func (c *crashFS) SyncFile(name string) error {
	if err := c.step(); err != nil {
		return err
	}
	c.live[name].synced = c.live[name].data
	return nil
}

func (c *crashFS) Rename(from, to string) error {
	if err := c.step(); err != nil {
		return err
	}
	n := c.live[from]
	move := func(m map[string]*inode) {
		delete(m, from)
		m[to] = n
	}
	move(c.live)
	c.pending = append(c.pending, move)
	return nil
}

func (c *crashFS) SyncDir(string) error {
	if err := c.step(); err != nil {
		return err
	}
	for _, op := range c.pending {
		op(c.durable)
	}
	c.pending = nil
	return nil
}

// afterCrash returns every state the disk may be found in: k of the pending
// directory changes arrived, and unsynced contents whole or lost.
func (c *crashFS) afterCrash() []*crashFS {
	var out []*crashFS
	for k := 0; k <= len(c.pending); k++ {
		names := maps.Clone(c.durable)
		for _, op := range c.pending[:k] {
			op(names)
		}
		for _, whole := range []bool{false, true} {
			f := newCrashFS()
			for name, n := range names {
				data := n.synced
				if whole {
					data = n.data
				}
				f.live[name] = &inode{data: data, synced: data}
			}
			f.durable = maps.Clone(f.live)
			out = append(out, f)
		}
	}
	return out
}

func load(t *testing.T, f FS) Choice {
	t.Helper()
	found, err := Store{FS: f, Dir: "/state"}.Candidates()
	if err != nil {
		t.Fatal(err)
	}
	return Choose(found)
}

// seeded is a store that held "zero" and then "old".
func seeded(t *testing.T) *crashFS {
	t.Helper()
	f := newCrashFS()
	for _, name := range []string{"zero", "old"} {
		if err := (Store{FS: f, Dir: "/state"}).Put(named(name)); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func named(host string) []byte { return fmt.Appendf(nil, "version: 1\nhostname: %s\n", host) }

func TestPutSurvivesACrashAnywhere(t *testing.T) {
	for budget := 0; ; budget++ {
		f := seeded(t)
		f.budget = budget
		err := Store{FS: f, Dir: "/state"}.Put(named("new"))
		if err != nil && !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		for i, disk := range f.afterCrash() {
			got := load(t, disk)
			if got.Source != SourceState || len(got.Refusals) > 0 {
				t.Errorf("crash at call %d, disk %d: found %s, refusals %v", budget, i, got.Source, got.Refusals)
			}
			if h := got.Document.Hostname; h != "new" && (h != "old" || err == nil) {
				t.Errorf("crash at call %d, disk %d: found %q after Put said %v", budget, i, h, err)
			}
		}
		if err == nil {
			if budget != 8 {
				t.Errorf("Put took %d calls, want 8: write, sync, rename, sync of two files", budget)
			}
			return
		}
	}
}

func TestPutKeepsTheLastKnownGood(t *testing.T) {
	f := seeded(t)
	f.live["/state/cairn.yaml"].data = []byte("version: 1\nhostname: [broken\n")
	got := load(t, f)
	if got.Source != SourceGood || got.Document.Hostname != "zero" || got.Store {
		t.Errorf("got %s %q store=%v", got.Source, got.Document.Hostname, got.Store)
	}
	// A broken current document must not push the good one out.
	if err := (Store{FS: f, Dir: "/state"}).Put(named("new")); err != nil {
		t.Fatal(err)
	}
	if good := string(f.live["/state/cairn.yaml.good"].data); good != string(named("zero")) {
		t.Errorf("last known good is now %q", good)
	}
}

func TestPutRefusesAWrongDocument(t *testing.T) {
	f := seeded(t)
	f.budget = 0 // any write would fail
	var ps Problems
	if err := (Store{FS: f, Dir: "/state"}).Put([]byte("version: 9\n")); !errors.As(err, &ps) {
		t.Errorf("got %v, want Problems", err)
	}
}

func TestStoreOnDisk(t *testing.T) {
	dir := t.TempDir()
	s := Store{FS: OS{}, Dir: dir}
	for _, name := range []string{"a", "b", "b"} {
		if err := s.Put(named(name)); err != nil {
			t.Fatal(err)
		}
	}
	found, err := s.Candidates()
	if err != nil || len(found) != 2 || string(found[0].Text) != string(named("b")) || string(found[1].Text) != string(named("a")) {
		t.Errorf("found %q, %v", found, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"+tempSuffix))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind %v, %v", left, err)
	}
}
