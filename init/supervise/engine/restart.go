package engine

import (
	"log/slog"
	"slices"
	"time"

	"cairn/init/supervise/catalogue"
)

// failed handles every unasked end: an exit, a start that did not come about,
// and the end after a time-out or a missed watchdog.
func (e *Engine) failed(s *service, status string) {
	e.log(slog.LevelWarn, "service-exit", "name", s.spec.Name, "status", status,
		"ran", e.now-s.startedAt)
	e.cleanGroup(s)
	if e.down != nil {
		s.state, s.pid = Stopped, 0
		return
	}
	e.count(s)
	delay := min(firstDelay<<min(s.retries, 16), maxDelay)
	s.retries++
	s.state, s.pid, s.restartAt = Backoff, 0, e.now+delay
	if e.bursting(s) {
		return
	}
	e.log(slog.LevelInfo, "service-restart", "name", s.spec.Name, "in", delay)
}

// cleanGroup removes what the main process left behind, where that is allowed.
func (e *Engine) cleanGroup(s *service) {
	if s.spec.Kill == catalogue.KillGroup {
		e.do(KillGroup{s.spec.Name})
	}
}

// count keeps the books of the back-off and the burst. A service that was ready
// and ends without an error was asked to, by its own clients: that is no failure,
// and must never lead to a reboot, but the back-off holds for it too.
func (e *Engine) count(s *service) {
	if s.readyAt == 0 {
		s.unready++
	} else if e.now-s.readyAt >= forgiveness {
		s.retries, s.failures, s.held = 0, nil, false
	}
	s.failures = slices.DeleteFunc(s.failures, func(t time.Duration) bool { return e.now-t >= burstWindow })
	if !s.asked {
		s.failures = append(s.failures, e.now)
	}
	s.asked = false
}

// bursting asks for a reboot when a critical service cannot be helped by
// restarting, and says whether it did.
func (e *Engine) bursting(s *service) bool {
	if s.spec.Class != catalogue.Critical || (len(s.failures) < burstCount && s.unready < burstCount) {
		return false
	}
	if why := e.holding(); why != "" {
		if !s.held {
			s.held = true
			e.log(slog.LevelError, "burst-held", "name", s.spec.Name, "by", why)
		}
		return false
	}
	e.log(slog.LevelError, "burst", "name", s.spec.Name, "failures", len(s.failures))
	e.requestShutdown(Reboot, "burst of "+s.spec.Name)
	return true
}

// holding says what keeps a burst from rebooting the host: running guests, for
// whom a host without management is better than none, or who asked for it.
func (e *Engine) holding() string {
	switch {
	case e.guests:
		return "guests"
	case e.holdBurst:
		return "request"
	default:
		return ""
	}
}

// notified acts on a message of a live service.
func (e *Engine) notified(ev Notified) {
	s := e.byName[ev.Name]
	if s == nil || !s.alive() {
		return
	}
	m := ev.Message
	if m.Status != "" {
		s.status = m.Status
	}
	if m.BurstReboot != "" && s.spec.Trusted {
		e.holdBurst = m.BurstReboot == "no"
		e.log(slog.LevelInfo, "burst-policy", "reboot", m.BurstReboot, "by", s.spec.Name)
	}
	if m.MainPID != 0 && m.MainPID != s.pid && s.pid != 0 && e.main(m.MainPID) == nil {
		e.log(slog.LevelInfo, "service-main", "name", s.spec.Name, "pid", m.MainPID)
		s.pid = m.MainPID
	}
	e.extend(s, m.Extend)
	if m.Watchdog != 0 {
		s.watchdog = min(m.Watchdog, time.Hour)
	}
	e.transition(s, ev)
}

func (e *Engine) transition(s *service, ev Notified) {
	m := ev.Message
	if m.Reloading && s.state == Ready {
		e.log(slog.LevelInfo, "service-reloading", "name", s.spec.Name)
	}
	if m.Ready && s.spec.Ready.Kind == catalogue.Notify {
		e.ready(s)
	}
	switch {
	case s.state == Ready && m.Trigger:
		e.hung(s, "said so itself")
	case s.state == Ready && s.watchdog > 0 && (m.Ping || m.Watchdog != 0):
		s.pingBy = e.now + s.watchdog
	}
	if m.Stopping && (s.state == Ready || s.state == Starting) {
		e.log(slog.LevelInfo, "service-stopping", "name", s.spec.Name)
		s.state, s.deadline = Stopping, e.now+s.spec.Grace
	}
}

// extend moves a deadline away, never nearer, and never for ever.
func (e *Engine) extend(s *service, by time.Duration) {
	if by == 0 || s.killed || (s.state != Starting && s.state != Stopping) {
		return
	}
	until := e.now + min(by, maxExtend)
	if e.down != nil {
		until = min(until, e.down.limit)
	}
	s.deadline = max(s.deadline, until)
}
