package network_test

import (
	"errors"
	"testing"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/wire/wiretest"
)

// host is a host with two NICs, managed through the first.
func (s stack) host(t *testing.T) api.HostRef {
	t.Helper()
	host := wiretest.Insert(s.Server, api.NewHost())
	n := api.NewNetwork()
	n.Bridge, n.Managed, n.MTU = "xenbr0", true, 1500
	p := api.NewPIF()
	p.Host, p.Device, p.MAC, p.Physical, p.Management, p.Managed, p.CurrentlyAttached = host, "eth0", "52:54:00:00:00:01", true, true, true, true
	p.Network = wiretest.Insert(s.Server, n)
	wiretest.Insert(s.Server, p)
	return host
}

func (s stack) pif(device string) (api.PIFRef, *api.PIF) {
	for ref, p := range db.All[api.PIF](s.DB.Snapshot()) {
		if p.Device == device {
			return ref, p
		}
	}
	return "", nil
}

func twoMore(h *hosttest.Hostd) {
	h.Hardware.NICs = append(h.Hardware.NICs,
		client.NIC{Name: "eth2", MAC: "52:54:00:00:00:03", PCI: "0000:00:05.0", Link: true, SpeedMbps: 1000, MTU: 1500},
		client.NIC{Name: "eth1", MAC: "52:54:00:00:00:02", PCI: "0000:00:04.0", Driver: "e1000e"})
}

func TestScan(t *testing.T) {
	s := newStack(t)
	host := s.host(t)
	s.hostd.Set(twoMore)
	for range 2 {
		s.Must(nil, "PIF.scan", host)
	}
	snap := s.DB.Snapshot()
	count := 0
	for range db.All[api.PIF](snap) {
		count++
	}
	_, p := s.pif("eth2")
	if count != 3 || p == nil || p.MAC != "52:54:00:00:00:03" || !p.Physical || !p.Managed || p.Management || p.CurrentlyAttached || p.VLAN != -1 || p.Host != host {
		t.Errorf("%d PIFs, %+v", count, p)
	}
	if m := wiretest.Get(s.Server, p.Metrics); !m.Carrier || m.Speed != 1000 || m.PCIBusPath != "0000:00:05.0" {
		t.Errorf("metrics %+v", m)
	}
	if n := wiretest.Get(s.Server, p.Network); n.Bridge != "xenbr2" || n.NameLabel != "Pool-wide network associated with eth2" || !n.Managed {
		t.Errorf("network %+v", n)
	}
	s.Refused(api.ErrHandleInvalid("host", "OpaqueRef:none"), "PIF.scan", "OpaqueRef:none")
	s.Covers("PIF.scan")
}

func TestIntroduceAndForget(t *testing.T) {
	s := newStack(t)
	host := s.host(t)
	s.hostd.Set(twoMore)
	var one, two api.PIFRef
	s.Must(&one, "PIF.introduce", host, "52:54:00:00:00:02", "", true)
	s.Must(&two, "PIF.introduce", host, "", "eth2", true)
	if p := wiretest.Get(s.Server, one); p.Device != "eth1" {
		t.Errorf("%+v", p)
	}
	if p := wiretest.Get(s.Server, two); p.MAC != "52:54:00:00:00:03" {
		t.Errorf("%+v", p)
	}
	s.Refused(api.ErrDuplicatePIFDeviceName("eth1"), "PIF.introduce", host, "", "eth1", true)
	s.Refused(api.ErrMACInvalid("52:54"), "PIF.introduce", host, "52:54", "eth1", true)
	s.Refused(api.ErrMACDoesNotExist("52:54:00:00:00:09"), "PIF.introduce", host, "52:54:00:00:00:09", "", true)
	s.Refused(api.ErrPIFDeviceNotFound(), "PIF.introduce", host, "", "eth9", true)

	s.Must(nil, "PIF.plug", one)
	metrics := wiretest.Get(s.Server, one).Metrics
	s.Must(nil, "PIF.forget", one)
	if _, err := db.Get(s.DB.Snapshot(), one); err == nil || len(s.bridges(t)) != 0 {
		t.Errorf("left: %v, %v", err, s.bridges(t))
	}
	if _, err := db.Get(s.DB.Snapshot(), metrics); err == nil {
		t.Error("its metrics are left")
	}
	management, _ := s.pif("eth0")
	s.Refused(api.ErrPIFIsManagementInterface(management.String()), "PIF.forget", management)
	vlan := wiretest.Insert(s.Server, api.NewPIF())
	s.Refused(api.ErrPIFIsNotPhysical(vlan.String()), "PIF.forget", vlan)
	s.Covers("PIF.introduce", "PIF.forget")
}

