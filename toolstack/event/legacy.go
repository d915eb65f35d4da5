package event

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// maxAnswer bounds one answer of event.next, in bytes. Whoever has missed more
// is told so, and reads everything anew.
const maxAnswer = 10 << 20

// registration is the older kind of subscription, which the server keeps for a
// session. It holds a place in the changes and no events, and is forgotten after
// its session has ended.
type registration struct {
	entries []string // with classes in lower case; guarded by Streamer.mu
	sub     atomic.Pointer[subscription]
	turn    chan struct{} // cap 1: one event.next at a time, which owns the stream
	stream  *stream
	ended   context.Context
	end     context.CancelFunc
}

// register adds classes to what the session is registered for, or begins with
// what changes from now on.
func (s *Streamer) register(c *api.Call, classes []string) error {
	if _, err := parseSubscription(classes); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	r := s.registrations[c.Session]
	if r == nil {
		r = s.begin(c.Session)
		s.registrations[c.Session] = r
	}
	for _, e := range classes {
		if e = normal(e); !slices.Contains(r.entries, e) {
			r.entries = append(r.entries, e)
		}
	}
	return r.subscribe()
}

// begin makes a registration for nothing yet.
func (s *Streamer) begin(session api.SessionRef) *registration {
	r := &registration{turn: make(chan struct{}, 1)}
	r.sub.Store(&subscription{})
	r.ended, r.end = context.WithCancel(context.Background())
	now := s.db.Snapshot().Generation()
	r.stream = &stream{sub: r.sub.Load, since: Token{now, now}}
	r.stream.objects = s.db.WatchSince(now, func(ch *db.Change) bool {
		return endOf(session, ch) || r.sub.Load().object(ch.Class, ch.Ref)
	})
	return r
}

// subscribe makes the entries what is wanted.
func (r *registration) subscribe() error {
	sub, err := parseSubscription(r.entries)
	if err != nil {
		return err
	}
	r.sub.Store(sub)
	return nil
}

// unregister takes classes from what the session is registered for; with the
// last one the registration ends.
func (s *Streamer) unregister(c *api.Call, classes []string) error {
	if _, err := parseSubscription(classes); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.registrations[c.Session]
	if r == nil {
		return nil
	}
	r.entries = slices.DeleteFunc(r.entries, func(e string) bool {
		return slices.ContainsFunc(classes, func(gone string) bool { return normal(gone) == e })
	})
	if len(r.entries) == 0 {
		s.forget(c.Session)
		return nil
	}
	return r.subscribe()
}

// normal writes the class of an entry in lower case.
func normal(entry string) string {
	class, ref, single := strings.Cut(entry, "/")
	if !single {
		return strings.ToLower(class)
	}
	return strings.ToLower(class) + "/" + ref
}

// forget ends a registration; s.mu is held.
func (s *Streamer) forget(session api.SessionRef) {
	r := s.registrations[session]
	delete(s.registrations, session)
	r.end()
	r.stream.close()
}

// sweep forgets the registrations of sessions that are no more; s.mu is held.
func (s *Streamer) sweep() {
	snap := s.db.Snapshot()
	for ref := range s.registrations {
		if snap.Object(sessionClass, string(ref)) == nil {
			s.forget(ref)
		}
	}
}

// next serves event.next: it answers when there is something to tell.
func (s *Streamer) next(c *api.Call) (api.Result, error) {
	s.mu.Lock()
	r := s.registrations[c.Session]
	s.mu.Unlock()
	if r == nil {
		return nil, api.ErrSessionNotRegistered(c.Session.String())
	}
	ctx, cancel := context.WithCancel(c)
	defer cancel()
	defer context.AfterFunc(r.ended, cancel)()
	call := *c
	call.Context = ctx
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return nil, api.ErrSessionNotRegistered(c.Session.String())
	case <-c.Gone:
		return legacyBatch{&batch{}}, nil
	}
	b, err := s.wait(&call, r.stream, maxWait, 0)
	switch {
	case err != nil:
		return nil, err
	case r.ended.Err() != nil:
		return nil, api.ErrSessionNotRegistered(c.Session.String())
	case b.exceeds(maxAnswer):
		return nil, api.ErrEventsLost()
	}
	return legacyBatch{b}, nil
}

// exceeds reports whether the records of a batch are more than so many bytes.
func (b *batch) exceeds(limit int) bool {
	var record []byte
	for i := range b.changes {
		if o := b.object(&b.changes[i]); o != nil {
			record = o.AppendRecord(record[:0], api.JSON)
			limit -= len(record)
		}
		if limit < 0 {
			return true
		}
	}
	return false
}

// legacyBatch is the answer of event.next: the events alone.
type legacyBatch struct{ batch *batch }

// AppendValue implements api.Result.
func (b legacyBatch) AppendValue(out []byte, e api.Encoding) []byte {
	return b.batch.appendEvents(out, e, inOne)
}
