package rrd

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var begin = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC) // midnight: every archive's rows end here

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func database(t testing.TB, sources ...Source) *Database {
	t.Helper()
	d := New()
	for _, s := range sources {
		must(t, d.Add(s))
	}
	return d
}

// free is a source without bounds.
func free(name string) Source { return Source{name, math.Inf(-1), math.Inf(1)} }

// same compares with NaN for unknown.
func same(a, b float64) bool {
	return math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= 1e-5*max(1, math.Abs(b))
}

func column(s table, n int) (out []float64) {
	for _, r := range s.Rows {
		out = append(out, r[n])
	}
	return out
}

func equal(t *testing.T, what string, got []float64, want ...float64) {
	t.Helper()
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		ok = ok && same(got[i], want[i])
	}
	if !ok {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

var nan = math.NaN()

func TestBounds(t *testing.T) {
	d := database(t, free("g"), Source{"b", 0, 1})
	for i, s := range []map[string]float64{
		{"g": 1, "b": 0.5}, {"g": 2, "b": 0.5}, {"g": -3, "b": 1.5}, {"g": math.Inf(1), "b": -0.5}, {"b": 0}, {"g": 7, "b": 1},
	} {
		must(t, d.Update(begin.Add(time.Duration(i)*Step), s))
	}
	s := d.Fetch(Average, begin, 0)
	equal(t, "free", column(s, 0), 2, -3, nan, nan, 7)
	equal(t, "bounded", column(s, 1), 0.5, nan, nan, 0, 1)
	if !s.Start.Equal(begin.Add(Step)) || !s.End.Equal(begin.Add(5*Step)) || s.Step != Step {
		t.Errorf("%+v", s)
	}
}

// TestUneven: samples that do not come on the step count by how long they held.
func TestUneven(t *testing.T) {
	d := database(t, free("g"))
	at := func(seconds float64, v float64) {
		must(t, d.Update(begin.Add(time.Duration(seconds*float64(time.Second))), map[string]float64{"g": v}))
	}
	at(0, 0)
	at(4, 10)   // 10 for 4 s
	at(7, 20)   // 20 for 1 s of this step, 2 of the next
	at(15.5, 4) // 4 for 3 s, and the whole step after
	at(20, nan) // most of this one is unknown
	equal(t, "uneven", column(d.Fetch(Average, begin, 0), 0), 12, (20*2+4*3)/5.0, 4, nan)
}

func TestArchives(t *testing.T) {
	d := database(t, free("g"))
	for i := range 3*12*60 + 1 { // three hours
		must(t, d.Update(begin.Add(time.Duration(i)*Step), map[string]float64{"g": float64(i)}))
	}
	minutes := d.Fetch("", begin.Add(178*time.Minute), time.Minute)
	if len(minutes.Rows) != 2 || minutes.Step != time.Minute {
		t.Fatalf("%+v", minutes)
	}
	last := float64(3 * 12 * 60)
	equal(t, "the last minute", minutes.Rows[1], last-5.5, last-11, last)
	hours := d.Fetch(Max, begin, time.Hour)
	equal(t, "hours", column(hours, 0), 720, 1440, 2160)
	if s := d.Fetch(Average, begin.Add(172*time.Minute), 0); s.Step != Step || len(s.Rows) != 96 {
		t.Errorf("the finest that reaches back has %v, %d rows", s.Step, len(s.Rows))
	}
	if s := d.Fetch(Average, begin.Add(90*time.Minute), 0); s.Step != time.Minute || len(s.Rows) != 90 {
		t.Errorf("the finest that reaches back has %v, %d rows", s.Step, len(s.Rows))
	}
	if s := d.Fetch(Average, begin.AddDate(-3, 0, 0), 0); s.Step != 24*time.Hour || len(s.Rows) != 366 {
		t.Errorf("the coarsest has %v, %d rows", s.Step, len(s.Rows))
	}
	if s := d.Fetch("LAST", begin, 0); len(s.Rows) != 0 {
		t.Error("an unknown function has rows")
	}
	if s := d.Fetch(Average, begin.AddDate(1, 0, 0), 0); len(s.Rows) != 0 {
		t.Error("the future has rows")
	}
}

// TestGap: what a host was while it was off is unknown; a row that was half known
// before stays.
func TestGap(t *testing.T) {
	d := database(t, free("g"))
	for i := range 7 * 60 { // 35 minutes
		must(t, d.Update(begin.Add(time.Duration(i)*Step), map[string]float64{"g": 1}))
	}
	back := begin.Add(26*time.Hour + 2*time.Second)
	must(t, d.Update(back, map[string]float64{"g": 1}))
	for i := range 13 {
		must(t, d.Update(back.Add(time.Duration(i+1)*Step), map[string]float64{"g": 3}))
	}
	hours := column(d.Fetch(Average, begin, time.Hour), 0)
	if len(hours) != 26 || hours[0] != 1 || !math.IsNaN(hours[1]) || !math.IsNaN(hours[25]) {
		t.Errorf("%v", hours)
	}
	minutes := column(d.Fetch(Average, back.Add(-2*time.Minute), time.Minute), 0)
	equal(t, "minutes", minutes, nan, nan, 3)
}

// TestAges: a gap of thirty years costs no more than one of a year.
func TestAges(t *testing.T) {
	d := database(t, free("g"))
	must(t, d.Update(begin.AddDate(-30, 0, 0), map[string]float64{"g": 1}))
	must(t, d.Update(begin, map[string]float64{"g": 1}))
	for _, v := range column(d.Fetch(Average, begin.AddDate(-2, 0, 0), 24*time.Hour), 0) {
		if !math.IsNaN(v) {
			t.Fatalf("a day is %v", v)
		}
	}
}

func TestTimeStandsStill(t *testing.T) {
	d := database(t, free("g"))
	must(t, d.Update(begin, map[string]float64{"g": 1}))
	for _, at := range []time.Time{begin, begin.Add(-time.Hour), {}, time.Unix(0, 0)} {
		if err := d.Update(at, map[string]float64{"g": 9}); !errors.Is(err, ErrTime) {
			t.Errorf("%v: %v", at, err)
		}
	}
	if !d.Last().Equal(begin) {
		t.Error(d.Last())
	}
}

func TestSources(t *testing.T) {
	d := database(t, free("a"))
	must(t, d.Update(begin, map[string]float64{"a": 1}))
	must(t, d.Update(begin.Add(40*time.Second), map[string]float64{"a": 1}))
	must(t, d.Add(free("b")))
	must(t, d.Add(free("a"))) // stays
	for i := range 4 {
		must(t, d.Update(begin.Add(time.Minute+time.Duration(i-3)*Step), map[string]float64{"a": 1, "b": 2}))
	}
	minute := d.Fetch(Average, begin, time.Minute)
	equal(t, "one that came late", minute.Rows[0], 1, nan)
	d.Remove("a")
	if all := d.names(); len(all) != 1 || all[0] != "b" {
		t.Errorf("%v", all)
	}
	equal(t, "the one that stays", column(d.Fetch(Average, begin.Add(50*time.Second), 0), 0), 2, 2)
	for _, s := range []Source{{}, {strings.Repeat("x", 256), 0, 1}, {"x", 1, 0}, {"x", nan, 1}} {
		if d.Add(s) == nil {
			t.Errorf("%+v is taken", s)
		}
	}
}

// TestPrune: a source that is silent for a week goes; one that was just added stays where
// somebody keeps it.
func TestPrune(t *testing.T) {
	d := database(t, free("old"), free("here"))
	at := begin
	keep := func(name string) bool { return name == "new" }
	names := func() string {
		d.Prune(keep)
		return strings.Join(d.names(), " ")
	}
	for i := range 200 {
		v := map[string]float64{"here": 1}
		if i < 120 {
			v["old"] = 1
		}
		at = at.Add(time.Minute)
		must(t, d.Update(at, v))
	}
	must(t, d.Add(free("new")))
	if got := names(); got != "old here new" {
		t.Errorf("there are %s", got)
	}
	for range 7 * 24 * 60 / 4 {
		at = at.Add(4 * time.Minute)
		must(t, d.Update(at, map[string]float64{"here": 1}))
	}
	if got := names(); got != "here new" {
		t.Errorf("after a week there are %s", got)
	}
}

// TestAgainstSimple compares with sums done the slow way, at random times.
func TestAgainstSimple(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	d := database(t, free("g"))
	sum, have := map[int64]float64{}, map[int64]float64{}
	now := begin
	must(t, d.Update(now, nil))
	for range 2000 {
		next, v := now.Add(time.Duration(r.IntN(12000))*time.Millisecond+time.Millisecond), r.Float64()
		if r.IntN(8) == 0 {
			v = nan
		}
		for at := now; at.Before(next) && !math.IsNaN(v); at = at.Add(time.Millisecond) {
			n := at.Unix() / step
			sum[n] += v / 1000
			have[n] += 0.001
		}
		must(t, d.Update(next, map[string]float64{"g": v}))
		now = next
	}
	s := d.Fetch(Average, now.Add(-9*time.Minute), 0)
	for i, row := range s.Rows {
		n := s.Start.Unix()/step + int64(i) - 1
		want := nan
		if have[n] >= 2.4999 {
			want = sum[n] / have[n]
		}
		if !same(row[0], want) {
			t.Errorf("step %d: %v, want %v", n, row[0], want)
		}
	}
}
