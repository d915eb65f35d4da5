package memory

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// live is a guest with a balloon that has arrived.
func live(id string, lo, hi, static, at int64) Guest {
	return Guest{
		ID: id, StaticMax: static * mib, Min: lo * mib, Max: hi * mib, Overhead: 10 * mib,
		Actual: at * mib, Promise: at * mib, Asked: at * mib, Live: true,
	}
}

func show(changes []Change) string {
	text := ""
	for _, c := range changes {
		sign := "-"
		if c.Takes {
			sign = "+"
		}
		text += fmt.Sprintf("%s%s%d ", sign, c.ID, c.Target/mib)
	}
	return text
}

func TestDecide(t *testing.T) {
	arriving := Guest{ID: "n", StaticMax: 200 * mib, Min: 100 * mib, Max: 200 * mib, Overhead: 10 * mib, Arriving: true}
	booting := Guest{ID: "n", StaticMax: 200 * mib, Min: 100 * mib, Max: 150 * mib, Overhead: 10 * mib, Actual: 200 * mib, Promise: 200 * mib, Asked: 200 * mib}
	tests := []struct {
		name   string
		total  int64
		guests []Guest
		want   string
	}{
		{"enough for all", 1000, []Guest{live("a", 100, 300, 300, 100), live("b", 100, 200, 300, 200)}, "+a300 "},
		{"one byte is nobody's twice", 430, []Guest{live("a", 100, 300, 300, 100), live("b", 100, 300, 300, 100)}, "+a204 +b204 "},
		{"equal fractions, not equal bytes", 342, []Guest{live("a", 100, 200, 300, 100), live("b", 100, 300, 300, 100)}, "+a140 +b180 "},
		{"what frees comes first", 432, []Guest{live("a", 100, 300, 300, 300), live("b", 100, 300, 300, 100)}, "-a205 +b112 "},
		{"a starter is made room for", 432, []Guest{live("a", 100, 300, 300, 300), arriving}, "-a211 "},
		{"one without a balloon keeps static_max", 432, []Guest{live("a", 100, 300, 300, 300), booting}, "-a211 -n127 "},
		{"less than all minimums", 200, []Guest{live("a", 100, 300, 300, 300), live("b", 100, 300, 300, 100)}, "-a100 "},
		{"too much of a smaller range", 1000, []Guest{live("a", 100, 200, 300, 300)}, "-a200 "},
		{"nobody", 100, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(NewPolicy().Decide(time.Time{}, tt.total*mib, tt.guests)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestInactive: one that stands still keeps what it has and gets a step only, until
// it moves.
func TestInactive(t *testing.T) {
	p, now := NewPolicy(), time.Time{}
	a, b := live("a", 100, 300, 300, 300), live("b", 100, 300, 300, 100)
	a.Asked, a.Promise = 205*mib, 205*mib // asked to give, and has not
	for range 3 {
		if got := show(p.Decide(now, 432*mib, []Guest{a, b})); got != "+b112 " {
			t.Fatalf("after %s: %q", now.Sub(time.Time{}), got)
		}
		now = now.Add(2 * time.Second)
	}
	if p.Decide(now, 432*mib, []Guest{a, b}); !p.Stuck("a") || p.Stuck("b") {
		t.Error("after six seconds it still counts as on its way")
	}
	if room := 432*mib - p.Floor([]Guest{a, b}); room != (432-310-111)*mib {
		t.Errorf("room of %d MiB is reckoned with, of a guest that gives nothing", room/mib)
	}
	a.Actual = 250 * mib
	if p.Decide(now, 432*mib, []Guest{a, b}); p.Stuck("a") {
		t.Error("it moves and still counts as inactive")
	}
	b.Asked, b.Promise = 200*mib, 200*mib // asked to take, and does not
	p.Decide(now, 1000*mib, []Guest{b})
	now = now.Add(patience)
	if got := show(p.Decide(now, 1000*mib, []Guest{b})); got != "-b108 " {
		t.Errorf("one that takes nothing: %q", got)
	}
}

func TestAdmit(t *testing.T) {
	starter := func(id string, size int64) Guest {
		return Guest{ID: id, StaticMax: size * mib, Arriving: true}
	}
	a := live("a", 100, 300, 300, 300) // holds 310, can give 199
	tests := []struct {
		name          string
		total         int64
		guests        []Guest
		waiting       []string
		start, refuse []string
	}{
		{"fits", 500, []Guest{a, starter("x", 190)}, []string{"x"}, []string{"x"}, nil},
		{"waits", 500, []Guest{a, starter("x", 191)}, []string{"x"}, nil, nil},
		{"never", 500, []Guest{a, starter("x", 390)}, []string{"x"}, nil, []string{"x"}},
		{"first come", 500, []Guest{a, starter("y", 100), starter("x", 100)}, []string{"x", "y"}, []string{"x"}, nil},
		{"the last is too much", 500, []Guest{a, starter("x", 190), starter("y", 200)}, []string{"x", "y"}, []string{"x"}, []string{"y"}},
		{"no overtaking", 500, []Guest{a, starter("x", 200), starter("y", 10)}, []string{"x", "y"}, nil, nil},
		{"one that is gone", 500, []Guest{a, starter("y", 10)}, []string{"x", "y"}, []string{"y"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start, refuse := NewPolicy().admit(tt.total*mib, tt.guests, tt.waiting)
			if !slices.Equal(start, tt.start) || !slices.Equal(refuse, tt.refuse) {
				t.Errorf("start %v and refuse %v, want %v and %v", start, refuse, tt.start, tt.refuse)
			}
		})
	}
}

// machine is a host with guests that have a will of their own.
type machine struct {
	t       *rapid.T
	p       *Policy
	now     time.Time
	total   int64
	guests  []*fakeGuest
	waiting []string
	made    int
}

type fakeGuest struct {
	Guest
	speed int64         // bytes a second its balloon moves
	boots time.Duration // until its driver loads
	runs  bool
}

// mayUse is what the guest can have at this moment, whatever is written anywhere.
func (g *fakeGuest) mayUse() int64 {
	switch {
	case !g.runs:
		return 0
	case !g.Live:
		return g.Overhead + g.StaticMax
	}
	return g.Overhead + max(g.Actual, g.Asked)
}

func (m *machine) lines() []Guest {
	var all []Guest
	for _, g := range m.guests {
		all = append(all, g.Guest)
	}
	return all
}

func (m *machine) find(id string) *fakeGuest {
	for _, g := range m.guests {
		if g.ID == id {
			return g
		}
	}
	m.t.Fatalf("a change for %s, who is not there", id)
	return nil
}

// arrive adds a guest when the account says that there is room.
func (m *machine) arrive() {
	lo := rapid.Int64Range(16, 200).Draw(m.t, "min")
	hi := lo + rapid.Int64Range(0, 300).Draw(m.t, "range")
	static := hi + rapid.Int64Range(0, 100).Draw(m.t, "beyond")
	m.made++
	g := &fakeGuest{
		Guest: Guest{
			ID: fmt.Sprint("g", m.made), Min: lo * mib, Max: hi * mib, StaticMax: static * mib, Overhead: 7 * mib, Arriving: true,
		},
		speed: rapid.SampledFrom([]int64{0, mib, 16 * mib, 64 * mib, 1 << 40}).Draw(m.t, "speed"),
		boots: time.Duration(rapid.IntRange(0, 60).Draw(m.t, "boots")) * time.Second,
	}
	if g.hold() > m.total-m.p.Floor(m.lines()) {
		return
	}
	m.guests, m.waiting = append(m.guests, g), append(m.waiting, g.ID)
}

func (m *machine) leave() {
	if len(m.guests) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.guests)-1).Draw(m.t, "who")
	id := m.guests[i].ID
	m.guests = slices.Delete(m.guests, i, i+1)
	m.waiting = slices.DeleteFunc(m.waiting, func(w string) bool { return w == id })
}

// retune gives a guest another speed: it hangs, or comes back.
func (m *machine) retune() {
	if len(m.guests) > 0 {
		g := rapid.SampledFrom(m.guests).Draw(m.t, "who")
		g.speed = rapid.SampledFrom([]int64{0, mib, 16 * mib, 64 * mib}).Draw(m.t, "speed")
	}
}

// rerange gives a guest another dynamic range, if the account has room for it.
func (m *machine) rerange() {
	if len(m.guests) == 0 {
		return
	}
	g := rapid.SampledFrom(m.guests).Draw(m.t, "who")
	lo := rapid.Int64Range(16, g.StaticMax/mib).Draw(m.t, "min") * mib
	hi := rapid.Int64Range(lo/mib, g.StaticMax/mib).Draw(m.t, "max") * mib
	if others := m.p.Floor(m.lines()) - m.p.floor(g.Guest); g.Overhead+lo+tolerance <= m.total-others {
		g.Min, g.Max = lo, hi
	}
}

// pass lets time go by: balloons move, drivers load.
func (m *machine) pass(d time.Duration) {
	m.now = m.now.Add(d)
	for _, g := range m.guests {
		if !g.runs {
			continue
		}
		if g.boots -= d; g.boots <= 0 {
			g.Live = true
		}
		if !g.Live {
			continue
		}
		way := g.speed * int64(d/time.Millisecond) / 1000
		g.Actual += min(max(g.Asked-g.Actual, -way), way)
	}
}

// look is one round of what a Manager does.
func (m *machine) look() {
	for _, g := range m.guests {
		g.Promise = g.Asked // what was told before this observation is all there is
	}
	start, refuse := m.p.admit(m.total, m.lines(), m.waiting)
	for _, id := range start {
		g := m.find(id)
		g.runs, g.Arriving = true, false
		g.Actual, g.Promise, g.Asked = g.StaticMax, g.Max, g.Max
	}
	gone := slices.Concat(start, refuse)
	m.waiting = slices.DeleteFunc(m.waiting, func(w string) bool { return slices.Contains(gone, w) })
	m.guests = slices.DeleteFunc(m.guests, func(g *fakeGuest) bool { return slices.Contains(refuse, g.ID) })
	changes := m.p.Decide(m.now, m.total, m.lines())
	m.pass(500 * time.Millisecond) // by now what was observed is old
	for _, c := range changes {
		g := m.find(c.ID)
		m.checkChange(g, c)
		g.Asked, g.Promise = c.Target, max(g.Promise, c.Target)
		m.check()
	}
	m.check()
}

func (m *machine) checkChange(g *fakeGuest, c Change) {
	if c.Takes != (c.Target > g.Asked) {
		m.t.Fatalf("%s from %d to %d: takes is %t", g.ID, g.Asked, c.Target, c.Takes)
	}
	towards := c.Takes && g.Asked < g.Min // its range has moved, and it follows
	if c.Target > g.Max || c.Target < g.Min && !towards {
		m.t.Fatalf("%s: target %d is not within %d and %d", g.ID, c.Target, g.Min, g.Max)
	}
}

// check is the first invariant.
func (m *machine) check() {
	var use int64
	for _, g := range m.guests {
		use += g.mayUse()
	}
	if use > m.total {
		m.t.Fatalf("guests may use %d of %d: %+v", use, m.total, m.lines())
	}
}

func newMachine(t *rapid.T) *machine {
	total := rapid.Int64Range(64, 3000).Draw(t, "total") * mib
	return &machine{t: t, p: NewPolicy(), now: time.Unix(0, 0), total: total}
}

func (m *machine) live() {
	for range rapid.IntRange(1, 40).Draw(m.t, "rounds") {
		switch rapid.IntRange(0, 5).Draw(m.t, "event") {
		case 0, 1:
			m.arrive()
		case 2:
			m.leave()
		case 3:
			m.retune()
		case 4:
			m.rerange()
		}
		m.pass(time.Duration(rapid.IntRange(1, 10000).Draw(m.t, "ms")) * time.Millisecond)
		m.look()
	}
}

// TestNeverMoreThanThereIs: whatever comes, goes, hangs or is changed.
func TestNeverMoreThanThereIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { newMachine(t).live() })
}

