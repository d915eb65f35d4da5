package network

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"cairn/init/network/dhcp"
)

// Manager runs the management network. Use New.
type Manager struct {
	core     *core
	settings chan Settings
	requests chan request
	onChange func(Status)

	mu     sync.Mutex
	status Status
}

// New returns a manager of the kernel's network. onChange is called from the
// manager's goroutine when the status has changed, so it must be quick.
func New(kernel Kernel, leases Leases, log *slog.Logger, onChange func(Status)) *Manager {
	dial := func(iface string, id dhcp.Identity) (Transport, error) {
		conn, err := dhcp.Listen(iface, id, log)
		if err != nil {
			return nil, err // not a Transport holding a nil *Conn
		}
		return conn, nil
	}
	return &Manager{
		core:     newCore(kernel, dial, leases, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), log),
		settings: make(chan Settings, 1),
		requests: make(chan request),
		onChange: onChange,
	}
}

func newCore(kernel Kernel, dial func(string, dhcp.Identity) (Transport, error), leases Leases, random dhcp.Random, log *slog.Logger) *core {
	return &core{
		kernel: kernel, dial: dial, leases: leases, random: random, log: log,
		since: map[string]time.Time{}, carrier: map[string]bool{}, bridges: bridgesBefore(leases),
	}
}

// Apply gives the manager new settings; the last ones given count.
func (m *Manager) Apply(s Settings) {
	for {
		select {
		case m.settings <- s:
			return
		case <-m.settings: // older ones nobody has read
		}
	}
}

// Status returns the present state.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// Run keeps the network as Apply wants it until ctx is done. The address stays:
// a restart of this process must not cut the host off.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wake, watched := make(chan struct{}, 1), make(chan error, 1)
	go func() { watched <- m.core.kernel.Watch(ctx, wake) }()
	defer m.core.stopLease()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(<-watched, ctx.Err())
		case err := <-watched:
			return err
		case s := <-m.settings:
			m.core.apply(ctx, time.Now(), s)
		case r := <-m.requests:
			r.done <- m.core.serve(ctx, time.Now(), r)
		case r := <-m.core.replies():
			m.core.receive(ctx, time.Now(), r)
		case <-wake:
			m.core.reconcile(ctx, time.Now())
		case <-timer.C:
			m.core.reconcile(ctx, time.Now())
		}
		m.publish()
		timer.Reset(m.core.pause(time.Now()))
	}
}

// pause is how long until the core wants to be called again; an hour stands
// for never.
func (c *core) pause(now time.Time) time.Duration {
	if c.next.IsZero() {
		return time.Hour
	}
	return max(c.next.Sub(now), 0)
}

func (m *Manager) publish() {
	s := m.core.status
	m.mu.Lock()
	same := reflect.DeepEqual(s, m.status)
	m.status = s
	m.mu.Unlock()
	if !same {
		m.onChange(s)
	}
}
