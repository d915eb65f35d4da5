// Package event delivers changes of the database to clients: event.from with
// its tokens, event.inject and event.get_current_id, and the older
// event.register, event.unregister and event.next.
//
// A client gets each changed object once with its latest record, however often
// it changed since the client's token. Nothing is queued per client: the token
// names a generation of the database, and the change feed answers what happened
// since. A client that waits costs nothing until something it wants changes. A
// Streamer may be used by many goroutines.
package event

import (
	"sync"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Streamer serves the messages of class event.
type Streamer struct {
	db    *db.DB
	check func(api.SessionRef) error

	mu            sync.Mutex
	registrations map[api.SessionRef]*registration
}

// New returns a streamer; check answers SESSION_INVALID for a session that has
// ended, so that its streams end too.
func New(d *db.DB, check func(api.SessionRef) error) *Streamer {
	return &Streamer{db: d, check: check, registrations: map[api.SessionRef]*registration{}}
}

// Register binds the messages of class event.
func (s *Streamer) Register(r *api.Registry) {
	api.HandleEventFrom(r, s.from)
	api.HandleEventInject(r, s.inject)
	api.HandleEventGetCurrentID(r, func(*api.Call) (int64, error) {
		return int64(s.db.Snapshot().Generation()), nil
	})
	api.HandleEventRegister(r, s.register)
	api.HandleEventUnregister(r, s.unregister)
	api.HandleEventNext(r, s.next)
}

// from serves event.from: it answers when there is something to tell, and with
// an empty batch when the time is up.
func (s *Streamer) from(c *api.Call, classes []string, token string, timeout float64) (api.Result, error) {
	sub, err := parseSubscription(classes)
	if err != nil {
		return nil, err
	}
	since, err := ParseToken(token)
	if err != nil {
		return nil, err
	}
	pause := batchDelay
	if sub.tasksOnly() || since.Generation == 0 { // the first fill has waited long enough
		pause = 0
	}
	t := s.open(sub, since, c.Session)
	defer t.close()
	b, err := s.wait(c, t, duration(timeout), pause)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// duration reads a number of seconds; what is no number is none.
func duration(seconds float64) time.Duration {
	if !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, maxWait.Seconds()) * float64(time.Second))
}

// wait returns the stream's next batch that is not empty, or an empty one when
// the time is up, the client has gone or the server stops. It looks after pause
// at the earliest, and batchDelay after each change.
func (s *Streamer) wait(c *api.Call, t *stream, timeout, pause time.Duration) (*batch, error) {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for over := false; ; pause = batchDelay {
		if pause > 0 {
			over = !sleep(c, pause, deadline.C)
		}
		b, err := t.next()
		if err != nil || over || len(b.changes) > 0 {
			return b, err
		}
		if err := s.check(c.Session); err != nil {
			return nil, err
		}
		select {
		case <-t.objects.C():
		case <-t.news():
		case <-deadline.C:
			return b, nil
		case <-c.Done():
			return b, nil
		case <-c.Gone:
			return b, nil
		}
	}
}

// sleep waits and reports whether nothing came between.
func sleep(c *api.Call, d time.Duration, deadline <-chan time.Time) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-deadline:
	case <-c.Done():
	case <-c.Gone:
	}
	return false
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
	return Token{before, before}.String(), err
}
