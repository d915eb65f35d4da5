// Package console carries the consoles of running VMs to clients: the serial one, and
// the screen of those that have one.
//
// Serial: for each running domain one hub holds the only connection to its console
// and reads it without pause, from before the guest's first instruction to its end.
// Viewers come and go: all see the same bytes, all may type, and each sees the tail
// of what was said before it came. A viewer who does not keep up is cut off; neither
// the guest nor the others notice.
//
// Screen: each viewer has a connection of its own to QEMU's VNC server, which shares
// the screen among them. Bytes go straight through; what a viewer sends is only looked
// at to tell somebody at the keyboard from a program that keeps asking for pictures.
//
// How many may look is bounded, per VM and on the whole. A stream ends with the
// domain, with the session that opened it, with its client, half-closed included, and
// with the process. After a restart of the toolstack the tail is empty; the whole log
// is the host's, kept by virtlogd.
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

// Dialer opens a domain's consoles. DialConsole is called once per domain; DialVNC
// and Screenshot answer hypervisor.ErrNotFound where there is no screen.
type Dialer interface {
	DialConsole(ctx context.Context, uuid string) (net.Conn, error)
	DialVNC(ctx context.Context, uuid string) (net.Conn, error)
	Screenshot(ctx context.Context, uuid string) ([]byte, error)
}

// Manager holds the hubs and the streams.
type Manager struct {
	db     *db.DB
	dialer Dialer
	log    *slog.Logger
	here   func(api.HostRef) bool // the hosts whose VMs are served

	pictures chan struct{} // one for each screenshot under way

	mu   sync.Mutex
	hubs map[string]*hub // by the VM's uuid
	open map[*stream]bool
}

// New returns a Manager without hubs.
func New(d *db.DB, dialer Dialer, log *slog.Logger) *Manager {
	if log == nil {
		log = journal.Discard()
	}
	return &Manager{
		db: d, dialer: dialer, log: log, here: func(api.HostRef) bool { return true },
		pictures: make(chan struct{}, picturesAtOnce), hubs: map[string]*hub{}, open: map[*stream]bool{},
	}
}

// ServeOnly has clients of VMs on other hosts sent there. Call it before serving.
func (m *Manager) ServeOnly(here func(api.HostRef) bool) { m.here = here }

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

// Run ends the streams of sessions and VMs that end, until the context does.
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

// close hangs up on the guests; they do not notice.
func (m *Manager) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.hubs {
		h.conn.Close()
	}
	for s := range m.open {
		s.finish(errStopping)
	}
}

var (
	// errNone is what has no console now.
	errNone = errors.New("there is no console of that VM: it does not run here")
	// errNoScreen: the VM runs without one.
	errNoScreen = errors.New("that VM has no screen")
)

// target is the console a client asks for.
type target struct {
	ref      api.VMRef
	vm       *api.VM
	protocol api.ConsoleProtocol
}

// find resolves the VM or console a client names. A VM stands for its screen, where
// it has one, else for its terminal.
func (m *Manager) find(uuid, ref string) (target, error) {
	s := m.db.Snapshot()
	if uuid != "" {
		if ref = refOf(s, uuid); ref == "" {
			return target{}, api.ErrUUIDInvalid("console", uuid)
		}
	}
	t := target{ref: api.VMRef(api.ParseRef(ref))}
	if c, err := db.Get(s, api.ConsoleRef(t.ref)); err == nil {
		t.ref, t.protocol = c.VM, c.Protocol
	}
	var err error
	if t.vm, err = db.Get(s, t.ref); err != nil {
		return t, api.ErrHandleInvalid("console", api.RefText(string(t.ref)))
	}
	if t.protocol == "" {
		t.protocol = preferred(s, t.vm)
	}
	if !t.vm.IsControlDomain && !runs(t.vm) {
		return t, errNone
	}
	return t, nil
}

func runs(vm *api.VM) bool {
	return vm.PowerState == api.VMPowerStateRunning || vm.PowerState == api.VMPowerStatePaused
}

// refOf finds what has a uuid, a console or a VM.
func refOf(s *db.Snapshot, uuid string) string {
	if c, err := db.ByUUID[api.Console](s, uuid); err == nil {
		return string(c)
	}
	v, _ := db.ByUUID[api.VM](s, uuid) // null where there is none
	return string(v)
}

func preferred(s *db.Snapshot, vm *api.VM) api.ConsoleProtocol {
	for _, ref := range vm.Consoles {
		if c, err := db.Get(s, ref); err == nil && c.Protocol == api.ConsoleProtocolRfb {
			return c.Protocol
		}
	}
	return api.ConsoleProtocolVt100
}
