package network

import (
	"context"
	"fmt"
	"strconv"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// Plug makes ready on a host what a VIF needs: its network's bridge, and the rules
// for its port. The interface itself is the hypervisor's to make, from the answer.
// It is idempotent.
func (m *Manager) Plug(ctx context.Context, host api.HostRef, vif api.VIFRef) (hypervisor.NIC, error) {
	v, err := db.Get(m.db.Snapshot(), vif)
	if err != nil {
		return hypervisor.NIC{}, err
	}
	if err := m.attach(ctx, host, v.Network); err != nil {
		return hypervisor.NIC{}, err
	}
	release, err := m.ports.Hold(ctx, hypervisor.TapName(v.UUID))
	if err != nil {
		return hypervisor.NIC{}, err
	}
	defer release()
	m.mu.Lock()
	m.plugged[vif] = host
	m.mu.Unlock()
	port, err := m.put(ctx, host, vif)
	if err != nil {
		return hypervisor.NIC{}, err
	}
	return hypervisor.NIC{ID: v.UUID, MAC: port.MAC, Bridge: port.Bridge, Tap: port.Interface, MTU: port.MTU}, nil
}

// put tells a host what a port is by the rows of this moment.
func (m *Manager) put(ctx context.Context, host api.HostRef, vif api.VIFRef) (client.Port, error) {
	hostd, err := m.at(host)
	if err != nil {
		return client.Port{}, err
	}
	snap := m.db.Snapshot()
	v, err := db.Get(snap, vif)
	if err != nil {
		return client.Port{}, err
	}
	n, err := db.Get(snap, v.Network)
	if err != nil {
		return client.Port{}, err
	}
	port := portOf(v, n)
	port.Bridge = bridgeOf(snap, host, n).Name
	if err := hostd.PutPort(ctx, port); err != nil {
		return client.Port{}, fmt.Errorf("port of VIF %s: %w", v.UUID, err)
	}
	return port, nil
}

// refresh tells the host a VIF is plugged on, if it is, what has changed.
func (m *Manager) refresh(ctx context.Context, vif api.VIFRef) error {
	if _, ok := m.where(vif); !ok {
		return nil
	}
	v, err := db.Get(m.db.Snapshot(), vif)
	if err != nil {
		return err
	}
	release, err := m.ports.Hold(ctx, hypervisor.TapName(v.UUID))
	if err != nil {
		return err
	}
	defer release()
	host, ok := m.where(vif)
	if !ok {
		return nil // unplugged meanwhile
	}
	_, err = m.put(ctx, host, vif)
	return err
}

// Unplug forgets what Plug made ready, once the interface is gone. The bridge
// stays: it costs nothing. It is idempotent.
func (m *Manager) Unplug(ctx context.Context, host api.HostRef, vif api.VIFRef) error {
	v, err := db.Get(m.db.Snapshot(), vif)
	if err != nil {
		return err
	}
	hostd, err := m.at(host)
	if err != nil {
		return err
	}
	release, err := m.ports.Hold(ctx, hypervisor.TapName(v.UUID))
	if err != nil {
		return err
	}
	defer release()
	if err := hostd.DeletePort(ctx, hypervisor.TapName(v.UUID)); err != nil {
		return fmt.Errorf("port of VIF %s: %w", v.UUID, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.plugged, vif)
	return nil
}

// portOf is what a VIF's port should be by its row and its network's.
func portOf(v *api.VIF, n *api.Network) client.Port {
	p := client.Port{
		Interface: hypervisor.TapName(v.UUID), Bridge: n.Bridge, MAC: v.MAC, Mode: client.PortMode(v.LockingMode),
		RateKBps: rateOf(v), MTU: int(v.MTU),
	}
	if v.LockingMode == api.VIFLockingModeNetworkDefault {
		p.Mode = client.PortMode(n.DefaultLockingMode)
	}
	if p.Mode == client.Locked {
		p.IPv4, p.IPv6 = v.IPv4Allowed, v.IPv6Allowed
	}
	if p.MTU <= 0 {
		p.MTU = int(n.MTU)
	}
	return p
}

// Quality of service: the one algorithm there is, and its parameter, in kilobytes
// a second.
const (
	rateLimit = "ratelimit"
	rateKey   = "kbps"
	// maxRate is what hostd takes, a terabyte a second.
	maxRate = 1 << 30
)

// rateOf is a VIF's limit, 0 for none. What is no number limits nothing, as it
// always has been, and what is more than maxRate counts as that.
func rateOf(v *api.VIF) int64 {
	if v.QosAlgorithmType != rateLimit {
		return 0
	}
	kbps, err := strconv.ParseInt(v.QosAlgorithmParams[rateKey], 10, 64)
	if err != nil || kbps < 0 {
		return 0
	}
	return min(kbps, maxRate)
}
