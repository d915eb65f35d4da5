package vm_test

import (
	"context"
	"fmt"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
)

// A client's request may come before a new process has looked at the domains: what
// it began is not taken for a former process's, and a start waits until it is known
// who has the disks.
func TestRequestsBeforeTheFirstLook(t *testing.T) {
	s := newStack(t)
	deaf, other := s.makeVM("deaf"), s.makeVM("other")
	s.Must(nil, "VM.start", deaf, false, false)
	s.hv.IgnorePowerButton(s.uuid(deaf))
	s.stop()

	m, reg := vm.New(s.config), api.NewRegistry()
	m.Register(reg)
	must(t, m.Recover(s.ctx))
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	call := func(method, args string) <-chan error {
		info, ended := api.FindMessage(method), make(chan error, 1)
		values, err := api.ParseJSON([]byte(args))
		must(t, err)
		go func() {
			_, err := reg.Handler(info)(&api.Call{Context: ctx, Message: info, Task: noTask{}}, values.Items)
			ended <- err
		}()
		return ended
	}
	stopping := call("VM.clean_shutdown", fmt.Sprintf("[%q]", deaf))
	s.Until("it stops", func() bool { return len(s.record(deaf).CurrentOperations) == 1 })
	starting := call("VM.start", fmt.Sprintf("[%q, false, false]", other))

	s.run(m)
	must(t, <-starting)
	if _, runs := s.hv.Spec(s.uuid(other)); !runs || s.record(other).PowerState != api.VMPowerStateRunning {
		t.Errorf("runs %t: %s", runs, s.record(other).PowerState)
	}
	if len(s.record(deaf).CurrentOperations) != 1 {
		t.Error("an operation in progress was forgotten")
	}
	s.hv.End(s.uuid(deaf), hypervisor.ByGuest)
	must(t, <-stopping)
	s.state(deaf, halted)
}
