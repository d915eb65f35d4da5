package supervise

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cairn/init/supervise/catalogue"
	"cairn/init/supervise/engine"
	"cairn/init/supervise/notify"
)

// maxEarly bounds what is kept for starts in flight.
const maxEarly = 256

// earlyEvent is an exit or a message of a process that the engine does not know
// yet, because the answer to its start is still on the way.
type earlyEvent struct {
	pid    int
	status *syscall.WaitStatus
	packet *notify.Packet
}

// probeStarted answers a Probe with a process whose exit is the result.
type probeStarted struct {
	engine.Tick
	name string
	pid  int
}

// answer takes what a goroutine has found out, then what came too early for it.
func (s *Supervisor) answer(ev engine.Event) {
	switch ev := ev.(type) {
	case engine.Started, engine.StartFailed:
		s.inFlight--
		s.step(ev)
	case probeStarted:
		s.inFlight--
		s.probes[ev.pid] = ev.name
	case engine.Probed:
		s.inFlight--
		s.step(ev)
	default:
		s.step(ev)
		return
	}
	early := s.early
	s.early = nil
	for _, e := range early {
		if e.status != nil {
			s.reaped(e.pid, *e.status)
		} else {
			s.packet(*e.packet)
		}
	}
}

// reap collects every child that has ended. It is the only place that waits.
func (s *Supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD):
			poke(s.alone)
			return
		case err != nil || pid <= 0:
			return
		default:
			s.reaped(pid, status)
		}
	}
}

func (s *Supervisor) reaped(pid int, status syscall.WaitStatus) {
	if name, ok := s.probes[pid]; ok {
		delete(s.probes, pid)
		s.step(engine.Probed{Name: name, OK: status.ExitStatus() == 0})
		return
	}
	if _, known := s.engine.ByPID(pid); !known && s.keep(earlyEvent{pid: pid, status: &status}) {
		return
	}
	s.step(engine.Exited{PID: pid, OK: status.ExitStatus() == 0, Status: describe(status)})
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exit %d", status.ExitStatus())
}

// keep puts an event off until the starts in flight have answered.
func (s *Supervisor) keep(e earlyEvent) bool {
	if s.inFlight == 0 || len(s.early) >= maxEarly {
		return false
	}
	s.early = append(s.early, e)
	return true
}

// packet finds out whose message it is and hands it on.
func (s *Supervisor) packet(p notify.Packet) {
	name, ok := s.sender(p.PID)
	if (!ok || s.engine.PID(name) == 0) && s.keep(earlyEvent{pid: p.PID, packet: &p}) {
		return
	}
	defer p.Close()
	if !ok {
		if now := s.Uptime(); s.refused == 0 || now-s.refused > time.Second {
			s.refused = now
			s.Log.Warn("notify-refused", "pid", p.PID)
		}
		return
	}
	if p.Err != nil {
		s.Log.Warn("notify-invalid", "name", name, "err", p.Err)
	}
	m := p.Message
	if of, ok := s.Groups.Of(m.MainPID); m.MainPID != 0 && (!ok || of != name) {
		s.Log.Warn("notify-invalid", "name", name, "err", fmt.Sprintf("process %d is not of this service", m.MainPID))
		m.MainPID = 0
	}
	s.step(engine.Notified{Name: name, Message: m})
}

// sender is the service a process may speak for. A guest that is about to move
// to /machine is still in libvirtd's group, so where a stop spares the group,
// only the main process counts.
func (s *Supervisor) sender(pid int) (string, bool) {
	if name, ok := s.engine.ByPID(pid); ok {
		return name, true
	}
	name, ok := s.Groups.Of(pid)
	return name, ok && s.specs[name].Kill == catalogue.KillGroup
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
