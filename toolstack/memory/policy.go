package memory

import (
	"math/bits"
	"slices"
	"time"
)

const (
	// patience is how long a guest may stand still on its way to a target.
	patience = 5 * time.Second
	// tolerance is how near to its target a guest has arrived: balloons work in
	// pages, some drivers in larger pieces.
	tolerance = mib
	// movement is what counts as one.
	movement = 256 * kib
	// A target that comes to where an inactive guest stands proves nothing, so that
	// counts as arrival only after a while, which grows: otherwise a guest that hangs
	// would be counted on, and not, in turns, and with it the others' shares change.
	leastPenalty, mostPenalty = 10 * time.Second, time.Hour
	// step is what an inactive guest may grow by, to show that it can.
	step = 8 * mib
)

// Guest is one line of a host's account.
type Guest struct {
	ID                  string
	StaticMax, Overhead int64
	Min, Max            int64 // the dynamic range
	Actual              int64 // what it has; StaticMax where that is not known
	Promise             int64 // what it may grow to, as long as nothing else was observed
	Asked               int64 // what its balloon was told last; at most Promise
	Live                bool  // its balloon answers
	Arriving            bool  // about to start: it may use StaticMax
}

// hold is what no one else may have.
func (g Guest) hold() int64 {
	if g.Arriving {
		return g.Overhead + g.StaticMax
	}
	return g.Overhead + max(g.Actual, g.Promise)
}

// elastic guests share by fraction; others keep what they hold.
func (g Guest) elastic() bool { return g.Live && !g.Arriving }

func (g Guest) arrived() bool { return abs(g.Actual-g.Asked) <= tolerance }

func (g Guest) clamp(target int64) int64 { return min(max(target, g.Min), g.Max) }

func abs(n int64) int64 { return max(n, -n) }

// Change is a new target for a guest's balloon.
type Change struct {
	ID     string
	Target int64
	// Takes marks a raise: it must be entered in the ledger before it is told.
	Takes bool
}

// Policy remembers how guests of one host follow their targets.
type Policy struct{ seen map[string]*motion }

// motion is what was seen of one guest.
type motion struct {
	actual, asked int64
	since         time.Time // it last moved, arrived or was asked for something else
	stuck         bool
	trust         time.Time     // from when on arriving without moving is enough to be back
	penalty       time.Duration // how long that was put off; doubles each time
}

// NewPolicy returns a policy that has seen nothing.
func NewPolicy() *Policy { return &Policy{seen: map[string]*motion{}} }

// Decide answers observations with changes: first those that free, then those that
// take, which need only bytes that are free now. total is what all guests may have.
func (p *Policy) Decide(now time.Time, total int64, guests []Guest) []Change {
	p.observe(now, guests)
	spare, span := p.divide(total, guests)
	var frees, takes []Change
	var wants []raise
	for _, g := range guests {
		if g.Arriving {
			continue
		}
		switch want := p.want(g, spare, span); {
		case want < g.Asked:
			frees = append(frees, Change{ID: g.ID, Target: want})
		case want > g.Asked:
			wants = append(wants, raise{g, want})
		}
	}
	takes = grant(wants, total-Held(guests))
	return append(frees, takes...)
}

// Held is what guests hold together.
func Held(guests []Guest) (sum int64) {
	for _, g := range guests {
		sum += g.hold()
	}
	return sum
}

// Floor is what guests hold together after each has given what it can.
func (p *Policy) Floor(guests []Guest) (sum int64) {
	for _, g := range guests {
		sum += p.floor(g)
	}
	return sum
}

func (p *Policy) floor(g Guest) int64 {
	if !g.elastic() || p.Stuck(g.ID) {
		return g.hold()
	}
	return g.Overhead + min(g.StaticMax, g.Min+tolerance)
}

// Stuck reports whether a guest is inactive.
func (p *Policy) Stuck(id string) bool {
	m := p.seen[id]
	return m != nil && m.stuck
}

// Restless reports whether a guest is on its way to a target.
func (p *Policy) Restless(guests []Guest) bool {
	for _, g := range guests {
		if g.elastic() && !g.arrived() && !p.Stuck(g.ID) {
			return true
		}
	}
	return false
}

