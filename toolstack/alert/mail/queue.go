package mail

import (
	"slices"
	"time"

	"cairn/toolstack/api"
)

// queued is a message on its way. All but the message and its time belong to whoever
// sends.
type queued struct {
	*api.Message
	since time.Time
	had   map[string]bool   // receivers it has reached
	never map[string]string // those it never will, by the server that said so
	tries int               // that ended with "later"
	due   time.Time         // not before
}

func newQueued(x *api.Message, now time.Time) *queued {
	return &queued{Message: x, since: now, had: map[string]bool{}, never: map[string]string{}}
}

// left are those who are still to get it.
func (x *queued) left(s settings) (to []string) {
	for _, one := range s.to {
		if !x.had[one] && x.never[one] != s.hub {
			to = append(to, one)
		}
	}
	return to
}

// next is the message to send now: of those that are due the one that was tried least, so
// that none is held up by others of which the server wants to hear later. If none is, it
// tells how long none will be, or 0.
func (m *Mailer) next(now time.Time) (least *queued, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.queue {
		switch left := x.due.Sub(now); {
		case left > 0 && (wait == 0 || left < wait):
			wait = left
		case left <= 0 && (least == nil || x.tries < least.tries):
			least = x
		}
	}
	return least, wait
}

// postpone lets a message wait by itself.
func (m *Mailer) postpone(x *queued, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x.tries++
	x.due = now.Add(backOff(x.tries))
}

// hasten ends the waiting of all messages.
func (m *Mailer) hasten() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.queue {
		x.tries, x.due = 0, time.Time{}
	}
}

// giveUp drops what has been tried long enough.
func (m *Mailer) giveUp(cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = slices.DeleteFunc(m.queue, func(x *queued) bool {
		old := time.Since(x.since) >= lifetime
		if old {
			m.lost(x, cause)
		}
		return old
	})
}

func (m *Mailer) remove(x *queued) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = slices.DeleteFunc(m.queue, func(y *queued) bool { return x == y })
}
