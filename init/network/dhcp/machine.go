// Package dhcp leases an IPv4 address: a client after RFC 2131 whose lease
// machine is pure, and a raw socket for its messages.
//
// Machine is a state machine in virtual time: events (start, reply, time, link)
// go in with the present time, actions (send, bound, lost) come out, and
// Deadline says when it wants to hear of the time again. It starts no goroutine
// and reads no clock, so a test can live through years of it. It is not safe
// for concurrent use; the network manager's one goroutine owns it.
//
// Invariants: an address is given up at its expiry or on a NAK and at no other
// time, and never silently; retries back off with jitter and never stop; the
// machine never holds an expired lease.
package dhcp

import (
	"net/netip"
	"time"
)

// State is the state of the lease, named as in RFC 2131.
type State string

// The states.
const (
	Init       State = "INIT"
	Selecting  State = "SELECTING"
	Requesting State = "REQUESTING"
	Bound      State = "BOUND"
	Renewing   State = "RENEWING"
	Rebinding  State = "REBINDING"
)

// Timing. RFC 2131 §4.1 starts at 4 s; the first packet is often lost to a
// switch port that has just come up, so this client starts at 1 s and moves
// each wait by up to a quarter. Renewals wait at least 60 s (§4.4.5).
const (
	firstRetry   = time.Second
	maxRetry     = 64 * time.Second
	jitterPart   = 4
	minRenewWait = 60 * time.Second
	minDuration  = 10 * time.Second
	// maxRequests is how often an offer is asked for before looking for another.
	maxRequests = 4
)

// Lease is what a server granted.
type Lease struct {
	Address netip.Prefix
	Server  netip.Addr
	Routes  []Route
	DNS     []netip.Addr
	NTP     []netip.Addr
	Domain  string
	// Expires is zero for a lease without end.
	Expires time.Time
	renewAt time.Time
	rebind  time.Time
}

// Action is what the machine wants done: Send, Got or Lost.
type Action interface{ action() }

// Send wants a message sent.
type Send struct{ Query Query }

// Got says that the host has this lease now, new or renewed.
type Got struct {
	Lease Lease
	// Renewed is true when the address was the host's before.
	Renewed bool
}

// Lost says that the address must be removed, and why.
type Lost struct {
	Address netip.Prefix
	Reason  string
}

func (Send) action() {}
func (Got) action()  {}
func (Lost) action() {}

// Random is the machine's source of chance; tests give a fixed one.
type Random interface {
	Uint32() uint32
	// Float64 is in [0,1).
	Float64() float64
}

// Machine is the lease machine. Use New.
type Machine struct {
	random   Random
	state    State
	deadline time.Time
	started  time.Time // of the present attempt, for the secs field
	xid      uint32
	tries    int // of the present message
	failures int // attempts in a row that a server refused
	offer    Reply
	lease    *Lease
}

// New returns a machine at rest; Start sets it going.
func New(random Random) *Machine { return &Machine{random: random, state: Init} }

// State returns the present state.
func (m *Machine) State() State { return m.state }

// Lease returns the lease the host holds, or nil.
func (m *Machine) Lease() *Lease { return m.lease }

// Deadline is when Tick is due; zero means never.
func (m *Machine) Deadline() time.Time { return m.deadline }

// Start begins looking for an address.
func (m *Machine) Start(now time.Time) []Action {
	m.lease = nil
	m.failures = 0
	return m.discover(now)
}

// Resume begins with a lease from before a restart of this process, and asks
// at once whether it still holds. An expired one is refused.
func (m *Machine) Resume(now time.Time, l Lease) []Action {
	if !l.Expires.IsZero() && !now.Before(l.Expires) {
		return m.Start(now)
	}
	l.renewAt, l.rebind = now, now
	m.lease = &l
	return m.rebindNow(now)
}

// LinkUp tells that the link came back: the host may be on another network.
func (m *Machine) LinkUp(now time.Time) []Action {
	if m.lease == nil {
		return m.Start(now)
	}
	return m.rebindNow(now)
}

// Tick is to be called when Deadline has come; earlier calls do nothing.
func (m *Machine) Tick(now time.Time) []Action {
	if m.deadline.IsZero() || now.Before(m.deadline) {
		return nil
	}
	if m.expired(now) {
		return m.lose(now, "lease expired")
	}
	switch m.state {
	case Init:
		return m.discover(now)
	case Selecting:
		return m.retry(now, m.discoverQuery(now))
	case Requesting:
		if m.tries >= maxRequests {
			return m.discover(now)
		}
		return m.retry(now, m.requestQuery(now))
	case Bound:
		return m.renew(now)
	case Renewing:
		if !now.Before(m.lease.rebind) {
			return m.rebindNow(now)
		}
		return m.ask(now, m.lease.rebind, m.renewQuery(now))
	default: // Rebinding
		return m.ask(now, m.lease.Expires, m.rebindQuery(now))
	}
}

