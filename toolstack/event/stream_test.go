package event

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// start waits for the next batch in the background.
func (w *world) start(token string, timeout float64, classes ...string) <-chan string {
	answer := make(chan string, 1)
	go func() {
		text, _, took := w.from(token, timeout, classes...)
		answer <- fmt.Sprintf("%s after %s", text, took)
	}()
	synctest.Wait()
	return answer
}

func (w *world) expect(got <-chan string, want string) {
	w.t.Helper()
	if text := <-got; text != want {
		w.t.Errorf("got %q, want %q", text, want)
	}
}

func (w *world) now() string {
	g := w.db.Snapshot().Generation()
	return Token{g, g}.String()
}

func TestBatchingDelay(t *testing.T) {
	inBubble(t, func(w *world) {
		w.update(func(tx *db.Tx) { put(tx, "vm1", "a"); put(tx, "task1", "a") })
		w.expect(w.start("", 9, "VM"), "add vm1=a after 0s") // the first fill does not wait
		token := w.now()
		waiting := w.start(token, 60, "vm", "network")
		time.Sleep(time.Second)
		w.update(func(tx *db.Tx) { put(tx, "vm1", "b") })
		time.Sleep(30 * time.Millisecond)
		w.update(func(tx *db.Tx) { put(tx, "vm1", "c"); put(tx, "vm2", "d") })
		w.expect(waiting, "add vm2=d, mod vm1=c after 1.05s")
		w.expect(w.start(token, 60, "vm/OpaqueRef:vm1"), "mod vm1=c after 50ms")
		tasks := w.start(token, 60, "task")
		w.update(func(tx *db.Tx) { put(tx, "task1", "b") })
		w.expect(tasks, "mod task1=b after 50ms")
		w.expect(w.start(token, 60, "task"), "mod task1=b after 0s") // what is known is told at once
	})
}

func TestEmptyOnlyAtTheTimeout(t *testing.T) {
	inBubble(t, func(w *world) {
		w.update(func(tx *db.Tx) { put(tx, "vm1", "a") })
		for timeout, want := range map[float64]string{0: "0s", 0.02: "20ms", 5: "5s", -3: "0s", math.NaN(): "0s", math.Inf(1): "1h0m0s"} {
			w.expect(w.start(w.now(), timeout, "*"), " after "+want)
		}
		waiting := w.start(w.now(), 10, "vm")
		w.update(func(tx *db.Tx) { put(tx, "vm2", "b") })
		w.update(func(tx *db.Tx) { remove(tx, "vm2") }) // came and went: nothing to tell
		w.expect(waiting, " after 10s")
		token := w.now()
		w.update(func(tx *db.Tx) { put(tx, "vm3", "b") })
		after := w.now()
		w.update(func(tx *db.Tx) { remove(tx, "vm3"); remove(tx, "vm1") })
		w.expect(w.start(token, 1, "*"), "del vm1 after 50ms")
		w.expect(w.start(after, 1, "*"), "del vm3, del vm1 after 50ms")
	})
}

// TestWaitersAreNotDisturbed: whom a change does not concern is not woken, and
// however much happens beside it loses nothing.
func TestWaitersAreNotDisturbed(t *testing.T) {
	inBubble(t, func(w *world) {
		looked := 0
		w.s.check = func(api.SessionRef) error { looked++; return nil }
		w.update(func(tx *db.Tx) { put(tx, "vm1", "a"); put(tx, "network1", "a") })
		token := w.now()
		waiting := w.start(token, 3000, "network")
		time.Sleep(time.Second)
		w.manyChanges()
		synctest.Wait()
		if looked != 1 {
			t.Errorf("the waiter looked %d times", looked)
		}
		time.Sleep(time.Second)
		w.update(func(tx *db.Tx) { put(tx, "vm1", "b"); put(tx, "network1", "b") })
		w.expect(waiting, "mod network1=b after 2.05s")
		w.expect(w.start(token, 1, "network"), "EVENTS_LOST after 50ms") // who was away that long starts over
	})
}

// manyChanges are more than is remembered.
func (w *world) manyChanges() {
	const objects = 700
	w.update(func(tx *db.Tx) {
		for i := range objects {
			put(tx, fmt.Sprint("task", i), "")
		}
	})
	for range 2*(1<<15)/objects + 2 {
		w.update(func(tx *db.Tx) {
			for i := range objects {
				put(tx, fmt.Sprint("task", i), "")
			}
		})
	}
}

