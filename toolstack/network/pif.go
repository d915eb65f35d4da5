package network

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"strings"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// untagged is how a PIF says that it is no VLAN.
const untagged = -1

// registerPIF binds what physical interfaces there are, and their bridges.
func (m *Manager) registerPIF(r *api.Registry) {
	api.HandlePIFSetDisallowUnplug(r, func(c *api.Call, ref api.PIFRef, value bool) error {
		return db.Modify(c, m.db, ref, func(_ *db.Tx, p *api.PIF) error {
			p.DisallowUnplug = value
			return nil
		})
	})
	api.HandlePIFScan(r, func(c *api.Call, host api.HostRef) error { return m.scan(c, host) })
	api.HandlePIFIntroduce(r, m.introduce)
	api.HandlePIFForget(r, m.forget)
	api.HandlePIFPlug(r, m.plugPIF)
	api.HandlePIFUnplug(r, m.unplugPIF)
}

// nics asks a host for its NICs, in the order of their places on the bus.
func (m *Manager) nics(ctx context.Context, host api.HostRef) ([]client.NIC, error) {
	if _, err := db.Get(m.db.Snapshot(), host); err != nil {
		return nil, err
	}
	hostd, err := m.at(host)
	if err != nil {
		return nil, err
	}
	inventory, err := hostd.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	return slices.SortedStableFunc(slices.Values(inventory.NICs), func(a, b client.NIC) int { return cmp.Compare(a.PCI, b.PCI) }), nil
}

// scan makes rows for the NICs of a host that have none. What is there stays, also
// the row of a NIC that is gone: it may come back.
func (m *Manager) scan(ctx context.Context, host api.HostRef) error {
	nics, err := m.nics(ctx, host)
	if err != nil {
		return err
	}
	return m.db.Update(ctx, func(tx *db.Tx) error {
		for _, nic := range nics {
			if known(tx, host, nic).IsNull() {
				insertPIF(tx, host, nic, true)
			}
		}
		return nil
	})
}

// known is the row of a NIC, if there is one.
func known(r db.Reader, host api.HostRef, nic client.NIC) api.PIFRef {
	for ref, p := range db.All[api.PIF](r) {
		if p.Host == host && p.Physical && (p.Device == nic.Name || strings.EqualFold(p.MAC, nic.MAC)) {
			return ref
		}
	}
	return ""
}

func insertPIF(tx *db.Tx, host api.HostRef, nic client.NIC, managed bool) api.PIFRef {
	metrics := api.NewPIFMetrics()
	metrics.UUID, metrics.Carrier, metrics.Speed, metrics.Duplex = api.NewUUID(), nic.Link, int64(nic.SpeedMbps), nic.Duplex
	metrics.PCIBusPath, metrics.VendorID, metrics.DeviceID = nic.PCI, nic.Vendor, nic.Device
	metrics.VendorName, metrics.DeviceName = nic.Vendor, nic.Driver
	p := api.NewPIF()
	p.UUID, p.Host, p.Device, p.MAC, p.VLAN = api.NewUUID(), host, nic.Name, nic.MAC, untagged
	p.Metrics, p.Network = db.Insert(tx, metrics), networkFor(tx, host, nic)
	p.Physical, p.Managed, p.CurrentlyAttached, p.MTU = true, managed, false, 1500
	if nic.MTU > 0 {
		p.MTU = int64(nic.MTU)
	}
	p.IPConfigurationMode, p.PrimaryAddressType = api.IPConfigurationModeNone, api.PrimaryAddressTypeIPv4
	p.Properties = map[string]string{"gro": "on"}
	return db.Insert(tx, p)
}

// networkFor is the network of a NIC: hosts of a pool are wired alike, so that of
// the NIC of the same name on another host, or a new one.
func networkFor(tx *db.Tx, host api.HostRef, nic client.NIC) api.NetworkRef {
	for _, p := range db.All[api.PIF](tx) {
		if p.Physical && p.Host != host && p.Device == nic.Name {
			return p.Network
		}
	}
	taken := bridges(tx)
	n := api.NewNetwork()
	n.UUID, n.Managed, n.MTU = api.NewUUID(), true, 1500
	n.NameLabel = "Pool-wide network associated with " + nic.Name
	n.Bridge = "xenbr" + strings.TrimPrefix(nic.Name, "eth")
	if _, err := strconv.Atoi(strings.TrimPrefix(nic.Name, "eth")); err != nil || taken[n.Bridge] {
		n.Bridge = free("xenbr", 1, taken)
	}
	return db.Insert(tx, n)
}

