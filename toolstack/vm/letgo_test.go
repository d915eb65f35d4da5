package vm_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
)

// deadly is a hypervisor of which libvirtd dies when a domain is let go: for some calls,
// which do nothing, or after the first has been done.
type deadly struct {
	hypervisor.Hypervisor
	calls atomic.Int64 // that are still lost
	done  bool         // the first takes effect
	asked atomic.Int64
	lost  chan struct{} // one for each call that was
	ran   chan struct{} // one for each that was not
}

func (d *deadly) Resume(ctx context.Context, uuid string) error {
	first := d.asked.Add(1) == 1
	if d.calls.Add(-1) < 0 {
		defer func() { d.ran <- struct{}{} }()
		return d.Hypervisor.Resume(ctx, uuid)
	}
	if first && d.done {
		if err := d.Hypervisor.Resume(ctx, uuid); err != nil {
			return err
		}
	}
	d.lost <- struct{}{}
	return fmt.Errorf("resume %s: %w", uuid, hypervisor.ErrUnknownOutcome)
}

// TestLibvirtdDiesWhenAGuestIsLetGo: the memory is back and given up, so the guest has to
// run, now or as soon as libvirtd is there; and the record does not call it paused by
// somebody.
func TestLibvirtdDiesWhenAGuestIsLetGo(t *testing.T) {
	for _, c := range []struct {
		name string
		lost int64
		done bool
		late bool // longer than the call waits
	}{
		{"for a moment", 1, false, false},
		{"for some", 4, false, false},
		{"when it was done", 1, true, false},
		{"for long", 1 << 30, false, true},
		{"for long, when it was done", 1 << 30, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			hv := &deadly{done: c.done, lost: make(chan struct{}, 100), ran: make(chan struct{}, 100)}
			r := newRigEdit(t, func(cfg *vm.Config) {
				hv.Hypervisor, cfg.Hypervisor = cfg.Hypervisor, hv
				cfg.Sleep = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
			})
			ref := r.install("x")
			r.bring(ref, api.VMPowerStateSuspended)
			hv.asked.Store(0)
			hv.calls.Store(c.lost)
			_, err := r.Call("VM.resume", ref, false, false)
			if (err != nil) != c.late {
				t.Fatalf("the resume is answered %v", err)
			}
			for len(hv.lost) > 0 {
				<-hv.lost
			}
			if c.late && !c.done {
				select {
				case <-hv.lost:
				case <-time.After(10 * time.Second):
					t.Fatal("nobody looks after it")
				}
			}
			if state := r.record(ref).PowerState; state != api.VMPowerStateRunning {
				t.Errorf("the machine is called %s", state)
			}
			hv.calls.Store(0)
			r.hv.Resync()
			for r.hv.Running(r.ctx, r.uuid(ref)) != nil { // which no row says
				select {
				case <-hv.ran:
				case <-time.After(10 * time.Second):
					t.Fatal("the guest does not run")
				}
			}
			r.state(ref, api.VMPowerStateRunning)
			r.Must(nil, "VM.pause", ref) // and stays paused when somebody says so
			r.hv.Resync()
			r.state(ref, api.VMPowerStatePaused)
			r.Must(nil, "VM.hard_shutdown", ref)
			r.onlyDisks(2)
		})
	}
}

// TestUnpauseWithoutAnAnswer: what nobody answered is asked again, and is done then.
func TestUnpauseWithoutAnAnswer(t *testing.T) {
	hv := &deadly{done: true, lost: make(chan struct{}, 100), ran: make(chan struct{}, 100)}
	s := newStackEdit(t, func(cfg *vm.Config) {
		hv.Hypervisor, cfg.Hypervisor = cfg.Hypervisor, hv
		cfg.Sleep = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	})
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, true, false)
	hv.asked.Store(0)
	hv.calls.Store(1)
	s.Must(nil, "VM.unpause", ref)
	if hv.asked.Load() != 2 {
		t.Errorf("it was asked %d times", hv.asked.Load())
	}
	s.hv.Resync()
	s.state(ref, api.VMPowerStateRunning)
	s.hv.FailNext("Pause", hypervisor.ErrUnknownOutcome)
	s.Must(nil, "VM.pause", ref)
	s.state(ref, api.VMPowerStatePaused)
}

// outdated is a hypervisor whose next list, when libvirtd has just come back, calls a
// domain paused that runs: it has not taken that over yet.
type outdated struct {
	hypervisor.Hypervisor
	stale atomic.Bool
	later atomic.Int64 // lists after that one
}

func (o *outdated) List(ctx context.Context) ([]hypervisor.Domain, error) {
	all, err := o.Hypervisor.List(ctx)
	if len(all) > 0 && o.stale.CompareAndSwap(true, false) {
		all[0].State = hypervisor.Paused
		o.later.Store(0)
	} else {
		o.later.Add(1)
	}
	return all, err
}

// TestSecondLookAtARestart: a domain that a new libvirtd has not taken over yet is looked
// at once more, though nothing tells that its state is another.
func TestSecondLookAtARestart(t *testing.T) {
	hv := &outdated{}
	s := newStackEdit(t, func(cfg *vm.Config) {
		hv.Hypervisor, cfg.Hypervisor = cfg.Hypervisor, hv
		cfg.SecondLook = 20 * time.Millisecond
	})
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, false, false)
	s.state(ref, api.VMPowerStateRunning)
	hv.stale.Store(true)
	s.hv.Resync()
	s.Until("the state is true again", func() bool {
		return !hv.stale.Load() && hv.later.Load() > 0 && s.record(ref).PowerState == api.VMPowerStateRunning
	})
}
