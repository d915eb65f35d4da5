package hypervisor

import (
	"context"
	"net"
	"path/filepath"

	"libvirt.org/go/libvirtxml"
)

// AgentPort is the name by which an agent in the guest finds its port.
const AgentPort = "org.qemu.guest_agent.0"

// Names of the port to libvirt: with the guest's own name libvirt would connect to the
// socket itself, and QEMU serves one client.
const (
	agentChannel = "cairn.guest_agent.0"
	agentAlias   = userAlias + "agent"
)

// channels is the port of the guest's agent, on a socket made and labelled as the
// console's is.
func (c Config) channels(s Spec) []libvirtxml.DomainChannel {
	return []libvirtxml.DomainChannel{{
		Source: c.socket(c.agentPath(s.UUID)),
		Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: agentChannel}},
		Alias:  &libvirtxml.DomainAlias{Name: agentAlias},
	}}
}

// overrides give the port its name in the guest.
func overrides() *libvirtxml.DomainQEMUOverride {
	name := libvirtxml.DomainQEMUOverrideProperty{Name: "name", Type: "string", Value: AgentPort}
	return &libvirtxml.DomainQEMUOverride{Devices: []libvirtxml.DomainQEMUOverrideDevice{{
		Alias:    agentAlias,
		Frontend: libvirtxml.DomainQEMUOverrideFrontend{Properties: []libvirtxml.DomainQEMUOverrideProperty{name}},
	}}}
}

func (c Config) agentPath(uuid string) string { return filepath.Join(c.ConsoleDir, uuid+".qga") }

// DialAgent implements Hypervisor.
func (l *Libvirt) DialAgent(ctx context.Context, id string) (net.Conn, error) {
	return l.dialSocket(ctx, "agent", id, l.cfg.agentPath(id))
}

// SetAgent makes something in a fake guest serve its agent's port: what is dialled from
// now on, and what nobody has answered so far. Nil takes it away.
func (f *Fake) SetAgent(uuid string, serve func(port net.Conn)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.agents[uuid] = serve
	if d := f.domains[uuid]; d != nil && serve != nil {
		for _, port := range d.unserved {
			go serve(port)
		}
		d.unserved = nil
	}
}

// DialAgent implements Hypervisor. A fake guest without an agent reads nothing.
func (f *Fake) DialAgent(ctx context.Context, uuid string) (net.Conn, error) {
	var ours net.Conn
	err := f.on(ctx, "DialAgent", uuid, "", func(d *fakeDomain) {
		var theirs net.Conn
		ours, theirs = net.Pipe()
		d.viewers = append(d.viewers, theirs)
		if serve := f.agents[uuid]; serve != nil {
			go serve(theirs)
		} else {
			d.unserved = append(d.unserved, theirs)
		}
	})
	return ours, err
}

// Cut breaks whatever connections there are to a guest's sockets.
func (f *Fake) Cut(uuid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.domains[uuid]; d != nil {
		for _, c := range d.viewers {
			c.Close()
		}
		d.viewers = nil
	}
}