// Receive takes a reply. Those that are not the answer to the last question
// are ignored.
func (m *Machine) Receive(now time.Time, r Reply) []Action {
	if r.XID != m.xid {
		return nil
	}
	switch {
	case m.state == Selecting && r.Type == Offer:
		m.offer, m.tries, m.state = r, 0, Requesting
		return m.retry(now, m.requestQuery(now))
	case m.state == Requesting && r.Type == Ack && r.Server == m.offer.Server:
		return m.bind(now, r)
	case m.state == Requesting && r.Type == Nak && r.Server == m.offer.Server:
		return m.refused(now)
	case (m.state == Renewing || m.state == Rebinding) && r.Type == Ack:
		return m.bind(now, r)
	case (m.state == Renewing || m.state == Rebinding) && r.Type == Nak:
		return m.lose(now, "server "+r.Server.String()+" refused to renew"+because(r.Message))
	}
	return nil
}

func because(msg string) string {
	if msg == "" {
		return ""
	}
	return ": " + msg
}

func (m *Machine) expired(now time.Time) bool {
	return m.lease != nil && !m.lease.Expires.IsZero() && !now.Before(m.lease.Expires)
}

func (m *Machine) discover(now time.Time) []Action {
	m.begin(now, Selecting)
	return m.retry(now, m.discoverQuery(now))
}

// begin enters a state in which a new question is asked.
func (m *Machine) begin(now time.Time, s State) {
	m.state, m.tries, m.started = s, 0, now
	m.xid = m.random.Uint32()
}

// retry sends and sets the deadline of the next attempt: doubled each time.
func (m *Machine) retry(now time.Time, q Query) []Action {
	m.deadline = now.Add(m.backoff(m.tries))
	m.tries++
	return []Action{Send{q}}
}

func (m *Machine) backoff(n int) time.Duration {
	d := min(firstRetry<<min(n, 10), maxRetry)
	return d + time.Duration((2*m.random.Float64()-1)*float64(d/jitterPart))
}

// refused waits before the next attempt, longer each time: a server that
// offers and then refuses would otherwise be asked without pause.
func (m *Machine) refused(now time.Time) []Action {
	m.state = Init
	m.deadline = now.Add(m.backoff(m.failures))
	m.failures++
	return nil
}

// lose gives the lease up and looks for another one.
func (m *Machine) lose(now time.Time, reason string) []Action {
	lost := Lost{Address: m.lease.Address, Reason: reason}
	m.lease = nil
	return append([]Action{lost}, m.discover(now)...)
}

func (m *Machine) renew(now time.Time) []Action {
	m.begin(now, Renewing)
	return m.ask(now, m.lease.rebind, m.renewQuery(now))
}

func (m *Machine) rebindNow(now time.Time) []Action {
	m.begin(now, Rebinding)
	return m.ask(now, m.lease.Expires, m.rebindQuery(now))
}

// ask sends and waits half the time that is left until the state ends, but not
// less than a minute, and never past the end (RFC 2131 §4.4.5). A lease without
// end is asked for again at the slowest pace.
func (m *Machine) ask(now, end time.Time, q Query) []Action {
	wait := maxRetry
	if !end.IsZero() {
		left := end.Sub(now)
		wait = min(max(left/2, minRenewWait), left)
	}
	m.deadline = now.Add(wait)
	// The first questions of a rebind follow a restart or a new link: then an
	// answer is near, and a minute is long.
	if m.state == Rebinding && m.tries < maxRequests {
		m.deadline = now.Add(min(wait, m.backoff(m.tries)))
	}
	m.tries++
	return []Action{Send{q}}
}

func (m *Machine) bind(now time.Time, r Reply) []Action {
	l := Lease{
		Address: r.Address, Server: r.Server, Routes: r.Routes,
		DNS: r.DNS, NTP: r.NTP, Domain: r.Domain,
	}
	var out []Action
	if m.lease != nil && m.lease.Address != l.Address {
		out = append(out, Lost{Address: m.lease.Address, Reason: "server gave another address"})
	}
	renewed := m.lease != nil && m.lease.Address == l.Address
	m.deadline = time.Time{}
	if r.Duration != Infinite {
		t1, t2 := timers(r)
		l.renewAt, l.rebind, l.Expires = now.Add(t1), now.Add(t2), now.Add(r.Duration)
		m.deadline = l.renewAt
	}
	m.state, m.lease, m.failures = Bound, &l, 0
	return append(out, Got{Lease: l, Renewed: renewed})
}

// timers are the server's T1 and T2 where they are in order, else RFC 2131's
// defaults of a half and seven eighths.
func timers(r Reply) (t1, t2 time.Duration) {
	if 0 < r.T1 && r.T1 < r.T2 && r.T2 < r.Duration {
		return r.T1, r.T2
	}
	return r.Duration / 2, r.Duration / 8 * 7
}

func (m *Machine) secs(now time.Time) uint16 {
	return uint16(min(now.Sub(m.started)/time.Second, 0xffff))
}

func (m *Machine) discoverQuery(now time.Time) Query {
	return Query{Type: Discover, XID: m.xid, Secs: m.secs(now)}
}

func (m *Machine) requestQuery(now time.Time) Query {
	return Query{Type: Request, XID: m.xid, Secs: m.secs(now), Requested: m.offer.Address.Addr(), Server: m.offer.Server}
}

func (m *Machine) renewQuery(now time.Time) Query {
	q := m.rebindQuery(now)
	q.To = m.lease.Server
	return q
}

func (m *Machine) rebindQuery(now time.Time) Query {
	return Query{Type: Request, XID: m.xid, Secs: m.secs(now), ClientIP: m.lease.Address.Addr()}
}
