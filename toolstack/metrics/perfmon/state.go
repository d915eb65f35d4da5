package perfmon

import (
	"math"
	"time"
)

// window is over how long values are averaged.
const window = time.Minute

// gap is how long nothing may be heard for a minute to count as one.
const gap = 3 * window

// State is what is remembered of one rule's figures. The zero value is that of a rule
// that was just made.
type State struct {
	begun time.Time // of the minute under way
	sum   float64
	n     int
	held  time.Duration // how long values were bad without a break
	last  time.Time     // alarm
}

// Alarmed tells the state of an alarm that was raised before it was made.
func (s *State) Alarmed(at time.Time) { s.last = at }

// Step takes a value. At the end of a minute that is bad for long enough it answers the
// minute's value and that there is an alarm; Alarmed must then be called when somebody was
// told, else the next bad minute is an alarm again.
func (s *State) Step(r Rule, at time.Time, value float64) (minute float64, alarm bool) {
	if s.begun.IsZero() || at.Before(s.begun) || at.Sub(s.begun) > gap {
		s.restart(at)
		s.held = 0
	}
	if !math.IsNaN(value) {
		s.sum, s.n = s.sum+value, s.n+1
	}
	length := at.Sub(s.begun)
	if length < window {
		return 0, false
	}
	mean, known := s.sum/float64(s.n), s.n > 0
	s.restart(at)
	switch {
	case !known:
		return 0, false
	case !r.bad(mean):
		s.held = 0
		return mean, false
	}
	s.held += length
	quiet := !s.last.IsZero() && at.Sub(s.last) < r.Inhibit && !at.Before(s.last)
	return mean, s.held >= r.Period && !quiet
}

func (s *State) restart(at time.Time) { s.begun, s.sum, s.n = at, 0, 0 }
