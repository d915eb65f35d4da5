package sim

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"cairn/toolstack/hypervisor"
)

// Pace is how long things take. The zero value is a host that does all at once.
type Pace struct {
	Start    time.Duration // until a domain exists
	Shutdown time.Duration // from the power button to the guest's end
	Destroy  time.Duration
}

// LifeLike is the pace of guests that boot from a fast disk.
var LifeLike = Pace{Start: 300 * time.Millisecond, Shutdown: 3 * time.Second, Destroy: 60 * time.Millisecond}

// Host is the hypervisor of one simulated host: a Fake whose doings take time,
// each by up to half more or less. Guests obey the power button, answer what is
// typed on their console, and restart, power off or panic when that is typed.
type Host struct {
	*hypervisor.Fake
	pace Pace

	mu     sync.Mutex
	random *rand.Rand
	ending map[string]*time.Timer // guests whose power button was pressed
}

var _ hypervisor.Hypervisor = (*Host)(nil)

// NewHost returns a host without domains. Equal seeds take equal times.
func NewHost(pace Pace, seed uint64) *Host {
	return &Host{
		Fake: hypervisor.NewFake(), pace: pace, random: rand.New(rand.NewPCG(seed, 0)), ending: map[string]*time.Timer{},
	}
}

// about varies a time.
func (h *Host) about(d time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return d/2 + time.Duration(h.random.Int64N(int64(d)+1))
}

// take lets time pass.
func (h *Host) take(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(h.about(d)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Start implements hypervisor.Hypervisor.
func (h *Host) Start(ctx context.Context, spec hypervisor.Spec, paused bool) error {
	if err := h.take(ctx, h.pace.Start); err != nil {
		return err
	}
	h.forget(spec.UUID)
	return h.Fake.Start(ctx, spec, paused)
}

// Shutdown implements hypervisor.Hypervisor: the guest ends some time later.
func (h *Host) Shutdown(ctx context.Context, uuid string) error {
	if h.pace.Shutdown == 0 {
		return h.Fake.Shutdown(ctx, uuid)
	}
	if err := h.Running(ctx, uuid); err != nil {
		return err
	}
	end := h.about(h.pace.Shutdown)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ending[uuid] == nil { // a second press changes nothing
		h.ending[uuid] = time.AfterFunc(end, func() {
			h.forget(uuid)
			// One that has ended or is paused by now is not there to obey.
			_ = h.Fake.Shutdown(context.Background(), uuid)
		})
	}
	return nil
}

// Destroy implements hypervisor.Hypervisor.
func (h *Host) Destroy(ctx context.Context, uuid string) error {
	if err := h.take(ctx, h.pace.Destroy); err != nil {
		return err
	}
	h.forget(uuid)
	return h.Fake.Destroy(ctx, uuid)
}

// forget drops a press of the power button: its domain is gone or another.
func (h *Host) forget(uuid string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.ending[uuid]; t != nil {
		t.Stop()
		delete(h.ending, uuid)
	}
}
