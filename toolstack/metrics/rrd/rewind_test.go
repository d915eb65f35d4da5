package rrd

import (
	"math"
	"testing"
	"time"
)

// TestRewind: a clock that was two hours ahead costs what was said in those, and the
// rows they took the place of; the rest stays where it was.
func TestRewind(t *testing.T) {
	d := database(t, free("g"))
	at := begin
	feed := func(n int) {
		for range n {
			at = at.Add(time.Minute)
			must(t, d.Update(at, map[string]float64{"g": float64(at.Sub(begin) / time.Minute)}))
		}
	}
	feed(5 * 24 * 60)
	right := at.Add(3 * time.Second)
	before := d.Clone()
	at = at.Add(30 * time.Minute)
	feed(30)
	d.Rewind(right.Add(2 * time.Hour)) // later than the last: nothing
	if !d.Last().Equal(at) {
		t.Fatal(d.Last())
	}
	d.Rewind(right)
	if !d.Last().Equal(right) {
		t.Errorf("the last is %v, not %v", d.Last(), right)
	}
	for _, interval := range []time.Duration{0, time.Minute, time.Hour, 24 * time.Hour} {
		was, is := before.Fetch("", begin, interval), d.Fetch("", begin, interval)
		if !was.End.Equal(is.End) || len(was.Rows) != len(is.Rows) {
			t.Fatalf("%v: rows until %v, were until %v", interval, is.End, was.End)
		}
		kept := 0
		for i := range was.Rows {
			if same(was.Rows[i][0], is.Rows[i][0]) {
				kept++
			} else if !math.IsNaN(is.Rows[i][0]) {
				t.Fatalf("%v: row %d is %v, was %v", interval, i, is.Rows[i], was.Rows[i])
			}
		}
		if interval == time.Hour && kept < 119 || interval == time.Minute && kept < 60 {
			t.Errorf("%v: %d of %d rows are kept", interval, kept, len(was.Rows))
		}
	}
	at = right
	feed(90)
	rows := d.Fetch(Average, right, time.Hour).Rows
	if len(rows) != 1 || math.IsNaN(rows[0][0]) {
		t.Errorf("it goes on with %v", rows)
	}
	d.Rewind(time.Time{})
	if len(d.Fetch(Average, begin, 0).Rows) != 0 {
		t.Error("before all time there are rows")
	}
	must(t, d.Update(at, map[string]float64{"g": 1}))
}
