package engine

import (
	"log/slog"
	"slices"
	"syscall"
	"time"

	"cairn/init/supervise/catalogue"
)

// shutdown is there once the end was asked for.
type shutdown struct {
	kind     Kind
	limit    time.Duration // no grace goes beyond
	finished bool
}

// requestShutdown begins the end; later requests change nothing.
func (e *Engine) requestShutdown(kind Kind, reason string) {
	if e.down != nil {
		return
	}
	e.down = &shutdown{kind: kind, limit: e.now + stopLimit}
	e.log(slog.LevelInfo, "shutdown-start", "kind", kind, "reason", reason)
	e.do(GoingDown{kind})
	for _, s := range e.order {
		if !s.alive() {
			s.state, s.pid = Stopped, 0
		}
	}
}

// stopNext stops every service that no living one needs, and says Finish when
// none is left.
func (e *Engine) stopNext() {
	living := 0
	for _, s := range slices.Backward(e.order) {
		if !s.alive() {
			continue
		}
		living++
		if s.state != Stopping && !e.needed(s) {
			e.log(slog.LevelInfo, "service-stop", "name", s.spec.Name)
			e.stop(s, syscall.SIGTERM)
		}
	}
	if living == 0 && !e.down.finished {
		e.down.finished = true
		e.do(Finish{e.down.kind})
	}
}

func (e *Engine) needed(s *service) bool {
	return slices.ContainsFunc(e.order, func(o *service) bool {
		return o.alive() && slices.Contains(o.needs, s)
	})
}

// stop asks the main process to end and sets the time of the kill. A start that
// is still under way is stopped when it answers.
func (e *Engine) stop(s *service, sig syscall.Signal) {
	s.state, s.killed = Stopping, false
	s.deadline = e.now + s.spec.Grace
	if s.pid != 0 {
		e.do(Signal{s.spec.Name, s.pid, sig})
	}
}

// kill is for what outlived its grace. A process that outlives even SIGKILL
// hangs in the kernel: a shutdown goes on without it, a restart waits for it.
func (e *Engine) kill(s *service) {
	s.deadline = 0
	switch {
	case e.down != nil && (s.killed || s.pid == 0):
		e.log(slog.LevelError, "service-stuck", "name", s.spec.Name, "pid", s.pid)
		s.state, s.pid = Stopped, 0
	case s.killed || s.pid == 0:
		e.log(slog.LevelError, "service-stuck", "name", s.spec.Name, "pid", s.pid)
		s.deadline = e.now + sayEvery
	default:
		s.killed, s.deadline = true, e.now+stuckAfter
		e.log(slog.LevelWarn, "service-kill", "name", s.spec.Name, "after", s.spec.Grace)
		e.do(Signal{s.spec.Name, s.pid, syscall.SIGKILL})
		e.cleanGroup(s)
	}
}

// ended is the end of a service that was asked to end.
func (e *Engine) ended(s *service, status string) {
	level := slog.LevelInfo
	if s.spec.Class == catalogue.Critical && s.state != Stopping {
		level = slog.LevelWarn
	}
	e.log(level, "service-exit", "name", s.spec.Name, "status", status)
	e.cleanGroup(s)
	s.state, s.pid = Stopped, 0
}
