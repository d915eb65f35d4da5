package conformance

import (
	"cairn/toolstack/guest/qga"
	"cairn/toolstack/hypervisor"
)

// agent: the port is there before the guest runs, and what is asked then is answered
// once an agent is. It goes on while the hypervisor's own daemon is away, is one
// caller's after another's, and ends with the domain.
func (s *script) agent() {
	s.must(s.Hypervisor.Start(s.ctx, s.Spec, true))
	early := s.port()
	asked := make(chan error, 1)
	go func() { asked <- early.Sync(s.ctx) }()
	s.must(s.Hypervisor.Resume(s.ctx, s.id))
	if s.Answer != nil {
		s.Answer(s.id)
	}
	s.must(<-asked)
	info, err := early.Info(s.ctx)
	s.must(err)
	if info.Version != "10.0.0" || !info.Has("guest-fsfreeze-freeze") {
		s.Errorf("the agent says %+v", info)
	}
	s.Bounce(s.T)
	_, err = early.OS(s.ctx)
	s.must(err)
	s.must(early.Close())
	late := s.port()
	s.must(late.Sync(s.ctx))
	n, err := late.Freeze(s.ctx)
	s.must(err)
	frozen, err := late.Frozen(s.ctx)
	s.must(err)
	if n != 1 || !frozen {
		s.Errorf("froze %d, frozen %v", n, frozen)
	}
	_, err = late.Thaw(s.ctx)
	s.must(err)
	s.must(late.PowerOff(s.ctx))
	s.wait(hypervisor.Stopped, hypervisor.ByGuest)
	s.is(late.Sync(s.ctx), qga.ErrSilent, qga.ErrClosed)
	_, err = s.Hypervisor.DialAgent(s.ctx, s.id)
	s.is(err, hypervisor.ErrNotFound)
}

func (s *script) port() *qga.Client {
	s.Helper()
	port, err := s.Hypervisor.DialAgent(s.ctx, s.id)
	s.must(err)
	s.Cleanup(func() { _ = port.Close() })
	return qga.New(port)
}
