package event

import (
	"slices"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// batchDelay is how long a change waits for others, so that a burst of them is
// told at once; clients know this figure.
const batchDelay = 50 * time.Millisecond

// maxWait bounds how long one call may block.
const maxWait = time.Hour

// stream is a place in the changes of the database, for one subscription. One
// goroutine at a time may use it.
type stream struct {
	sub func() *subscription
	// objects and messages are the two counters. The first also wakes when
	// the session ends; the second is nil when messages need none of their
	// own.
	objects, messages *db.Watch
	since             Token // 0 where everything there is comes first
}

// open begins a stream after a token.
func (s *Streamer) open(sub *subscription, since Token, session api.SessionRef) *stream {
	t := &stream{sub: func() *subscription { return sub }, since: since}
	start := s.db.Snapshot().Generation()
	from := func(counter uint64) uint64 {
		if counter == 0 {
			return start
		}
		return counter
	}
	t.objects = s.db.WatchSince(from(since.Generation), func(ch *db.Change) bool {
		return endOf(session, ch) || ch.Class != messageClass && sub.object(ch.Class, ch.Ref)
	})
	if sub.class(messageClass) {
		t.messages = s.db.WatchSince(from(since.Messages), func(ch *db.Change) bool {
			return ch.Class == messageClass && sub.object(ch.Class, ch.Ref)
		})
	}
	return t
}

// endOf reports whether a change is the end of a session.
func endOf(session api.SessionRef, ch *db.Change) bool {
	return ch.Class == sessionClass && ch.Op == db.Del && ch.Ref == string(session)
}

func (t *stream) close() {
	t.objects.Close()
	if t.messages != nil {
		t.messages.Close()
	}
}

// news receives when there may be messages to tell; never when they have no
// counter of their own.
func (t *stream) news() <-chan struct{} {
	if t.messages == nil {
		return nil
	}
	return t.messages.C()
}

// next collects what happened since it was last called.
func (t *stream) next() (*batch, error) {
	b := &batch{sub: t.sub(), token: t.since}
	whole := t.since.Generation == 0
	var err error
	if b.snap, err = b.take(t.objects, whole, func(c *api.ClassInfo) bool { return c != messageClass }); err != nil {
		return nil, err
	}
	b.news, b.token.Generation = b.snap, b.snap.Generation()
	if t.messages != nil {
		whole = t.since.Messages == 0
		if b.news, err = b.take(t.messages, whole, func(c *api.ClassInfo) bool { return c == messageClass }); err != nil {
			return nil, err
		}
		b.token.Messages = b.news.Generation()
	}
	t.since = b.token
	slices.SortStableFunc(b.changes, func(x, y db.Change) int { return int(x.Op) - int(y.Op) })
	return b, nil
}

// take adds to a batch what a counter has to tell: what changed, or the whole of
// the classes that it counts.
func (b *batch) take(w *db.Watch, whole bool, counts func(*api.ClassInfo) bool) (*db.Snapshot, error) {
	snap, changes, ok := w.Next()
	if !ok {
		return nil, api.ErrEventsLost() // too long ago, or of another database
	}
	if whole {
		b.everything(snap, counts)
		return snap, nil
	}
	for _, ch := range changes {
		if ch.Class.Events {
			b.changes = append(b.changes, ch)
		}
	}
	return snap, nil
}