// observe notes who moves, and forgets who is gone.
func (p *Policy) observe(now time.Time, guests []Guest) {
	seen := make(map[string]*motion, len(guests))
	for _, g := range guests {
		if !g.elastic() {
			continue
		}
		m := p.seen[g.ID]
		if m == nil {
			m = &motion{actual: g.Actual, asked: g.Asked, since: now}
		}
		m.observe(now, g)
		seen[g.ID] = m
	}
	p.seen = seen
}

func (m *motion) observe(now time.Time, g Guest) {
	switch {
	case abs(g.Actual-m.actual) >= movement:
		m.actual, m.since, m.stuck, m.penalty = g.Actual, now, false, 0
	case g.arrived():
		m.since, m.stuck = now, m.stuck && now.Before(m.trust)
	case m.stuck:
	case m.asked != g.Asked:
		m.since = now
	case now.Sub(m.since) >= patience:
		m.stuck = true
		m.penalty = min(max(2*m.penalty, leastPenalty), mostPenalty)
		m.trust = now.Add(m.penalty)
	}
	m.asked = g.Asked
}

// divide returns what the elastic guests have to share beyond their minimums, less
// than nothing in need, and what their ranges add up to.
func (p *Policy) divide(total int64, guests []Guest) (spare, span int64) {
	spare = total
	for _, g := range guests {
		switch {
		case !g.elastic():
			spare -= g.hold()
		case p.Stuck(g.ID):
			spare -= g.Overhead + max(g.Actual, g.clamp(g.Actual+step))
		default:
			spare -= g.Overhead + g.Min + tolerance
			span += g.Max - g.Min
		}
	}
	return min(spare, span), span
}

// admit says which of the guests that wait to start may do so now: those that fit
// beside all others, the longest waiting first. It also says which can not, however
// much the others give: of those too many, the last come.
func (p *Policy) admit(total int64, guests []Guest, waiting []string) (start, refuse []string) {
	queue := make(map[string]Guest, len(waiting))
	for _, g := range guests {
		if slices.Contains(waiting, g.ID) {
			queue[g.ID] = g
		}
	}
	free, most := total-Held(guests), total-p.Floor(guests)
	for i := len(waiting) - 1; i >= 0 && most < 0; i-- {
		if g, ok := queue[waiting[i]]; ok {
			most, free = most+g.hold(), free+g.hold()
			refuse = append(refuse, g.ID)
			delete(queue, g.ID)
		}
	}
	for _, g := range queue {
		free += g.hold()
	}
	for _, id := range waiting {
		g, ok := queue[id]
		if free -= g.hold(); ok && free < 0 {
			break
		}
		if ok {
			start = append(start, id)
		}
	}
	return start, refuse
}

// want is the target a guest should have: its share, in whole MiB beyond its minimum.
func (p *Policy) want(g Guest, spare, span int64) int64 {
	share := g.Max
	if spare < 0 {
		share = g.Min
	} else if spare < span {
		extra := scale(g.Max-g.Min, spare, span)
		share = g.Min + extra - extra%mib
	}
	if p.Stuck(g.ID) {
		share = min(share, g.Actual+step)
	}
	return g.clamp(share)
}

// scale is a*num/den, rounded down, without overflow. It needs 0 ≤ num ≤ den, 0 < den.
func scale(a, num, den int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(num))
	quotient, _ := bits.Div64(hi, lo, uint64(den))
	return int64(quotient)
}

// raise is a guest that should have more.
type raise struct {
	Guest
	want int64
}

// has is what the guest holds of its memory already: up to there a raise costs nothing.
func (r raise) has() int64 { return max(r.Actual, r.Promise) }

func (r raise) cost() int64 { return max(r.want-r.has(), 0) }

// grant raises targets by free bytes only, by equal parts of what each still needs.
func grant(wants []raise, free int64) []Change {
	var need int64
	for _, r := range wants {
		need += r.cost()
	}
	free = max(free, 0)
	var changes []Change
	for _, r := range wants {
		target := r.want
		if need > free {
			given := scale(r.cost(), free, need)
			target = min(r.want, r.has()+given-given%mib)
		}
		if target > r.Asked {
			changes = append(changes, Change{ID: r.ID, Target: target, Takes: true})
		}
	}
	return changes
}
