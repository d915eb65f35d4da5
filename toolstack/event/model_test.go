package event

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

var (
	vmClass      = api.ClassOf[api.VM]()
	networkClass = api.ClassOf[api.Network]()
)

// world is a database with a streamer, inside a bubble of virtual time.
type world struct {
	t     *testing.T
	db    *db.DB
	s     *Streamer
	ended map[api.SessionRef]bool
}

// inBubble runs f with a world whose clock jumps to the next thing that happens.
func inBubble(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d, err := db.Open(t.Context(), db.NewMemory(), db.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, db: d, ended: map[api.SessionRef]bool{}}
		w.s = New(d, func(ref api.SessionRef) error {
			if w.ended[ref] {
				return api.ErrSessionInvalid(ref.String())
			}
			return nil
		})
		defer d.Close()
		f(w)
	})
}

func (w *world) update(f func(tx *db.Tx)) {
	w.t.Helper()
	if err := w.db.Update(w.t.Context(), func(tx *db.Tx) error { f(tx); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) call() *api.Call {
	return &api.Call{Context: w.t.Context(), Session: "OpaqueRef:s"}
}

// from is event.from, told as text, and how long it took.
func (w *world) from(token string, timeout float64, classes ...string) (text, next string, took time.Duration) {
	w.t.Helper()
	begun := time.Now()
	r, err := w.s.from(w.call(), classes, token, timeout)
	if err != nil {
		return err.Error(), token, time.Since(begun)
	}
	b := r.(*batch)
	return b.String(), b.token.String(), time.Since(begun)
}

func (b *batch) String() string {
	var parts []string
	for i := range b.changes {
		ch := &b.changes[i]
		value := ""
		if o := b.object(ch); o != nil {
			value = "=" + valueOf(o.Record())
		}
		parts = append(parts, fmt.Sprintf("%s %s%s", operations[ch.Op], strings.TrimPrefix(ch.Ref, "OpaqueRef:"), value))
	}
	return strings.Join(parts, ", ")
}

// valueOf is the member the tests change.
func valueOf(r api.Record) string {
	switch r := r.(type) {
	case *api.VM:
		return r.NameLabel
	case *api.Network:
		return r.NameLabel
	case *api.Task:
		return r.NameLabel
	case *api.Message:
		return r.Name
	}
	return ""
}

// put makes or changes the object with a name such as vm3 to a value.
func put(tx *db.Tx, name, value string) {
	ref := "OpaqueRef:" + name
	kind := strings.TrimRight(name, "0123456789")
	class := api.FindClass(kind)
	if tx.Object(class, ref) == nil {
		tx.InsertRecord(ref, class.New())
	}
	r, err := tx.EditRecord(class, ref)
	if err != nil {
		panic(err)
	}
	switch r := r.(type) {
	case *api.VM:
		r.NameLabel = value
	case *api.Network:
		r.NameLabel = value
	case *api.Task:
		r.NameLabel = value
	case *api.Message:
		r.Name = value
	}
}

func remove(tx *db.Tx, name string) {
	if err := tx.DeleteRecord(api.FindClass(strings.TrimRight(name, "0123456789")), "OpaqueRef:"+name); err != nil {
		panic(err)
	}
}

// TestModel runs random histories and compares what a client holds, which it
// knows from events alone, with what a simple model says it must hold; each
// batch must be exactly the difference.
func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		inBubble(t, func(w *world) { modelRun(w, rng, seed) })
	}
}

func modelRun(w *world, rng *rand.Rand, seed uint64) {
	subscriptions := [][]string{{"*"}, {"VM"}, {"vm/OpaqueRef:vm1", "Network"}, {"task"}, {"message"}, {"message", "vm"}}
	entries := subscriptions[rng.IntN(len(subscriptions))]
	sub, err := parseSubscription(entries)
	if err != nil {
		w.t.Fatal(err)
	}
	wanted := func(name string) bool {
		return sub.object(api.FindClass(strings.TrimRight(name, "0123456789")), "OpaqueRef:"+name)
	}
	truth, client, token := map[string]string{}, map[string]string{}, ""
	made := 0
	changed := map[string]bool{} // since the client's token
	for step := range 40 {
		for range rng.IntN(6) {
			w.update(func(tx *db.Tx) {
				for range 1 + rng.IntN(3) {
					name := history(rng, truth, &made)
					if _, ok := truth[name]; ok && rng.IntN(3) == 0 {
						remove(tx, name)
						delete(truth, name)
					} else {
						truth[name] = fmt.Sprint(step, rng.IntN(1000))
						put(tx, name, truth[name])
					}
					changed[name] = true
				}
			})
		}
		if rng.IntN(3) == 0 {
			continue // the client is slow
		}
		var adds, mods, dels []string
		for name := range changed {
			value, is := truth[name]
			_, had := client[name]
			switch {
			case !wanted(name):
			case is && !had:
				adds = append(adds, "add "+name+"="+value)
			case is:
				mods = append(mods, "mod "+name+"="+value)
			case had:
				dels = append(dels, "del "+name)
			}
		}
		got, next, took := w.from(token, 1, entries...)
		if want := sorted(adds, mods, dels); sorted(strings.Split(got, ", ")) != sorted(strings.Split(want, ", ")) || !ordered(got) {
			w.t.Fatalf("seed %d, %v: got %q, want %q", seed, entries, got, want)
		}
		if empty := got == ""; empty != (took == time.Second) || took > time.Second {
			w.t.Fatalf("seed %d: %q took %s", seed, got, took)
		}
		token = next
		clear(changed)
		clear(client)
		for name, value := range truth {
			if wanted(name) {
				client[name] = value
			}
		}
	}
}

// history picks what happens next: something new, for references are never used
// again, or something to an object there is.
func history(rng *rand.Rand, truth map[string]string, made *int) string {
	if names := slices.Sorted(maps.Keys(truth)); len(names) > 0 && rng.IntN(4) > 0 {
		return names[rng.IntN(len(names))]
	}
	*made++
	return fmt.Sprintf("%s%d", []string{"vm", "network", "task", "message"}[rng.IntN(4)], *made)
}

func sorted(groups ...[]string) string {
	var all []string
	for _, g := range groups {
		slices.Sort(g)
		all = append(all, g...)
	}
	return strings.Join(all, ", ")
}

// ordered reports whether additions come first and deletions last.
func ordered(events string) bool {
	rank := map[string]int{"add": 0, "mod": 1, "del": 2}
	last := 0
	for e := range strings.SplitSeq(events, ", ") {
		op, _, _ := strings.Cut(e, " ")
		if rank[op] < last {
			return false
		}
		last = rank[op]
	}
	return true
}
