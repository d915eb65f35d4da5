package network

import (
	"context"
	"errors"
	"slices"
	"time"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// Reconcile makes a host's bridges and ports what the rows say, once those say
// which VMs run and their ports have been plugged again: bridges of NICs in use are
// made, and what nobody needs goes. NICs that are new get their rows.
func (m *Manager) Reconcile(ctx context.Context, host api.HostRef) error {
	hostd, err := m.at(host)
	if err != nil {
		return err
	}
	failed := []error{m.scan(ctx, host)}
	snap := m.db.Snapshot()
	for ref, p := range db.All[api.PIF](snap) {
		if p.Host == host && p.CurrentlyAttached && p.Physical && p.Managed && !p.Management {
			if err := m.attach(ctx, host, p.Network); err != nil {
				m.log.Warn("pif-not-plugged", "pif", ref, "device", p.Device, "err", err)
			}
		}
	}
	return errors.Join(append(failed, m.sweepPorts(ctx, hostd, host), m.sweepBridges(ctx, hostd))...)
}

// sweepPorts forgets the ports of interfaces that are neither there nor about to be.
func (m *Manager) sweepPorts(ctx context.Context, hostd Hostd, host api.HostRef) error {
	ports, err := hostd.Ports(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, p := range ports {
		failed = append(failed, m.sweepPort(ctx, hostd, p.Interface))
	}
	return errors.Join(failed...)
}

func (m *Manager) sweepPort(ctx context.Context, hostd Hostd, tap string) error {
	release, err := m.ports.Hold(ctx, tap)
	if err != nil {
		return err
	}
	defer release()
	snap := m.db.Snapshot()
	for ref, v := range db.All[api.VIF](snap) {
		if hypervisor.TapName(v.UUID) != tap {
			continue
		}
		if _, plugged := m.where(ref); plugged || v.CurrentlyAttached || busy(snap, v) {
			return nil
		}
	}
	bridges, err := hostd.Bridges(ctx)
	if err != nil || slices.ContainsFunc(bridges, func(b client.Bridge) bool { return slices.Contains(b.Ports, tap) }) {
		return err // an interface that is there keeps its rules
	}
	m.log.Info("port-removed", "if", tap)
	return hostd.DeletePort(ctx, tap)
}

// busy: a VIF or its VM is being changed, and its port may be wanted in a moment.
func busy(r db.Reader, v *api.VIF) bool {
	vm, err := db.Get(r, v.VM)
	return len(v.CurrentOperations) > 0 || err == nil && len(vm.CurrentOperations) > 0
}

// sweepBridges removes the bridges of networks that are no more.
func (m *Manager) sweepBridges(ctx context.Context, hostd Hostd) error {
	all, err := hostd.Bridges(ctx)
	if err != nil {
		return err
	}
	taken := bridges(m.db.Snapshot())
	var failed []error
	for _, b := range all {
		if !taken[b.Name] && !b.Management && len(b.Ports) == 0 {
			m.log.Info("bridge-removed", "bridge", b.Name)
			failed = append(failed, hostd.DeleteBridge(ctx, b.Name))
		}
	}
	return errors.Join(failed...)
}

// retryAfter is how soon a host that could not be asked is asked again.
const retryAfter = 5 * time.Second

// Run reconciles a host once ready is closed, which says that the rows tell which
// VMs run.
func (m *Manager) Run(ctx context.Context, ready <-chan struct{}, host api.HostRef) error {
	for wait := ready; ; {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil
		}
		err := m.Reconcile(ctx, host)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		m.log.Warn("networks-not-reconciled", "err", err)
		again := make(chan struct{})
		time.AfterFunc(retryAfter, func() { close(again) })
		wait = again
	}
}
