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
}

func (d *deadly) Resume(ctx context.Context, uuid string) error {
	first := d.asked.Add(1) == 1
	if d.calls.Add(-1) < 0 {
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
			hv := &deadly{done: c.done, lost: make(chan struct{}, 100)}
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
			r.Until("the guest runs", func() bool { return r.hv.Running(r.ctx, r.uuid(ref)) == nil })
			r.state(ref, api.VMPowerStateRunning)
			r.Must(nil, "VM.pause", ref) // and stays paused when somebody says so
			r.hv.Resync()
			r.state(ref, api.VMPowerStatePaused)
			r.Must(nil, "VM.hard_shutdown", ref)
			r.onlyDisks(2)
		})
	}
}
