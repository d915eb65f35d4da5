// Package event delivers changes of the database to clients: event.from with
// its tokens, event.inject and event.get_current_id.
//
// A client gets each changed object once with its latest record, however often
// it changed since the client's token. Nothing is queued per client: the token
// names a generation of the database, and the change feed answers what happened
// since. A Streamer may be used by many goroutines.
package event

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// maxWait bounds how long one event.from may block.
const maxWait = time.Hour

// Streamer serves the messages of class event.
type Streamer struct {
	db    *db.DB
	check func(api.SessionRef) error
}

// New returns a streamer; check answers SESSION_INVALID for a session that has
// ended, so that its streams end too.
func New(d *db.DB, check func(api.SessionRef) error) *Streamer { return &Streamer{d, check} }

// Register binds the messages of class event.
func (s *Streamer) Register(r *api.Registry) {
	api.HandleEventFrom(r, s.from)
	api.HandleEventInject(r, s.inject)
	api.HandleEventGetCurrentID(r, func(*api.Call) (int64, error) {
		return int64(s.db.Snapshot().Generation()), nil
	})
}

// Token is a place in the stream of changes. The second number is that of the
// last message object, which have a counter of their own.
type Token struct{ Generation, Messages uint64 }

// String writes the token as clients keep it.
func (t Token) String() string { return fmt.Sprintf("%020d,%020d", t.Generation, t.Messages) }

// ParseToken reads a token; an empty one is the beginning.
func ParseToken(s string) (Token, error) {
	if s == "" {
		return Token{}, nil
	}
	a, b, ok := strings.Cut(s, ",")
	generation, err1 := strconv.ParseUint(a, 10, 64)
	messages, err2 := strconv.ParseUint(b, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return Token{}, api.ErrEventFromTokenParseFailure(s)
	}
	return Token{generation, messages}, nil
}

// subscription says which objects a client wants to hear of.
type subscription struct {
	all     bool
	classes map[string]bool            // by lower-case name
	objects map[string]map[string]bool // references by lower-case name of class
}

func parseSubscription(entries []string) (*subscription, error) {
	s := &subscription{classes: map[string]bool{}, objects: map[string]map[string]bool{}}
	for _, e := range entries {
		class, ref, single := strings.Cut(e, "/")
		class = strings.ToLower(class)
		switch {
		case e == "*":
			s.all = true
		case class == "" || strings.Contains(ref, "/") || single && ref == "":
			return nil, api.ErrEventSubscriptionParseFailure(e)
		case single:
			if s.objects[class] == nil {
				s.objects[class] = map[string]bool{}
			}
			s.objects[class][ref] = true
		default:
			s.classes[class] = true
		}
	}
	return s, nil
}

// class reports whether anything of a class is wanted.
func (s *subscription) class(c *api.ClassInfo) bool {
	return c.Events && (s.all || s.classes[c.Lower] || s.objects[c.Lower] != nil)
}

// object reports whether an object is wanted.
func (s *subscription) object(c *api.ClassInfo, ref string) bool {
	return c.Events && (s.all || s.classes[c.Lower] || s.objects[c.Lower][ref])
}

// from serves event.from: it answers as soon as there is something to tell, and
// with an empty batch when the time is up.
func (s *Streamer) from(c *api.Call, classes []string, token string, timeout float64) (api.Result, error) {
	sub, err := parseSubscription(classes)
	if err != nil {
		return nil, err
	}
	since, err := ParseToken(token)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c, min(max(time.Duration(timeout*float64(time.Second)), 0), maxWait))
	defer cancel()
	watch := s.db.Watch()
	defer watch.Close()
	for {
		b, err := s.batch(sub, since)
		if err != nil || len(b.changes) > 0 {
			return b, err
		}
		select {
		case <-watch.C():
		case <-ctx.Done():
			return b, nil // the time is up, or the server stops
		case <-c.Gone:
			return b, nil
		}
		if err := s.check(c.Session); err != nil {
			return nil, err
		}
	}
}

// batch collects what happened since a token.
func (s *Streamer) batch(sub *subscription, since Token) (*batch, error) {
	b := &batch{sub: sub, messages: since.Messages}
	if since.Generation == 0 {
		b.snap = s.db.Snapshot()
		b.everything()
		return b, nil
	}
	snap, changes, ok := s.db.Since(since.Generation)
	if !ok || snap.Generation() < since.Generation {
		return nil, api.ErrEventsLost() // too long ago, or of another database
	}
	b.snap = snap
	for _, op := range []db.Op{db.Add, db.Mod, db.Del} {
		for _, ch := range changes {
			if ch.Op == op && sub.object(ch.Class, ch.Ref) {
				b.changes = append(b.changes, ch)
			}
		}
	}
	return b, nil
}

// inject makes an object appear changed and answers a token just before that,
// which clients use as "now".
func (s *Streamer) inject(c *api.Call, class, ref string) (string, error) {
	info := api.FindClass(class)
	if info == nil || !info.InDB {
		return "", api.ErrHandleInvalid(class, ref)
	}
	before := s.db.Snapshot().Generation()
	err := s.db.Update(c, func(tx *db.Tx) error { return tx.Touch(info, api.ParseRef(ref)) })
	return Token{Generation: before}.String(), err
}
