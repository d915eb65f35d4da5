package session

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// What a wrong password costs. The first few answers are merely late, since
// people mistype; then they come later and later.
const (
	failureDelay = 5 * time.Second
	maxDelay     = 30 * time.Second
	patience     = 3 // wrong passwords before the delay grows
	// memory is how long a wrong password is remembered after the last one.
	memory = 15 * time.Minute
)

// Bounds on logins that wait, for an answer or for their turn.
const (
	maxWaitingPair   = 3
	maxWaitingHost   = 8
	maxWaiting       = 256
	maxRememberedKey = 4096
)

// refusalsTold is how often the log hears of refusals.
const refusalsTold = 10 * time.Second

// errBusy refuses a login before its password is looked at.
var errBusy = errors.New("too many logins wait")

// door lets logins in to have their password checked. It counts wrong passwords
// for each pair of user and client address. An answer to a wrong one is late, and
// the pair's next attempt waits until that delay is over, at most maxDelay, so guessing
// in parallel gains little. Nobody else waits: a wrong password from one place
// never makes root wait elsewhere, and right passwords are answered at once.
//
// Attempts hold a connection while they wait, so they are counted too: of one
// pair, of one address, and of all addresses that have sent wrong passwords
// before. What exceeds a bound is refused unread. Clients on this host are only
// delayed, never refused, so whoever sits at it can always log in. What is
// remembered is bounded, the oldest going first.
type door struct {
	now func() time.Time

	mu      sync.Mutex
	refused int       // since told
	told    time.Time // when the log last heard of refusals
	waiting int
	pairs   map[pair]*record
	hosts   map[string]*record
}

type pair struct{ user, host string }

// record is what is remembered of a pair or a host.
type record struct {
	waiting  int
	failures int
	last     time.Time // the last failure
	turn     time.Time // when the next attempt may be looked at
}

func newDoor(now func() time.Time) *door {
	return &door{now: now, pairs: map[pair]*record{}, hosts: map[string]*record{}}
}

// attempt is a login on its way through the door.
type attempt struct {
	d    *door
	pair pair
	wait time.Duration // until the attempt's turn
}

// hostOf is what stands for a client: its address without the port; for IPv6 the
// network, since a client has all addresses of one. It is "" on this host.
func hostOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() {
		return ""
	}
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

// oneSpelling is the same for names that a directory may take for one user:
// whoever guesses a password shall not start afresh by writing "Bob" for "bob ".
func oneSpelling(user string) string {
	return strings.Join(strings.Fields(strings.ToLower(user)), " ")
}

// enter lets an attempt in, or refuses it. Whoever is let in must leave.
func (d *door) enter(user, remote string) (*attempt, error) {
	a := &attempt{d: d, pair: pair{oneSpelling(user), hostOf(remote)}}
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	p, h := remembered(d.pairs, a.pair, now), remembered(d.hosts, a.pair.host, now)
	if a.pair.host != "" {
		suspect := h.failures > 0 || h.waiting > 0
		full := d.waiting >= 2*maxWaiting || suspect && d.waiting >= maxWaiting
		if p.waiting >= maxWaitingPair || h.waiting >= maxWaitingHost || full {
			return nil, errBusy
		}
	}
	p.waiting, h.waiting, d.waiting = p.waiting+1, h.waiting+1, d.waiting+1
	if p.failures > 0 {
		a.wait = min(max(p.turn.Sub(now), 0), maxDelay)
		p.turn = now.Add(a.wait + delayAfter(p.failures))
	}
	return a, nil
}

// refusals counts one, and answers how many there were when it is time for the
// log to hear of them: whoever floods the door must not flood the log.
func (d *door) refusals() (n int, tell bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused++
	now := d.now()
	if now.Sub(d.told) < refusalsTold {
		return 0, false
	}
	n, d.refused, d.told = d.refused, 0, now
	return n, true
}

// failed counts a wrong password; it answers how late the answer has to be and
// how many there were.
func (a *attempt) failed() (time.Duration, int) {
	a.d.mu.Lock()
	defer a.d.mu.Unlock()
	now := a.d.now()
	p, h := a.d.pairs[a.pair], a.d.hosts[a.pair.host]
	p.failures, p.last = p.failures+1, now
	h.failures, h.last = h.failures+1, now
	delay := delayAfter(p.failures)
	if next := now.Add(delay); p.turn.Before(next) {
		p.turn = next
	}
	return delay, p.failures
}

// succeeded forgives the pair, not its host: somebody else there may be
// guessing.
func (a *attempt) succeeded() {
	a.d.mu.Lock()
	defer a.d.mu.Unlock()
	p := a.d.pairs[a.pair]
	p.failures, p.turn = 0, time.Time{}
}

// leave ends an attempt.
func (a *attempt) leave() {
	a.d.mu.Lock()
	defer a.d.mu.Unlock()
	a.d.waiting--
	a.d.pairs[a.pair].waiting--
	a.d.hosts[a.pair.host].waiting--
}

func delayAfter(failures int) time.Duration {
	delay := failureDelay
	for n := patience; n < failures && delay < maxDelay; n++ {
		delay *= 2
	}
	return min(delay, maxDelay)
}

// remembered finds or makes a record. One whose failures are long past starts
// afresh; when there are too many, the one that failed longest ago and has
// nobody waiting makes room.
func remembered[K comparable](all map[K]*record, key K, now time.Time) *record {
	r := all[key]
	if r != nil {
		if r.failures > 0 && now.Sub(r.last) > memory {
			r.failures, r.turn = 0, time.Time{}
		}
		return r
	}
	if len(all) >= maxRememberedKey {
		makeRoom(all)
	}
	r = &record{}
	all[key] = r
	return r
}

func makeRoom[K comparable](all map[K]*record) {
	var oldest K
	var found *record
	for k, r := range all {
		if r.waiting == 0 && (found == nil || r.last.Before(found.last)) {
			oldest, found = k, r
		}
	}
	if found != nil {
		delete(all, oldest)
	}
}
