package network_test

import (
	"context"
	"testing"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/network"
	"cairn/toolstack/wire/wiretest"
)

// slow answers for one port only when it is let go.
type slow struct {
	*hosttest.Hostd
	port       string
	asked, let chan struct{}
}

func (s *slow) PutPort(ctx context.Context, p client.Port) error {
	if p.Interface == s.port {
		close(s.asked)
		<-s.let
	}
	return s.Hostd.PutPort(ctx, p)
}

// TestPortsDoNotWait: a port that hostd takes its time for keeps no other waiting.
func TestPortsDoNotWait(t *testing.T) {
	hostd := &slow{Hostd: hosttest.New(), asked: make(chan struct{}), let: make(chan struct{})}
	s := stack{hostd: hostd.Hostd}
	s.Server = wiretest.New(t, func(r *api.Registry, d *db.DB) {
		s.net = network.New(network.Config{DB: d, Hostd: func(api.HostRef) network.Hostd { return hostd }})
		s.net.Register(r)
	})
	host, n, quick := s.plugged(t)
	v := api.NewVIF()
	v.UUID, v.MAC, v.Network = api.NewUUID(), "02:00:00:00:00:02", n
	late := wiretest.Insert(s.Server, v)
	hostd.port = hypervisor.TapName(v.UUID)
	done := make(chan error)
	go func() {
		_, err := s.net.Plug(t.Context(), host, late)
		done <- err
	}()
	<-hostd.asked
	s.Must(nil, "VIF.set_locking_mode", quick, "locked")
	if p, _ := s.port(t, quick); p.Mode != client.Locked {
		t.Errorf("port %+v", p)
	}
	if err := s.net.Unplug(t.Context(), host, quick); err != nil {
		t.Error(err)
	}
	close(hostd.let)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
