package console

import (
	"errors"
	"sync"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// How many may look at once. A browser that reloads leaves a stream behind for a
// while, so the limits are generous; they are there against floods.
const (
	perVM   = 64
	perHost = 1024
)

// Why streams end, and why one is not begun.
var (
	errSession  = errors.New("the session has ended")
	errStopped  = errors.New("the VM has stopped")
	errStopping = errors.New("the host's toolstack stops")
	errIdle     = errors.New("nobody has typed for as long as the pool allows")
	errPerVM    = errors.New("too many look at the consoles of that VM")
	errPerHost  = errors.New("too many look at consoles of this host")
	errTaken    = errors.New("somebody looks at that console already, and the pool allows one at a time")
)

// stream is one client at one console.
type stream struct {
	target
	session api.SessionRef
	idle    time.Duration // without input, until it ends; 0 is for ever
	timer   *time.Timer   // of idle

	once sync.Once
	done chan struct{}
	err  error // why it ends, once done is closed
}

// finish ends the stream; the first reason counts.
func (s *stream) finish(why error) {
	s.once.Do(func() {
		s.err = why
		close(s.done)
	})
}

// stir notes that somebody is there. It is called by one goroutine at a time.
func (s *stream) stir() {
	switch {
	case s.idle <= 0:
	case s.timer == nil:
		s.timer = time.AfterFunc(s.idle, func() { s.finish(errIdle) })
	default:
		s.timer.Reset(s.idle)
	}
}

// enter counts a client in, if there is room for it.
func (m *Manager) enter(t target, session api.SessionRef) (*stream, error) {
	exclusive, idle := poolSettings(m.db.Snapshot())
	s := &stream{target: t, session: session, idle: idle, done: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.open) >= perHost {
		return nil, errPerHost
	}
	same := 0
	for other := range m.open {
		if other.ref != t.ref {
			continue
		}
		if same++; exclusive && other.protocol == t.protocol {
			return nil, errTaken
		}
	}
	if same >= perVM {
		return nil, errPerVM
	}
	m.open[s] = true
	return s, nil
}

// poolSettings are whether a console admits one viewer at a time, and how long nobody
// may type.
func poolSettings(r db.Reader) (exclusive bool, idle time.Duration) {
	for _, p := range db.All[api.Pool](r) {
		return p.LimitConsoleSessions, time.Duration(p.VMConsoleIdleTimeout) * time.Second
	}
	return false, 0
}

func (m *Manager) leave(s *stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.open, s)
}

// endOrphans ends the streams whose session or VM has ended.
func (m *Manager) endOrphans() {
	m.mu.Lock()
	defer m.mu.Unlock()
	snap := m.db.Snapshot()
	for s := range m.open {
		if _, err := db.Get(snap, s.session); err != nil {
			s.finish(errSession)
		}
		if vm, err := db.Get(snap, s.ref); err != nil || !runs(vm) {
			s.finish(errStopped)
		}
	}
}
