// Package engine decides what PID 1 does: it is a step function from events to
// actions, in a time it is told. It starts nothing, reads nothing and waits for
// nothing, so a whole boot, crash or shutdown is a transcript in testdata.
//
// Invariants, checked by a random test over all events:
//   - A service has at most one start under way or one main process.
//   - A service starts only while everything it needs is ready, and never after
//     a shutdown was asked for.
//   - What a service needs is stopped only after it has ended.
//   - A service that ended unasked is started again after 0.2 s doubled for each
//     failure up to 30 s; a minute of readiness forgives.
//   - Five failures of a critical service within a minute, or five starts in a
//     row without readiness, ask for one reboot, unless bursts are held or
//     guests run.
//   - Finish is said once, when every service has ended or is given up as stuck.
//   - After Step at time t, Next is after t: the caller never spins.
//
// An Engine belongs to one goroutine.
package engine

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"cairn/init/supervise/catalogue"
)

// The constants of the restart and stop rules.
const (
	firstDelay  = 200 * time.Millisecond
	maxDelay    = 30 * time.Second
	forgiveness = time.Minute // readiness that resets the back-off
	burstCount  = 5
	burstWindow = time.Minute
	sayEvery    = 10 * time.Second
	probeEvery  = time.Second
	maxExtend   = 10 * time.Minute
	stuckAfter  = 10 * time.Second // after SIGKILL, until a shutdown goes on without it
	// stopLimit bounds the service part of a shutdown, whatever is asked for by
	// EXTEND_TIMEOUT_USEC.
	stopLimit = 2 * time.Minute
)

// Engine is the state of all services.
type Engine struct {
	order     []*service // each after all it needs
	byName    map[string]*service
	now       time.Duration
	out       []Action
	holdBurst bool
	guests    bool // guests run
	allReady  bool // host-ready was said
	down      *shutdown
}

// New returns an engine for a valid catalogue.
func New(services []catalogue.Service) (*Engine, error) {
	if err := catalogue.Validate(services); err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	names, err := catalogue.Order(services)
	if err != nil {
		return nil, err
	}
	e := &Engine{byName: map[string]*service{}}
	for _, spec := range services {
		e.byName[spec.Name] = &service{spec: spec}
	}
	for _, n := range names {
		s := e.byName[n]
		for _, need := range s.spec.Needs {
			s.needs = append(s.needs, e.byName[need])
		}
		for _, o := range s.spec.After {
			s.after = append(s.after, e.byName[o])
		}
		e.order = append(e.order, s)
	}
	return e, nil
}

// Step takes one event at a time since kernel start and returns what is to be
// done, in order. Time never runs backwards: an earlier now counts as the last.
func (e *Engine) Step(now time.Duration, ev Event) []Action {
	e.now = max(e.now, now)
	e.out = nil
	switch ev := ev.(type) {
	case Boot:
		for _, s := range e.order {
			s.state = Waiting
			if len(s.after) > 0 {
				s.afterBy = e.now + s.spec.AfterLimit
			}
		}
	case Tick:
	case Started:
		e.started(ev)
	case StartFailed:
		if s := e.byName[ev.Name]; s != nil && s.inFlight() {
			e.failed(s, ev.Err)
		}
	case Exited:
		e.exited(ev)
	case Notified:
		e.notified(ev)
	case SocketAppeared:
		if s := e.byName[ev.Name]; s != nil && s.spec.Ready.Kind == catalogue.Socket {
			e.ready(s)
		}
	case Probed:
		e.probed(ev)
	case Guests:
		e.guests = ev.Running
	case ShutdownRequest:
		e.requestShutdown(ev.Kind, ev.Reason)
	}
	for _, s := range e.order {
		e.overdue(s)
	}
	e.settle()
	return e.out
}

// Next is the time of the earliest thing that happens without an event. Then
// the caller says Tick. Without one, ok is false.
func (e *Engine) Next() (at time.Duration, ok bool) {
	for _, s := range e.order {
		for _, t := range s.timers() {
			if t != 0 && (!ok || t < at) {
				at, ok = t, true
			}
		}
	}
	return at, ok
}

// PID returns the main process of a service, 0 if it has none.
func (e *Engine) PID(name string) int {
	if s := e.byName[name]; s != nil {
		return s.pid
	}
	return 0
}

// ByPID returns the service whose main process it is.
func (e *Engine) ByPID(pid int) (name string, ok bool) {
	if s := e.main(pid); s != nil {
		return s.spec.Name, true
	}
	return "", false
}

// State returns the state of a service.
func (e *Engine) State(name string) State {
	if s := e.byName[name]; s != nil {
		return s.state
	}
	return ""
}

// main finds the service whose main process pid is.
func (e *Engine) main(pid int) *service {
	i := slices.IndexFunc(e.order, func(s *service) bool { return pid != 0 && s.pid == pid })
	if i < 0 {
		return nil
	}
	return e.order[i]
}

// settle starts or stops what can be, until nothing changes any more.
func (e *Engine) settle() {
	if e.down != nil {
		e.stopNext()
		return
	}
	for _, s := range e.order {
		if e.now >= s.afterBy {
			s.afterBy = 0
		}
		switch {
		case s.state != Waiting:
		case s.needsMet() && s.turn():
			s.afterBy = 0
			e.start(s)
		case s.sayAt == 0 || e.now >= s.sayAt:
			s.sayAt = e.now + sayEvery
			e.log(slog.LevelInfo, "waiting", "service", s.spec.Name, "for", s.missing())
		}
	}
	if !e.allReady && !slices.ContainsFunc(e.order, func(s *service) bool { return !s.up() }) {
		e.allReady = true
		e.log(slog.LevelInfo, "host-ready", "uptime", seconds(e.now))
		e.do(AllReady{})
	}
}

func (e *Engine) do(a Action) { e.out = append(e.out, a) }

func (e *Engine) log(level slog.Level, event string, args ...any) {
	e.do(Log{Level: level, Event: event, Args: args})
}

// seconds is how times since kernel start are written in the log.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }
