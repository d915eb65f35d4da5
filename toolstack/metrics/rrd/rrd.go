// Package rrd keeps figures over time in a space that does not grow: a round-robin
// database of ten archives in four resolutions, from 5 s for ten minutes to a day for a
// year, as clients of this API read them.
//
// Time goes in steps of 5 s, counted from the Unix epoch. A sample says what a source
// was since the sample before; what it says of a step is weighted by how much of the
// step it covers, and a step of which less than half is known is unknown. An archive's
// row gathers steps the same way: at the end of a row that is at least half known come
// its average, least and most. Unknown is NaN everywhere.
//
// The step function is Update: it takes the time with its samples and knows no clock.
// Time never goes back: a sample that is not later than the last is left out. A gap of
// any length costs at most one turn of each archive.
//
// Values are kept as float32 (24 bits of mantissa): 1 part in 16 million, for half the
// memory. A source has 2,082 of them, 8.1 KiB.
//
// A Database is used by one goroutine at a time.
package rrd

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Step is the time one value of the finest archive stands for.
const Step = 5 * time.Second

const step = int64(Step / time.Second)

// Function is how an archive makes one value of many.
type Function string

const (
	Average Function = "AVERAGE"
	Min     Function = "MIN"
	Max     Function = "MAX"
)

// gauge is what documents call sources whose samples are values, as all here are: what
// counters say is made rates before.
const gauge = "GAUGE"

// heartbeat is how long a source may be silent and still be known in between, in
// seconds.
const heartbeat = 300

// Source is one figure.
type Source struct {
	Name string
	// Low and High bound what is believed; beyond it a value is unknown.
	Low, High float64
}

// Check refuses what clients could not read.
func (s Source) Check() error {
	switch {
	case s.Name == "" || len(s.Name) > 255:
		return fmt.Errorf("a source has the name %.80q", s.Name)
	case !(s.Low <= s.High):
		return fmt.Errorf("source %s lies between %v and %v", s.Name, s.Low, s.High)
	}
	return nil
}

// shape is an archive's: how many steps a row and how many rows.
type shape struct {
	function Function
	steps    int64
	rows     int
}

// shapes are those clients of this API know: ten minutes, two hours, a week, a year.
// Of the finest one value is the average, the least and the most.
var shapes = []shape{
	{Average, 1, 120},
	{Average, 12, 120}, {Min, 12, 120}, {Max, 12, 120},
	{Average, 720, 168}, {Min, 720, 168}, {Max, 720, 168},
	{Average, 17280, 366}, {Min, 17280, 366}, {Max, 17280, 366},
}

// known is the share of a step or a row that must be known.
const known = 0.5

// Database holds sources that are sampled together.
type Database struct {
	last    float64 // seconds since the epoch of the last sample; 0 before the first
	sources []*source
}

// source is a Source with what is known of it.
type source struct {
	Source
	sample  float64 // the last one
	sum     float64 // of the step under way: value times seconds
	seconds float64 // of the step under way that are known
	rows    []*row  // of each archive
}

// row is the one of an archive under way, and the ring of those that ended.
type row struct {
	value   float64
	unknown int64 // steps
	ring    []float32
}

// ErrTime says that a sample is not later than the last.
var ErrTime = errors.New("time stands still")

// New returns a database without sources.
func New() *Database { return &Database{} }

// Last is when the last sample was taken; the zero time before the first.
func (d *Database) Last() time.Time {
	if d.last == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(d.last * 1e6)).UTC()
}

// Add adds a source, of which all is unknown so far. One of that name stays as it is.
func (d *Database) Add(s Source) error {
	if err := s.Check(); err != nil {
		return err
	}
	if slices.ContainsFunc(d.sources, func(o *source) bool { return o.Name == s.Name }) {
		return nil
	}
	d.sources = append(d.sources, newSource(s, d.last))
	return nil
}

func newSource(s Source, last float64) *source {
	n := &source{Source: s, sample: math.NaN()}
	for _, a := range shapes {
		r := &row{ring: make([]float32, a.rows)}
		for i := range r.ring {
			r.ring[i] = float32(math.NaN())
		}
		r.begin(a)
		r.unknown = int64(last) / step % a.steps // what was before it came
		n.rows = append(n.rows, r)
	}
	return n
}

