package host

import (
	"net"
	"net/netip"
	"strings"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// managementBridge is the name clients know the management network's bridge by.
const managementBridge = "xenbr0"

// untagged is how a PIF says that it is no VLAN.
const untagged = -1

// writeManagement keeps the rows of the interface the host is managed through,
// and of its network. While no interface is found the rows stay, unattached.
func writeManagement(w *writer, host api.HostRef, f *facts) {
	found := f.network.Interface
	var ref api.PIFRef
	var network api.NetworkRef
	var metrics api.PIFMetricsRef
	for r, p := range db.All[api.PIF](w.tx) {
		switch {
		case p.Host != host || !p.Physical:
		case found != "" && p.Device == found || found == "" && p.Management:
			ref, network, metrics = r, p.Network, p.Metrics
		case p.Management: // it was another one before
			upsert(w, r, api.NewPIF, func(p *api.PIF) { p.Management = false })
		}
	}
	if found == "" && ref.IsNull() {
		return
	}
	network = writeManagementNetwork(w, network, f)
	metrics = writePIFMetrics(w, metrics, f)
	upsert(w, ref, api.NewPIF, func(p *api.PIF) {
		if p.UUID == "" {
			p.UUID = api.NewUUID()
		}
		p.Host, p.Network, p.Metrics = host, network, metrics
		p.Physical, p.Managed, p.Management, p.VLAN = true, true, true, untagged
		describePIF(p, f)
	})
}

// describePIF fills in what hostd says of the interface.
func describePIF(p *api.PIF, f *facts) {
	n := f.network
	p.CurrentlyAttached = n.Interface != ""
	if n.Interface == "" {
		return
	}
	p.Device, p.MAC, p.MTU = n.Interface, n.MAC, 1500
	if nic, ok := f.nic(); ok {
		p.MAC = nic.MAC
		if nic.MTU > 0 {
			p.MTU = int64(nic.MTU)
		}
	}
	p.IPConfigurationMode = api.IPConfigurationModeDHCP
	if n.Mode == "static" {
		p.IPConfigurationMode = api.IPConfigurationModeStatic
	}
	p.PrimaryAddressType = api.PrimaryAddressTypeIPv4
	p.IP, p.Netmask = splitPrefix(n.Address)
	p.Gateway, p.DNS = n.Gateway, strings.Join(n.DNS, ",")
	p.Properties = map[string]string{"gro": "on"}
}

// splitPrefix gives address and netmask of 192.0.2.7/24.
func splitPrefix(cidr string) (address, mask string) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		return "", ""
	}
	return p.Addr().String(), net.IP(net.CIDRMask(p.Bits(), p.Addr().BitLen())).String()
}

// nic is the management interface's hardware.
func (f *facts) nic() (client.NIC, bool) {
	for _, n := range f.inventory.NICs {
		if n.Name == f.network.Interface {
			return n, true
		}
	}
	return client.NIC{}, false
}

// writeManagementNetwork keeps one row for the pool: hosts share it.
func writeManagementNetwork(w *writer, ref api.NetworkRef, f *facts) api.NetworkRef {
	if ref.IsNull() {
		for r, n := range db.All[api.Network](w.tx) {
			if n.Bridge == managementBridge {
				ref = r
			}
		}
	}
	return upsert(w, ref, api.NewNetwork, func(n *api.Network) {
		if n.UUID != "" {
			return // what a client made of it stays
		}
		n.UUID, n.Bridge, n.Managed, n.MTU = api.NewUUID(), managementBridge, true, 1500
		n.NameLabel = "Pool-wide network associated with " + f.network.Interface
	})
}

func writePIFMetrics(w *writer, ref api.PIFMetricsRef, f *facts) api.PIFMetricsRef {
	nic, _ := f.nic()
	return upsert(w, ref, api.NewPIFMetrics, func(r *api.PIFMetrics) {
		if r.UUID == "" {
			r.UUID = api.NewUUID()
		}
		if r.LastUpdated.IsZero() {
			r.LastUpdated = f.asked
		}
		r.Carrier = f.network.Link
		r.Speed, r.Duplex = int64(nic.SpeedMbps), nic.Duplex
		r.PCIBusPath, r.VendorID, r.DeviceID = nic.PCI, nic.Vendor, nic.Device
		r.VendorName, r.DeviceName = nic.Vendor, nic.Driver
	})
}

// managementInterface answers the PIF a host is managed through.
func (m *Manager) managementInterface(_ *api.Call, ref api.HostRef) (api.PIFRef, error) {
	snap := m.cfg.DB.Snapshot()
	h, err := db.Get(snap, ref)
	if err != nil {
		return "", err
	}
	for _, pif := range h.PIFs {
		if p, err := db.Get(snap, pif); err == nil && p.Management {
			return pif, nil
		}
	}
	return "", api.ErrHostHasNoManagementIP()
}
