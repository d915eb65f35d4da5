package metrics

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/metrics/rrd"
)

// Kind is what an owner of figures is.
type Kind string

// Kinds of owners, as legends and files spell them.
const (
	HostKind Kind = "host"
	VMKind   Kind = "vm"
	SRKind   Kind = "sr"
)

// Owner is what figures are of.
type Owner struct {
	Kind Kind
	UUID string
}

// String is how columns begin.
func (o Owner) String() string { return string(o.Kind) + ":" + o.UUID }

// class is that of an owner's row; nil of what is no owner.
func (o Owner) class() *api.ClassInfo { return api.FindClass(string(o.Kind)) }

// series is a database with what clients want of it.
type series struct {
	db *rrd.Database
	// chosen says of sources whether they are recorded, where a client has said so.
	chosen map[string]bool
	now    []figure // what the last look has found
	saved  time.Time
	dirty  bool
}

// records reports whether a source is recorded.
func (s *series) records(f figure) bool {
	if is, said := s.chosen[f.name]; said {
		return is
	}
	return !f.kind.optional
}

func (s *series) choices() map[string]bool { return maps.Clone(s.chosen) }

// leap is how far behind the last sample the clock may be before it is the clock that is
// believed, and not the figures: a host that once had a wrong date would else be silent
// until that date has come.
const leap = time.Minute

// update takes a look's figures in. It reports whether the clock has gone back so far that
// what was said of the time since had to be forgotten.
func (s *series) update(now time.Time, figures []figure) (back bool) {
	s.now, s.dirty = figures, true
	samples := make(map[string]float64, len(figures))
	if last := s.db.Last(); !last.IsZero() && last.Sub(now) > leap {
		s.db.Rewind(now.Add(-rrd.Step))
		back = true
	}
	for _, f := range figures {
		if !s.records(f) {
			continue
		}
		if s.db.Add(f.source()) == nil {
			samples[f.name] = f.value
		}
	}
	if err := s.db.Update(now, samples); err != nil && !errors.Is(err, rrd.ErrTime) {
		panic(err) // Update knows no other error
	}
	return back
}

// record takes figures of an owner in. One that is not in memory is read from disk.
func (m *Manager) record(o Owner, now time.Time, figures []figure) {
	if len(figures) == 0 {
		return
	}
	m.mu.Lock()
	s := m.series[o]
	m.mu.Unlock()
	if s == nil {
		s = m.store.load(o)
		s.saved = now
	}
	m.mu.Lock()
	m.series[o] = s
	back := s.update(now, figures)
	m.mu.Unlock()
	if back {
		m.cfg.Log.Warn("metrics-rewound", "of", o, "to", now)
	}
}

// owners are those in memory, in order.
func (m *Manager) owners() []Owner {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Keys(m.series), func(a, b Owner) int { return strings.Compare(a.String(), b.String()) })
}

// look calls f with what is kept of an owner, from memory or from disk. What f does to
// one from disk is lost. It is errGone where there is nothing.
func (m *Manager) look(o Owner, f func(*series)) error {
	m.mu.Lock()
	if s := m.series[o]; s != nil {
		defer m.mu.Unlock()
		f(s)
		return nil
	}
	m.mu.Unlock()
	s := m.store.load(o)
	if s.db.Last().IsZero() {
		return errGone
	}
	f(s)
	return nil
}

// now is what the last look has found of an owner. It is replaced by the next look, and
// never changed.
func (m *Manager) now(o Owner) []figure {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.series[o]; s != nil {
		return s.now
	}
	return nil
}
