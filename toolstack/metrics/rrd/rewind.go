package rrd

import (
	"math"
	"time"
)

// Rewind takes back what was said of the time after an instant: a clock was wrong, and
// goes on from there. What came before stays, except the rows whose place was taken
// meanwhile and those under way at that instant.
func (d *Database) Rewind(to time.Time) {
	now := float64(to.UnixMicro()) / 1e6
	if now >= d.last {
		return
	}
	now = max(now, 0)
	for _, s := range d.sources {
		s.sample, s.sum, s.seconds = math.NaN(), 0, 0
		for i, a := range shapes {
			s.rows[i].rewind(a, a.newest(d.last), a.newest(now))
			s.rows[i].unknown = int64(now) / step % a.steps
		}
	}
	d.last = now
}

// rewind forgets the rows after one, up to the newest, and begins the one under way.
func (r *row) rewind(a shape, newest, to int64) {
	for n := max(to+1, newest-int64(a.rows)+1); n <= newest; n++ {
		r.ring[n%int64(a.rows)] = float32(math.NaN())
	}
	r.begin(a)
}