// settle lets a machine be until nothing is changed any more.
func (m *machine) settle() {
	quiet := 0
	for round := 0; quiet < 30; round++ {
		if round > 5000 {
			m.t.Fatalf("no rest after %d rounds: %+v", round, m.lines())
		}
		before := m.lines()
		m.pass(time.Second)
		m.look()
		quiet++
		if !slices.Equal(before, m.lines()) {
			quiet = 0
		}
	}
}

// TestComesToRest: once nothing changes from outside, targets settle, and guests with
// a balloon that works have the same fraction of their ranges, within what rounding
// and tolerance take, and all that can be had.
func TestComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		m.live()
		m.settle()
		if len(m.waiting) > 0 {
			t.Fatalf("%v wait and nothing moves", m.waiting)
		}
		spare, span := m.p.divide(m.total, m.lines())
		for _, g := range m.guests {
			if g.speed == 0 || !g.Live {
				continue
			}
			share := g.Max
			switch {
			case spare < 0 && g.Actual < g.Min: // the stubborn hold it, and what is free has been given
				share = min(g.Min, g.Actual+max(m.total-Held(m.lines()), 0))
			case spare < 0:
				share = g.Min
			case spare < span:
				share = g.Min + scale(g.Max-g.Min, spare, span)
			}
			if abs(g.Actual-share) > int64(3+len(m.guests))*mib {
				t.Errorf("%s has %d, its share is %d", g.ID, g.Actual, share)
			}
		}
	})
}

