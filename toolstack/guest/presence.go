package guest

import (
	"errors"
	"time"

	"cairn/toolstack/guest/qga"
)

// Presence is what is known of the agent in a guest.
type Presence int

// Presences, in the order in which an agent is lost.
const (
	Unknown Presence = iota // nobody has answered since the machine was started
	Present
	Hung // it answered, and does not now
	Gone // it has not answered for long
)

func (p Presence) String() string {
	return [...]string{"unknown", "present", "hung", "gone"}[p]
}

const (
	// hungAfter is long enough that neither a busy guest nor one question that was lost
	// looks like an agent that hangs.
	hungAfter = 15 * time.Second
	// goneAfter is longer than a guest takes to start anew.
	goneAfter = 5 * time.Minute

	// Pauses before a port is tried again; they double with each failure. Where nobody
	// answers the wait is in the asking. An agent that begins to answer and stops holds
	// up others meanwhile, and one that talks nonsense costs 1 MiB of reading a time.
	closedMin, closedMax     = time.Second, 30 * time.Second
	silentMin, silentMax     = 100 * time.Millisecond, 5 * time.Second
	stalledMin, stalledMax   = 5 * time.Second, 5 * time.Minute
	nonsenseMin, nonsenseMax = 30 * time.Second, 8 * time.Minute
)

// errStalled is an agent that did a handshake and then not what it was asked.
var errStalled = errors.New("the guest's agent has stopped in the middle")

// presence is Presence over time: a pure function of what was heard and when. It only
// ever becomes Present by an answer.
type presence struct {
	Presence
	since    time.Time // of the first failure since the last answer
	failures int       // since then
}

// answered is an agent that has done a handshake.
func (p presence) answered() presence { return presence{Presence: Present} }

// failed is one that has not, or that broke a conversation off.
func (p presence) failed(now time.Time) presence {
	if p.failures == 0 {
		p.since = now
	}
	p.failures++
	silence := now.Sub(p.since)
	if p.Presence == Present && silence >= hungAfter {
		p.Presence = Hung
	}
	if p.Presence == Hung && silence >= goneAfter {
		p.Presence = Gone
	}
	return p
}

// pause is how long to leave the port alone after a failure.
func (p presence) pause(why error) time.Duration {
	switch {
	case errors.Is(why, qga.ErrGarbage):
		return doubled(nonsenseMin, p.failures, nonsenseMax)
	case errors.Is(why, qga.ErrSilent) && errors.Is(why, errStalled):
		return doubled(stalledMin, p.failures, stalledMax)
	case errors.Is(why, qga.ErrSilent):
		return doubled(silentMin, p.failures, silentMax)
	default:
		return doubled(closedMin, p.failures, closedMax)
	}
}

// doubled is a time that doubles from its second use on.
func doubled(first time.Duration, uses int, limit time.Duration) time.Duration {
	for ; uses > 1 && first < limit; uses-- {
		first *= 2
	}
	return min(first, limit)
}
