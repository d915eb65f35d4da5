package engine

import (
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"time"

	"cairn/init/supervise/catalogue"
)

// State is where a service stands.
type State string

// The states. From Stopping a service goes to Backoff, or to Stopped in a
// shutdown.
const (
	Waiting  State = "waiting"  // for what it needs
	Starting State = "starting" // start asked for, not yet ready
	Ready    State = "ready"
	Done     State = "done"     // a oneshot that has succeeded
	Stopping State = "stopping" // told to end, or said itself that it does
	Backoff  State = "backoff"  // until restartAt
	Stopped  State = "stopped"  // for good
)

// service is one entry's state. Times are since kernel start; 0 is "none".
type service struct {
	spec  catalogue.Service
	needs []*service
	after []*service // Service.After

	state     State
	pid       int
	startedAt time.Duration
	readyAt   time.Duration
	deadline  time.Duration // Starting: must be ready; Stopping: gets SIGKILL
	killed    bool          // SIGKILL was sent
	asked     bool          // it ended without an error after it was ready
	sayAt     time.Duration // next "waiting" line
	afterBy   time.Duration // when waiting for Service.After ends
	restartAt time.Duration
	probeAt   time.Duration
	watchdog  time.Duration // interval in force
	pingBy    time.Duration
	status    string // the last STATUS=

	failures []time.Duration // of the last minute
	unready  int             // starts in a row without readiness
	retries  int             // exponent of the back-off
	held     bool            // burst-held was said
	early    bool            // readiness was seen before Started was
}

func (s *service) up() bool    { return s.state == Ready || s.state == Done }
func (s *service) alive() bool { return s.state == Starting || s.state == Ready || s.state == Stopping }

// inFlight: a start was asked for and not yet answered.
func (s *service) inFlight() bool { return s.alive() && s.pid == 0 }

func (s *service) needsMet() bool {
	return !slices.ContainsFunc(s.needs, func(n *service) bool { return !n.up() })
}

// turn says whether a service that lets others go first may start now.
func (s *service) turn() bool {
	return s.afterBy == 0 ||
		!slices.ContainsFunc(s.after, func(o *service) bool { return !o.up() && o.retries == 0 })
}

func (s *service) missing() string {
	var out []string
	for _, n := range slices.Concat(s.needs, s.after) {
		if !n.up() {
			out = append(out, n.spec.Name)
		}
	}
	return strings.Join(out, ",")
}

// waitsFor says what a starting service lacks.
func (s *service) waitsFor() string {
	switch {
	case s.pid == 0:
		return "process"
	case s.spec.Ready.Kind == catalogue.Socket:
		return "socket:" + s.spec.Ready.Path
	}
	return string(s.spec.Ready.Kind)
}

// said is the service's own word on what it does, if it gave one.
func (s *service) said() []any {
	if s.status == "" {
		return nil
	}
	return []any{"status", s.status}
}

// timers lists the times at which this service needs a Tick.
func (s *service) timers() []time.Duration {
	switch s.state {
	case Waiting:
		return []time.Duration{s.sayAt, s.afterBy}
	case Starting:
		return []time.Duration{s.deadline, s.sayAt, s.probeAt}
	case Ready:
		return []time.Duration{s.pingBy}
	case Stopping:
		return []time.Duration{s.deadline}
	case Backoff:
		return []time.Duration{s.restartAt}
	}
	return nil
}

func (e *Engine) start(s *service) {
	s.state, s.startedAt, s.readyAt, s.pid, s.killed, s.status = Starting, e.now, 0, 0, false, ""
	s.deadline, s.sayAt = e.now+s.spec.StartTimeout, e.now+sayEvery
	s.watchdog, s.pingBy, s.probeAt, s.restartAt, s.early = s.spec.Watchdog, 0, 0, 0, false
	e.log(slog.LevelInfo, "service-start", "name", s.spec.Name)
	e.do(Start{s.spec.Name})
}

func (e *Engine) started(ev Started) {
	s := e.byName[ev.Name]
	if s == nil || !s.inFlight() {
		return
	}
	s.pid = ev.PID
	switch {
	case s.state == Stopping: // it came too late
		e.stop(s, syscall.SIGTERM)
	case s.early:
		e.ready(s)
	case s.spec.Ready.Kind == catalogue.Probe:
		e.do(Probe{s.spec.Name})
	}
}

// ready is the one place where a service becomes usable.
func (e *Engine) ready(s *service) {
	if s.state != Starting {
		return
	}
	if s.pid == 0 {
		s.early = true
		return
	}
	s.state, s.readyAt, s.unready = Ready, e.now, 0
	if s.spec.Class == catalogue.Oneshot {
		s.state, s.pid = Done, 0
	} else if s.watchdog > 0 {
		s.pingBy = e.now + s.watchdog
	}
	e.log(slog.LevelInfo, "service-ready", "name", s.spec.Name,
		"took", e.now-s.startedAt, "uptime", seconds(e.now))
	e.do(Up{s.spec.Name})
}

func (e *Engine) probed(ev Probed) {
	s := e.byName[ev.Name]
	switch {
	case s == nil || s.state != Starting || s.spec.Ready.Kind != catalogue.Probe:
	case ev.OK:
		e.ready(s)
	default:
		s.probeAt = e.now + probeEvery
	}
}

func (e *Engine) exited(ev Exited) {
	s := e.main(ev.PID)
	switch {
	case s == nil:
	case s.state == Starting && s.spec.Class == catalogue.Oneshot && ev.OK:
		e.ready(s)
	case e.down != nil:
		e.ended(s, ev.Status)
	default:
		s.asked = ev.OK && s.readyAt != 0
		e.failed(s, ev.Status)
	}
}

// overdue acts on the deadlines that have passed.
func (e *Engine) overdue(s *service) {
	late := func(t time.Duration) bool { return t != 0 && e.now >= t }
	switch {
	case s.state == Starting && late(s.deadline):
		args := []any{"name", s.spec.Name, "for", s.waitsFor()}
		e.log(slog.LevelWarn, "service-timeout", append(args, s.said()...)...)
		e.stop(s, syscall.SIGTERM)
	case s.state == Starting:
		e.stillStarting(s)
	case s.state == Ready && late(s.pingBy):
		e.hung(s, "silent for "+s.watchdog.String())
	case s.state == Stopping && late(s.deadline):
		e.kill(s)
	case s.state == Backoff && late(s.restartAt):
		s.state, s.sayAt = Waiting, 0
	}
}

func (e *Engine) stillStarting(s *service) {
	if s.probeAt != 0 && e.now >= s.probeAt {
		s.probeAt = 0
		e.do(Probe{s.spec.Name})
	}
	if e.now < s.sayAt {
		return
	}
	s.sayAt = e.now + sayEvery
	args := []any{"service", s.spec.Name, "for", s.waitsFor(), "since", e.now - s.startedAt}
	e.log(slog.LevelInfo, "waiting", append(args, s.said()...)...)
}

// hung ends a service that no longer answers. SIGABRT lets it dump its stacks.
func (e *Engine) hung(s *service, why string) {
	e.log(slog.LevelError, "service-watchdog", "name", s.spec.Name, "reason", why)
	e.stop(s, syscall.SIGABRT)
}