func TestMessagesHaveTheirOwnCounter(t *testing.T) {
	inBubble(t, func(w *world) {
		w.update(func(tx *db.Tx) { put(tx, "vm1", "a"); put(tx, "message1", "a") })
		_, token, _ := w.from("", 1, "vm")
		at, err := ParseToken(token)
		if err != nil || at.Messages != 0 || at.Generation == 0 {
			t.Errorf("token %q, %v", token, err)
		}
		text, token, _ := w.from(token, 1, "vm", "message")
		if text != "add message1=a" {
			t.Errorf("asked for messages for the first time: %q", text)
		}
		w.update(func(tx *db.Tx) { put(tx, "message2", "b"); remove(tx, "message1"); put(tx, "vm1", "b") })
		if text, _, _ = w.from(token, 1, "*"); text != "add message2=b, mod vm1=b, del message1" {
			t.Errorf("then: %q", text)
		}
		old := w.now()
		waiting := w.start(old, 1, "message")
		w.update(func(tx *db.Tx) { remove(tx, "message2") })
		w.expect(waiting, "del message2 after 50ms")
	})
}

func TestWhatEndsAWait(t *testing.T) {
	inBubble(t, func(w *world) {
		w.update(func(tx *db.Tx) { put(tx, "vm1", "a"); tx.InsertRecord("OpaqueRef:s", api.NewSession()) })
		gone := make(chan struct{})
		c := w.call()
		c.Gone = gone
		answer := make(chan error)
		go func() {
			_, err := w.s.from(c, []string{"vm"}, w.now(), 3600)
			answer <- err
		}()
		synctest.Wait()
		close(gone)
		if err := <-answer; err != nil {
			t.Errorf("the client is gone: %v", err)
		}
		waiting := w.start(w.now(), 3600, "vm")
		w.ended["OpaqueRef:s"] = true
		w.update(func(tx *db.Tx) { db.Delete(tx, api.SessionRef("OpaqueRef:s")) })
		w.expect(waiting, "SESSION_INVALID [OpaqueRef:s] after 50ms")
	})
}

// TestRestart: what was known before is lost, volatile objects with it.
func TestRestart(t *testing.T) {
	inBubble(t, func(w *world) {
		engine := db.NewMemory()
		d, err := db.Open(t.Context(), engine, db.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w.db, w.s.db = d, d
		w.update(func(tx *db.Tx) { put(tx, "vm1", "a"); put(tx, "task1", "a") })
		token := w.now()
		d.Close()
		if d, err = db.Open(t.Context(), engine, db.Options{}); err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		w.db, w.s.db = d, d
		w.expect(w.start(token, 1, "*"), "EVENTS_LOST after 50ms")
		w.expect(w.start("", 1, "*"), "add vm1=a after 0s")
	})
}

func BenchmarkDelivery(b *testing.B) {
	const waiters, vms = 64, 4000
	d, err := db.Open(b.Context(), db.NewMemory(), db.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	d.Update(b.Context(), func(tx *db.Tx) error {
		for i := range vms {
			put(tx, fmt.Sprint("vm", i), "")
		}
		return nil
	})
	s := New(d, func(api.SessionRef) error { return nil })
	var worst, sum time.Duration
	rounds := 0
	for n := 0; b.Loop(); n++ {
		token := Token{d.Snapshot().Generation(), d.Snapshot().Generation()}.String()
		done := make(chan time.Time, waiters)
		for range waiters {
			go func() {
				r, err := s.from(&api.Call{Context: b.Context(), Session: "OpaqueRef:s"}, []string{"*"}, token, 60)
				if err == nil {
					r.AppendValue(nil, api.JSON)
				}
				done <- time.Now()
			}()
		}
		time.Sleep(2 * batchDelay) // until all of them wait
		begun := time.Now()
		d.Update(b.Context(), func(tx *db.Tx) error { put(tx, fmt.Sprint("vm", n%vms), fmt.Sprint(n)); return nil })
		var last time.Duration
		for range waiters {
			last = max(last, (<-done).Sub(begun)-batchDelay)
		}
		worst, sum, rounds = max(worst, last), sum+last, n+1
	}
	b.ReportMetric(float64(sum.Microseconds())/1000/float64(rounds), "ms-beyond-delay")
	b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms-beyond-delay")
}
