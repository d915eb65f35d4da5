package vm_test

import (
	"context"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/memory"
	"cairn/toolstack/vm"
)

// lagging is a hypervisor whose answer to the power button comes when it is let go, and
// then says that the domain has ended.
type lagging struct {
	hypervisor.Hypervisor
	asked, answer chan struct{}
}

func (l lagging) Shutdown(context.Context, string) error {
	close(l.asked)
	<-l.answer
	return hypervisor.ErrNotFound
}

// claims has a test do something before the first claim that comes after it is armed.
type claims struct {
	vm.Memory
	before func()
}

func (c *claims) Claim(ctx context.Context, host api.HostRef, ref api.VMRef) error {
	if before := c.before; before != nil {
		c.before = nil
		before()
	}
	return c.Memory.Claim(ctx, host, ref)
}

// TestHardRebootOvertakes: what a hard reboot interrupts may hear of that late, when the
// reboot is in its second half, or over. It then leaves the machine to the reboot.
func TestHardRebootOvertakes(t *testing.T) {
	for _, method := range []string{"VM.clean_shutdown", "VM.shutdown", "VM.clean_reboot"} {
		t.Run(method+" in its second half", func(t *testing.T) { overtake(t, method, false) })
		t.Run(method+" when it is over", func(t *testing.T) { overtake(t, method, true) })
	}
}

func overtake(t *testing.T, method string, over bool) {
	slow := lagging{asked: make(chan struct{}), answer: make(chan struct{})}
	gate := &claims{}
	s := newStackEdit(t, func(c *vm.Config) {
		gate.Memory = memory.New(memory.Config{DB: c.DB, Sites: []memory.Site{{Host: c.Host, Balloons: c.Hypervisor}}})
		slow.Hypervisor = c.Hypervisor
		c.Memory, c.Hypervisor = gate, slow
	})
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, false, false)
	var task string
	s.Must(&task, "Async."+method, ref)
	<-slow.asked
	late := func() {
		close(slow.answer)
		s.Until("the late one has ended", func() bool { return s.record(ref).CurrentOperations[task] == "" })
	}
	if !over {
		gate.before = late
	}
	s.Must(nil, "VM.hard_reboot", ref)
	if over {
		late()
	}
	r := s.record(ref)
	if r.PowerState != api.VMPowerStateRunning || r.ResidentOn != s.host.ref || len(r.CurrentOperations) != 0 || len(r.Consoles) == 0 {
		t.Errorf("the machine is %s on %q with consoles %v, doing %v", r.PowerState, r.ResidentOn, r.Consoles, r.CurrentOperations)
	}
	if _, runs := s.hv.Spec(s.uuid(ref)); !runs {
		t.Error("no domain runs")
	}
}
