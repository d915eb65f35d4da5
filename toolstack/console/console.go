// Package console carries the serial consoles of running VMs to clients.
//
// For each running domain one hub holds the only connection to its console and
// reads it without pause, from before the guest's first instruction to its end.
// Viewers come and go: all see the same bytes, all may type, and each sees the
// tail of what was said before it came. A viewer who does not keep up is cut off;
// neither the guest nor the others notice.
//
// A stream ends with the domain and with the session that opened it. After a
// restart of the toolstack the tail is empty; the whole log is the host's, kept
// by virtlogd.
//
// All methods may be called from many goroutines.
package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Dialer opens a domain's console; it is called once per domain.
type Dialer interface {
	DialConsole(ctx context.Context, uuid string) (net.Conn, error)
}

// Manager holds the hubs.
type Manager struct {
	db     *db.DB
	dialer Dialer
	log    *slog.Logger

	mu   sync.Mutex
	hubs map[string]*hub // by the VM's uuid
	open map[*viewer]api.SessionRef
}

// New returns a Manager without hubs.
func New(d *db.DB, dialer Dialer, log *slog.Logger) *Manager {
	if log == nil {
		log = journal.Discard()
	}
	return &Manager{db: d, dialer: dialer, log: log, hubs: map[string]*hub{}, open: map[*viewer]api.SessionRef{}}
}

// Attach connects to a domain's console, unless that is done already.
func (m *Manager) Attach(ctx context.Context, uuid string) error {
	_, err := m.hub(ctx, uuid)
	return err
}

// Renew connects to the console of a domain that has just been made. What is
// held under its name is of the domain before, whose end may not have been seen.
func (m *Manager) Renew(ctx context.Context, uuid string) error {
	m.mu.Lock()
	old := m.hubs[uuid]
	delete(m.hubs, uuid)
	m.mu.Unlock()
	if old != nil {
		old.conn.Close()
	}
	return m.Attach(ctx, uuid)
}

// hub returns the domain's hub. It dials without the lock: a QEMU that hangs must
// not hold up the consoles of others. Of two that dial at once one hangs up; QEMU
// has kept the other waiting.
func (m *Manager) hub(ctx context.Context, uuid string) (*hub, error) {
	if h := m.held(uuid); h != nil {
		return h, nil
	}
	conn, err := m.dialer.DialConsole(ctx, uuid)
	if err != nil {
		return nil, fmt.Errorf("console of %s: %w", uuid, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.hubs[uuid]; h != nil {
		conn.Close()
		return h, nil
	}
	h := newHub(conn)
	m.hubs[uuid] = h
	go m.follow(uuid, h)
	return h, nil
}

func (m *Manager) held(uuid string) *hub {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hubs[uuid]
}

func (m *Manager) follow(uuid string, h *hub) {
	h.run()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hubs[uuid] == h {
		delete(m.hubs, uuid)
	}
}

// Run ends the streams of sessions that end, until the context does.
func (m *Manager) Run(ctx context.Context) error {
	w := m.db.Watch()
	defer w.Close()
	for {
		select {
		case <-w.C():
			w.Changes()
			m.endOrphans()
		case <-ctx.Done():
			m.close()
			return ctx.Err()
		}
	}
}

var errSession = errors.New("the session has ended")

func (m *Manager) endOrphans() {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.db.Snapshot()
	for v, session := range m.open {
		if _, err := db.Get(s, session); err != nil {
			v.finish(errSession)
		}
	}
}

// close hangs up on the guests; they do not notice.
func (m *Manager) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.hubs {
		h.conn.Close()
	}
}

// errNone is what has no console now.
var errNone = errors.New("there is no console of that VM: it does not run here")

// find resolves the VM or console a client names.
func (m *Manager) find(uuid, ref string) (*api.VM, error) {
	s := m.db.Snapshot()
	if uuid != "" {
		if c, err := db.ByUUID[api.Console](s, uuid); err == nil {
			ref = string(c)
		} else if v, err := db.ByUUID[api.VM](s, uuid); err == nil {
			ref = string(v)
		} else {
			return nil, errNone
		}
	}
	if c, err := db.Get(s, api.ConsoleRef(ref)); err == nil {
		ref = string(c.VM)
	}
	vm, err := db.Get(s, api.VMRef(ref))
	if err != nil || vm.IsControlDomain {
		return nil, errNone
	}
	if vm.PowerState != api.VMPowerStateRunning && vm.PowerState != api.VMPowerStatePaused {
		return nil, errNone
	}
	return vm, nil
}

// view joins a viewer for a session.
func (m *Manager) view(ctx context.Context, uuid, ref string, session api.SessionRef) (*hub, *viewer, error) {
	vm, err := m.find(uuid, ref)
	if err != nil {
		return nil, nil, err
	}
	h, err := m.hub(ctx, vm.UUID)
	if err != nil {
		return nil, nil, err
	}
	v, err := h.join()
	if err != nil {
		return nil, nil, errNone
	}
	m.mu.Lock()
	m.open[v] = session
	m.mu.Unlock()
	m.endOrphans() // the session may have ended before it was entered
	m.log.Info("console-open", "uuid", vm.UUID)
	return h, v, nil
}

func (m *Manager) leave(h *hub, v *viewer) {
	h.leave(v)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.open, v)
}
