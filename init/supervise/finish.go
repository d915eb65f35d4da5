package supervise

import (
	"context"
	"syscall"
	"time"

	"cairn/init/supervise/engine"
)

// finish is the part of a shutdown after the services. It may block on disks,
// so it has its own goroutine; the main loop goes on reaping, and feeding the
// watchdog until the shutdown's time is over.
func (s *Supervisor) finish(kind engine.Kind) {
	defer func() { s.finished <- kind }()
	s.guard("end processes", s.endProcesses)
	s.guard("unmount", func() {
		ctx, cancel := context.WithTimeout(context.Background(), killGrace)
		defer cancel()
		if err := s.Pump.End(ctx); err != nil {
			s.Log.Warn("logs-lost", "err", err)
		}
		s.System.Unmount(s.Log)
	})
	s.Log.Info("shutdown-done", "kind", kind, "uptime", seconds(s.Uptime()))
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	s.Console.Flush(ctx)
}

// endProcesses ends everything that is left: guests, and what services of kind
// KillMain have left behind.
func (s *Supervisor) endProcesses() {
	if s.waitAlone(time.Millisecond) {
		return
	}
	s.signalAll(syscall.SIGTERM)
	if s.waitAlone(everyoneGrace) {
		return
	}
	s.Log.Warn("processes-killed", "after", everyoneGrace)
	s.signalAll(syscall.SIGKILL)
	if !s.waitAlone(killGrace) {
		s.Log.Error("processes-stuck")
	}
}

func (s *Supervisor) signalAll(sig syscall.Signal) {
	if err := s.System.SignalAll(sig); err != nil {
		s.Log.Warn("signal-all-failed", "signal", sig, "err", err)
	}
}

// waitAlone waits until this process has no child. Every orphan becomes one, so
// then no other process is left.
func (s *Supervisor) waitAlone(limit time.Duration) bool {
	select {
	case <-s.alone: // of an earlier moment
	default:
	}
	poke(s.look)
	select {
	case <-s.alone:
		return true
	case <-time.After(limit):
		return false
	}
}
