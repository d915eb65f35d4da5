package event

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// answer is what event.next told, later.
func (w *world) answer(c *api.Call) <-chan string {
	out := make(chan string, 1)
	go func() {
		r, err := w.s.next(c)
		if err != nil {
			out <- err.Error()
			return
		}
		out <- r.(legacyBatch).batch.String()
	}()
	synctest.Wait()
	return out
}

func TestRegistrationsEnd(t *testing.T) {
	inBubble(t, func(w *world) {
		w.update(func(tx *db.Tx) { tx.InsertRecord("OpaqueRef:s", api.NewSession()) })
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(w.s.register(w.call(), []string{"vm"}))
		waiting := w.answer(w.call())
		must(w.s.register(w.call(), []string{"network"})) // concerns the one that waits already
		w.update(func(tx *db.Tx) { put(tx, "network1", "a") })
		w.expect(waiting, "add network1=a")

		waiting = w.answer(w.call())
		must(w.s.unregister(w.call(), []string{"vm", "network"}))
		w.expect(waiting, "SESSION_NOT_REGISTERED [OpaqueRef:s]")

		must(w.s.register(w.call(), []string{"*"}))
		w.manyChanges()
		w.expect(w.answer(w.call()), "EVENTS_LOST")
		w.update(func(tx *db.Tx) { put(tx, "vm1", "a") })
		w.expect(w.answer(w.call()), "add vm1=a") // and it goes on from there
		w.update(func(tx *db.Tx) {
			for _, name := range []string{"vm1", "vm2", "vm3"} {
				put(tx, name, strings.Repeat("x", 4<<20))
			}
		})
		w.expect(w.answer(w.call()), "EVENTS_LOST")

		gone := make(chan struct{})
		c := w.call()
		c.Gone = gone
		waiting = w.answer(c)
		second := w.answer(w.call()) // waits for its turn
		close(gone)
		w.expect(waiting, "")
		w.ended["OpaqueRef:s"] = true
		w.update(func(tx *db.Tx) { db.Delete(tx, api.SessionRef("OpaqueRef:s")) })
		w.expect(second, "SESSION_INVALID [OpaqueRef:s]")
		time.Sleep(time.Second)
		other := w.call()
		other.Session = "OpaqueRef:other"
		must(w.s.register(other, []string{"vm"}))
		if n := len(w.s.registrations); n != 1 {
			t.Errorf("%d registrations are kept", n)
		}
	})
}
