package db

import (
	"slices"
	"sync"

	"cairn/toolstack/api"
)

// Op is what happened to an object.
type Op uint8

// The operations.
const (
	Add Op = iota
	Mod
	Del
)

// Change is one object that changed.
type Change struct {
	Class      *api.ClassInfo
	Ref        string
	Op         Op
	Generation uint64 // of the change
	Created    uint64 // of the object's first appearance
}

// feedLength is how many changes are remembered. Whoever is further behind
// starts over.
const feedLength = 1 << 15

// feed remembers the last changes and wakes those who wait for the next.
type feed struct {
	mu       sync.Mutex
	log      []Change // by generation
	from     uint64   // every change after this generation is in the log
	watchers map[*Watch]struct{}
	closed   bool
}

func (f *feed) start(generation uint64) {
	f.from = generation
	f.watchers = map[*Watch]struct{}{}
}

// append records changes and publishes the snapshot that holds them as one
// step, then wakes all watchers.
func (f *feed) append(changes []Change, publish func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if extra := len(f.log) + len(changes) - 2*feedLength; extra > 0 {
		cut := min(max(len(f.log)-feedLength, 0), len(f.log))
		if cut > 0 {
			f.from = f.log[cut-1].Generation
			f.log = append([]Change(nil), f.log[cut:]...)
		}
	}
	f.log = append(f.log, changes...)
	publish()
	for w := range f.watchers {
		w.tell(changes)
	}
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for w := range f.watchers {
		w.wake()
	}
}

// since returns the changes after a generation, or false when that is too long
// ago.
func (f *feed) since(generation uint64) ([]Change, bool) {
	if generation < f.from {
		return nil, false
	}
	lo, hi := 0, len(f.log)
	for lo < hi {
		if mid := (lo + hi) / 2; f.log[mid].Generation <= generation {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return f.log[lo:len(f.log):len(f.log)], true
}

// Since returns the newest snapshot and the objects that changed after the
// generation, each once with what happened to it in sum: an object that came
// and went is left out. It returns false when the generation is older than what
// is remembered.
func (d *DB) Since(generation uint64) (*Snapshot, []Change, bool) {
	d.feed.mu.Lock()
	snap := d.Snapshot()
	log, ok := d.feed.since(generation)
	d.feed.mu.Unlock()
	if !ok {
		return snap, nil, false
	}
	return snap, coalesce(log, generation, nil), true
}

// coalesce keeps the last word on each object that is wanted. The log may be
// shared; it is only read.
func coalesce(log []Change, since uint64, want func(*Change) bool) []Change {
	at := map[key]int{}
	var out []Change
	for i := range log {
		c := log[i]
		if want != nil && !want(&c) {
			continue
		}
		k := key{c.Class, c.Ref}
		i, seen := at[k]
		if !seen {
			i = len(out)
			at[k] = i
			out = append(out, c)
		} else {
			out[i] = c
		}
		if c.Op != Del && c.Created > since {
			out[i].Op = Add
		}
	}
	kept := out[:0]
	for _, c := range out {
		if c.Op != Del || c.Created <= since {
			kept = append(kept, c)
		}
	}
	return kept
}

// Watch tells one waiter about changes. It coalesces: a slow waiter sees the
// last state, not each step.
type Watch struct {
	db         *DB
	c          chan struct{}
	want       func(*Change) bool // nil wants everything
	pending    bool               // something wanted was published since Changes
	generation uint64             // nothing before is of interest any more
}

// Watch begins with the changes after the current state.
func (d *DB) Watch() *Watch {
	w := &Watch{db: d, c: make(chan struct{}, 1)}
	d.feed.mu.Lock()
	defer d.feed.mu.Unlock()
	w.generation = d.Snapshot().generation
	d.feed.watchers[w] = struct{}{}
	if d.feed.closed {
		w.wake()
	}
	return w
}

// WatchSince is Watch for the changes after a generation that are wanted: the
// others do not wake it, and however many there are it does not fall behind by
// them. Call Next before the first wait. The function is called with the feed
// locked and must not use the DB.
func (d *DB) WatchSince(generation uint64, want func(*Change) bool) *Watch {
	w := &Watch{db: d, c: make(chan struct{}, 1), want: want, generation: generation, pending: true}
	d.feed.mu.Lock()
	defer d.feed.mu.Unlock()
	d.feed.watchers[w] = struct{}{}
	return w
}

// tell wakes the waiter if any of the changes is wanted. It is called with the
// feed locked.
func (w *Watch) tell(changes []Change) {
	if w.want != nil && !w.pending {
		if !slices.ContainsFunc(changes, func(c Change) bool { return w.want(&c) }) {
			if n := len(changes); n > 0 {
				w.generation = changes[n-1].Generation
			}
			return
		}
	}
	w.pending = true
	w.wake()
}

func (w *Watch) wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

// C receives when there may be changes. It is not closed.
func (w *Watch) C() <-chan struct{} { return w.c }

// Changes returns what changed since the last call. When the watcher fell too
// far behind, every object is given as added and lost is true.
func (w *Watch) Changes() (snap *Snapshot, changes []Change, lost bool) {
	snap, changes, ok := w.Next()
	if ok {
		return snap, changes, false
	}
	classes := api.Classes()
	for i := range classes {
		snap.Objects(&classes[i], func(o *Object) bool {
			changes = append(changes, Change{Class: &classes[i], Ref: o.ref, Op: Add, Generation: o.modified, Created: o.created})
			return true
		})
	}
	return snap, changes, true
}

// Next is Changes, with ok false and no changes for a watcher that fell too far
// behind or began at a generation that has never been.
func (w *Watch) Next() (snap *Snapshot, changes []Change, ok bool) {
	f := &w.db.feed
	f.mu.Lock()
	snap = w.db.Snapshot()
	since := w.generation
	log, ok := f.since(since)
	w.generation, w.pending = snap.generation, false
	select {
	case <-w.c: // what it told of is in the answer
	default:
	}
	f.mu.Unlock()
	if !ok || since > snap.generation {
		return snap, nil, false
	}
	return snap, coalesce(log, since, w.want), true
}

// Close ends the watch.
func (w *Watch) Close() {
	w.db.feed.mu.Lock()
	defer w.db.feed.mu.Unlock()
	delete(w.db.feed.watchers, w)
}