// Remove forgets a source and all that was known of it.
func (d *Database) Remove(name string) {
	d.sources = slices.DeleteFunc(d.sources, func(s *source) bool { return s.Name == name })
}

// yearly is the first of the archives that go beyond a week.
const yearly = 7

// Prune forgets sources of which nothing was known for a week, except those somebody
// keeps.
func (d *Database) Prune(keep func(name string) bool) {
	d.sources = slices.DeleteFunc(d.sources, func(s *source) bool { return !keep(s.Name) && s.silent() })
}

func (s *source) silent() bool {
	for _, r := range s.rows[:yearly] {
		if slices.ContainsFunc(r.ring, func(v float32) bool { return v == v }) {
			return false
		}
	}
	return true
}

// Update takes the samples of an instant, by the sources' names; a source without one
// is unknown since the last. It answers ErrTime for an instant that is not later than
// the last, and changes nothing.
func (d *Database) Update(at time.Time, samples map[string]float64) error {
	now := float64(at.UnixMicro()) / 1e6
	if now <= d.last || now < float64(step) {
		return ErrTime
	}
	before := d.last
	d.last = now
	if before == 0 {
		for _, s := range d.sources {
			s.sample = sampleOf(samples, s.Name)
			for i, a := range shapes {
				s.rows[i].unknown = int64(now) / step % a.steps
			}
		}
		return nil
	}
	for _, s := range d.sources {
		s.fill(before, now, s.since(sampleOf(samples, s.Name), now-before))
	}
	return nil
}

func sampleOf(samples map[string]float64, name string) float64 {
	if v, ok := samples[name]; ok {
		return v
	}
	return math.NaN()
}

// since makes of a sample what the source was since the last.
func (s *source) since(sample, seconds float64) float64 {
	s.sample = sample
	if sample < s.Low || sample > s.High || seconds > heartbeat || math.IsInf(sample, 0) {
		return math.NaN()
	}
	return sample
}

// fill adds a value to the steps from before to now, and ends those that are full.
func (s *source) fill(before, now, v float64) {
	first, end := int64(before)/step, int64(now)/step
	for n := first; n <= end; n++ {
		if math.IsNaN(v) && n > first && n < end { // whole steps of which nothing is known
			s.gap(n, end)
			n = end - 1
			continue
		}
		from, to := max(before, float64(n*step)), min(now, float64((n+1)*step))
		if !math.IsNaN(v) {
			s.sum += v * (to - from)
			s.seconds += to - from
		}
		if n < end {
			s.endStep(n)
		}
	}
}

// endStep hands a full step to the archives' rows.
func (s *source) endStep(n int64) {
	v := math.NaN()
	if s.seconds >= known*float64(step) {
		v = s.sum / s.seconds
	}
	s.sum, s.seconds = 0, 0
	for i, a := range shapes {
		s.rows[i].add(a, v)
		if (n+1)%a.steps == 0 {
			s.rows[i].end(a, (n+1)/a.steps)
		}
	}
}

// gap is the steps from n up to end, all unknown.
func (s *source) gap(n, end int64) {
	for i, a := range shapes {
		r := s.rows[i]
		for at := max(n, end-a.steps*int64(a.rows+1)); at < end; {
			next := min(end, (at/a.steps+1)*a.steps)
			r.unknown += next - at
			if next%a.steps == 0 {
				r.end(a, next/a.steps)
			}
			at = next
		}
	}
}

// begin empties the row under way.
func (r *row) begin(a shape) {
	r.unknown, r.value = 0, 0
	switch a.function {
	case Min:
		r.value = math.Inf(1)
	case Max:
		r.value = math.Inf(-1)
	}
}

// add takes a step into the row under way.
func (r *row) add(a shape, v float64) {
	switch {
	case math.IsNaN(v):
		r.unknown++
	case a.function == Average:
		r.value += v
	case a.function == Min:
		r.value = min(r.value, v)
	case a.function == Max:
		r.value = max(r.value, v)
	}
}

// end ends the row under way. number counts rows since the epoch and is its place in
// the ring, so that all sources agree on it.
func (r *row) end(a shape, number int64) {
	v := math.NaN()
	if have := a.steps - r.unknown; have > 0 && float64(have) >= known*float64(a.steps) {
		v = r.value
		if a.function == Average {
			v /= float64(have)
		}
	}
	r.ring[number%int64(len(r.ring))] = float32(v)
	r.begin(a)
}