func TestPlugPIF(t *testing.T) {
	s := newStack(t)
	host := s.host(t)
	s.hostd.Set(twoMore)
	s.Must(nil, "PIF.scan", host)
	ref, _ := s.pif("eth1")
	for range 2 {
		s.Must(nil, "PIF.plug", ref)
	}
	if b := s.bridges(t)["xenbr1"]; b.Uplink != "eth1" || b.MTU != 1500 || !wiretest.Get(s.Server, ref).CurrentlyAttached {
		t.Errorf("bridge %+v", b)
	}
	// A guest is on the network.
	vm, v := api.NewVM(), api.NewVIF()
	vm.ResidentOn = host
	v.VM, v.Network, v.CurrentlyAttached = wiretest.Insert(s.Server, vm), wiretest.Get(s.Server, ref).Network, true
	vif := wiretest.Insert(s.Server, v)
	s.Refused(api.ErrVIFInUse(v.Network.String(), vif.String()), "PIF.unplug", ref)
	change(t, s, vif, func(v *api.VIF) { v.CurrentlyAttached = false })
	s.Must(nil, "PIF.set_disallow_unplug", ref, true)
	s.Refused(api.ErrPIFDoesNotAllowUnplug(ref.String()), "PIF.unplug", ref)
	s.Must(nil, "PIF.set_disallow_unplug", ref, false)
	s.hostd.Set(func(h *hosttest.Hostd) { h.Err = errors.New("hostd: timeout") })
	if _, err := s.Call("PIF.unplug", ref); err == nil || !wiretest.Get(s.Server, ref).CurrentlyAttached {
		t.Errorf("hostd fails: %v", err)
	}
	s.hostd.Set(func(h *hosttest.Hostd) { h.Err = nil })
	for range 2 {
		s.Must(nil, "PIF.unplug", ref)
	}
	if len(s.bridges(t)) != 0 || wiretest.Get(s.Server, ref).CurrentlyAttached {
		t.Errorf("bridges %v", s.bridges(t))
	}
	management, _ := s.pif("eth0")
	s.Must(nil, "PIF.plug", management)
	s.Refused(api.ErrPIFIsManagementInterface(management.String()), "PIF.unplug", management)
	// The guest's start brings the bridge up by itself.
	if _, err := s.net.Plug(t.Context(), host, vif); err != nil {
		t.Fatal(err)
	}
	if b := s.bridges(t)["xenbr1"]; b.Uplink != "eth1" || !wiretest.Get(s.Server, ref).CurrentlyAttached {
		t.Errorf("bridge %+v", b)
	}
	s.Covers("PIF.plug", "PIF.unplug")
}

// TestManagementElsewhere: hostd has moved to another NIC. Its bridge keeps the
// name; the networks of the rows are joined to the right wires, or not at all.
func TestManagementElsewhere(t *testing.T) {
	s := newStack(t)
	host := s.host(t)
	s.hostd.Set(twoMore)
	s.Must(nil, "PIF.scan", host)
	zero, p0 := s.pif("eth0")
	one, p1 := s.pif("eth1")
	change(t, s, zero, func(p *api.PIF) { p.Management = false })
	change(t, s, one, func(p *api.PIF) { p.Management, p.CurrentlyAttached = true, true })
	v := api.NewVIF()
	v.UUID, v.Network = api.NewUUID(), p1.Network
	vif := wiretest.Insert(s.Server, v)
	nic, err := s.net.Plug(t.Context(), host, vif)
	if err != nil || nic.Bridge != "xenbr0" {
		t.Errorf("%+v %v", nic, err)
	}
	change(t, s, vif, func(v *api.VIF) { v.Network = p0.Network })
	if _, err := s.net.Plug(t.Context(), host, vif); err == nil || err.Error() != api.ErrBridgeNotAvailable("xenbr0").Error() {
		t.Errorf("the network of a NIC without a bridge: %v", err)
	}
}