// introduce makes the row of one NIC, named by its device or its MAC.
func (m *Manager) introduce(c *api.Call, host api.HostRef, mac, device string, managed bool) (api.PIFRef, error) {
	if mac != "" {
		if hw, err := net.ParseMAC(mac); err != nil || len(hw) != 6 {
			return "", api.ErrMACInvalid(mac)
		}
	}
	nics, err := m.nics(c, host)
	if err != nil {
		return "", err
	}
	at := slices.IndexFunc(nics, func(n client.NIC) bool {
		return strings.EqualFold(n.MAC, mac) || mac == "" && n.Name == device
	})
	if at < 0 && mac != "" {
		return "", api.ErrMACDoesNotExist(mac)
	} else if at < 0 {
		return "", api.ErrPIFDeviceNotFound()
	}
	var ref api.PIFRef
	err = m.db.Update(c, func(tx *db.Tx) error {
		if !known(tx, host, nics[at]).IsNull() {
			return api.ErrDuplicatePIFDeviceName(nics[at].Name)
		}
		ref = insertPIF(tx, host, nics[at], managed)
		return nil
	})
	return ref, err
}

// idle asks that a NIC may be taken from its network: nothing else needs it.
func idle(r db.Reader, ref api.PIFRef, p *api.PIF) error {
	switch {
	case !p.BondSlaveOf.IsNull():
		return api.ErrPIFAlreadyBonded(ref.String())
	case len(p.VLANSlaveOf) > 0:
		return api.ErrPIFVLANStillExists(ref.String())
	case len(p.TunnelTransportPIFOf) > 0:
		return api.ErrPIFTunnelStillExists(ref.String())
	case p.Management:
		return api.ErrPIFIsManagementInterface(ref.String())
	}
	n, err := db.Get(r, p.Network)
	if err != nil {
		return nil
	}
	for _, vif := range n.VIFs {
		v, err := db.Get(r, vif)
		if err != nil || !v.CurrentlyAttached {
			continue
		}
		if vm, err := db.Get(r, v.VM); err == nil && vm.ResidentOn == p.Host {
			return api.ErrVIFInUse(p.Network.String(), vif.String())
		}
	}
	return nil
}

// forget removes a NIC's row, and its bridge. The network stays: guests may be
// joined to it on this host, without the NIC, or on others.
func (m *Manager) forget(c *api.Call, ref api.PIFRef) error {
	var p *api.PIF
	err := m.db.Update(c, func(tx *db.Tx) (err error) {
		if p, err = db.Get(tx, ref); err != nil {
			return err
		}
		if !p.Physical {
			return api.ErrPIFIsNotPhysical(ref.String())
		}
		if err := idle(tx, ref, p); err != nil {
			return err
		}
		if _, err := db.Get(tx, p.Metrics); err == nil {
			if err := db.Delete(tx, p.Metrics); err != nil {
				return err
			}
		}
		return db.Delete(tx, ref)
	})
	if err != nil {
		return err
	}
	if err := m.detach(c, p); err != nil {
		m.log.Warn("bridge-left", "device", p.Device, "err", err)
	}
	return nil
}

// detach removes the bridge over a NIC.
func (m *Manager) detach(ctx context.Context, p *api.PIF) error {
	hostd, err := m.at(p.Host)
	if err != nil {
		return err
	}
	n, err := db.Get(m.db.Snapshot(), p.Network)
	if err != nil || !n.Managed {
		return nil // nothing to remove
	}
	if err := hostd.DeleteBridge(ctx, n.Bridge); err != nil {
		return bridgeError(p.Host, n, p.Network, err)
	}
	return nil
}

func (m *Manager) plugPIF(c *api.Call, ref api.PIFRef) error {
	p, err := db.Get(m.db.Snapshot(), ref)
	switch {
	case err != nil:
		return err
	case !p.BondSlaveOf.IsNull():
		return api.ErrCannotPlugBondSlave(ref.String())
	case !p.Managed:
		return api.ErrPIFUnmanaged(ref.String())
	case p.CurrentlyAttached && p.Management:
		return nil
	}
	return m.attach(c, p.Host, p.Network)
}

// unplugPIF takes the bridge away first: a row that says more than there is costs
// a plug, one that says less costs guests their wire.
func (m *Manager) unplugPIF(c *api.Call, ref api.PIFRef) error {
	snap := m.db.Snapshot()
	p, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	if !p.Managed {
		return api.ErrPIFUnmanaged(ref.String())
	}
	if err := idle(snap, ref, p); err != nil {
		return err
	}
	if p.DisallowUnplug {
		return api.ErrPIFDoesNotAllowUnplug(ref.String())
	}
	if err := m.detach(c, p); err != nil {
		return err
	}
	return db.Modify(c, m.db, ref, func(_ *db.Tx, p *api.PIF) error {
		p.CurrentlyAttached = false
		return nil
	})
}
