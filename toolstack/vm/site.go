package vm

import (
	"context"
	"fmt"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/memory"
)

// Site is a host as far as its VMs are concerned. A Manager speaks for its own
// host; one of a simulated pool speaks for all of them.
type Site struct {
	Host       Host
	Hypervisor hypervisor.Hypervisor
}

func (s *Site) ref() api.HostRef { return s.Host.Ref() }

// sitesOf lists the hosts of a configuration, its own first.
func sitesOf(cfg Config) []*Site {
	sites := []*Site{{Host: cfg.Host, Hypervisor: cfg.Hypervisor}}
	for i := range cfg.Others {
		sites = append(sites, &cfg.Others[i])
	}
	return sites
}

// site finds a host this Manager speaks for; nil for any other.
func (m *Manager) site(ref api.HostRef) *Site {
	for _, s := range m.sites {
		if s.ref() == ref {
			return s
		}
	}
	return nil
}

// siteOf is where a VM runs or is about to. One that runs nowhere counts to this
// host, whose hypervisor knows no domain of it.
func (m *Manager) siteOf(vm *api.VM) *Site {
	for _, ref := range []api.HostRef{vm.ResidentOn, vm.ScheduledToBeResidentOn} {
		if s := m.site(ref); s != nil && !ref.IsNull() {
			return s
		}
	}
	return m.sites[0]
}

// reachable lists the hosts a VM may be placed on: the wanted one, or with none
// wanted all of them.
func (m *Manager) reachable(want api.HostRef) ([]*Site, error) {
	if want.IsNull() {
		return m.sites, nil
	}
	s := m.site(want)
	if s == nil {
		return nil, api.ErrHostOffline(want.String())
	}
	return []*Site{s}, nil
}

// awaitKinds returns once it is certain how guests are executed.
func awaitKinds(ctx context.Context, sites []*Site) error {
	for _, s := range sites {
		if err := s.Host.AwaitKind(ctx); err != nil {
			return err
		}
	}
	return nil
}

// capable leaves the hosts that can execute guests at all.
func capable(sites []*Site) []*Site {
	var able []*Site
	for _, s := range sites {
		if _, ok := s.Host.Kind(); ok {
			able = append(able, s)
		}
	}
	return able
}

// place chooses the host of a start in the caller's transaction, so that two
// starts at once cannot both get the last of its memory: the VM's affinity where
// it fits, else the enabled host with most memory free, else the one where other
// guests can make room.
func (m *Manager) place(r db.Reader, sites []*Site, ref api.VMRef, vm *api.VM, op api.VMOperations) (*Site, error) {
	rooms := m.cfg.Memory.Rooms(r, ref)
	need, best := memory.Footprint(vm), (*Site)(nil)
	why := error(api.ErrNoHostsAvailable())
	for _, s := range sites {
		host, err := db.Get(r, s.ref())
		if err != nil {
			return nil, err
		}
		switch {
		case !host.Enabled && op == api.VMOperationsStartOn:
			return nil, api.ErrHostDisabled(s.ref().String())
		case !host.Enabled:
			continue
		}
		if err := m.cfg.Devices.Check(r, s.ref(), ref); err != nil {
			why = err
			continue
		}
		switch {
		case s.ref() == vm.Affinity && need <= rooms[s.ref()].Free:
			return s, nil
		case best == nil || rooms[s.ref()].Better(rooms[best.ref()], need):
			best = s
		}
	}
	if best == nil {
		return nil, why
	}
	if left := rooms[best.ref()].Most; need > left {
		return nil, memory.NotEnough(need, left)
	}
	return best, nil
}

// located is a domain and where it was found.
type located struct {
	hypervisor.Domain
	site *Site
}

// domains lists what runs on all hosts, by the VM's uuid.
func (m *Manager) domains(ctx context.Context) (map[string]located, error) {
	all := map[string]located{}
	for _, s := range m.sites {
		list, err := s.Hypervisor.List(ctx)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", s.ref(), err)
		}
		for _, d := range list {
			all[d.UUID] = located{d, s}
		}
	}
	return all, nil
}

// subscribe joins the events of all hosts. The channel closes when a hypervisor
// has gone for good, and after cancel.
func (m *Manager) subscribe() (<-chan hypervisor.Event, func()) {
	if len(m.sites) == 1 {
		return m.sites[0].Hypervisor.Subscribe()
	}
	joined, stop := make(chan hypervisor.Event, len(m.sites)), make(chan struct{})
	gone := make(chan struct{}, len(m.sites))
	var cancels []func()
	for _, s := range m.sites {
		events, cancel := s.Hypervisor.Subscribe()
		cancels = append(cancels, cancel)
		go func() {
			for e := range events {
				select {
				case joined <- e:
				case <-stop:
				}
			}
			gone <- struct{}{}
		}()
	}
	go func() {
		<-gone
		for range len(m.sites) - 1 {
			<-gone
		}
		close(joined)
	}()
	return joined, func() {
		close(stop)
		for _, cancel := range cancels {
			cancel()
		}
	}
}