// TestTheStubbornStarveNobody: beside guests that do not move, those that do get what
// they would get if the stubborn were smaller guests of a fixed size.
func TestTheStubbornStarveNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		m.live()
		for _, g := range m.guests {
			g.speed = rapid.SampledFrom([]int64{0, 64 * mib}).Draw(t, "speed")
		}
		m.settle()
		left := m.total
		for _, g := range m.guests {
			if g.speed == 0 || !g.Live {
				left -= g.Overhead + max(g.Actual, g.clamp(g.Actual+step), g.Asked)
			} else {
				left -= g.Overhead + g.Max
			}
		}
		for _, g := range m.guests {
			if left >= int64(len(m.guests))*2*mib && g.speed > 0 && g.Live && g.Actual < g.Max-2*mib {
				t.Errorf("%s has %d of %d, and %d are free", g.ID, g.Actual, g.Max, left)
			}
		}
	})
}

func FuzzScale(f *testing.F) {
	f.Add(int64(1)<<62, int64(1)<<61, int64(1)<<62)
	f.Fuzz(func(t *testing.T, a, num, den int64) {
		if a < 0 || num < 0 || den <= 0 || num > den {
			return
		}
		if got := scale(a, num, den); got < 0 || got > a {
			t.Errorf("%d*%d/%d = %d", a, num, den, got)
		}
	})
}
