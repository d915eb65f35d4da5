package host_test

import (
	"testing"

	"cairn/init/config"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/wire/wiretest"
)

// TestReconfigureIP gives the management interface a fixed address and a lease
// again.
func TestReconfigureIP(t *testing.T) {
	s := newStack(t, func(h *hosttest.Hostd) { h.Document.Management.Interface = "eth0" })
	var pif api.PIFRef
	for ref := range db.All[api.PIF](s.DB.Snapshot()) {
		pif = ref
	}
	document := func() (m config.Management) {
		s.hostd.Set(func(h *hosttest.Hostd) { m = h.Document.Management })
		return m
	}
	s.Must(nil, "PIF.reconfigure_ip", pif, "Static", "198.51.100.7", "255.255.255.0", "198.51.100.1", "198.51.100.53,198.51.100.54")
	d := document()
	if d.Mode != config.ModeStatic || d.Address.String() != "198.51.100.7/24" || d.Gateway.String() != "198.51.100.1" || len(d.DNS) != 2 || d.Interface != "eth0" {
		t.Errorf("document %+v", d)
	}
	if p := wiretest.Get(s.Server, pif); p.IP != "198.51.100.7" || p.Netmask != "255.255.255.0" || p.IPConfigurationMode != api.IPConfigurationModeStatic {
		t.Errorf("PIF %+v", p)
	}
	if s.row().Address != "198.51.100.7" {
		t.Errorf("host at %s", s.row().Address)
	}
	for _, c := range []struct {
		args []any
		want *api.Error
	}{
		{[]any{"Static", "198.51.100.300", "255.255.255.0", "", ""}, api.ErrInvalidIPAddressSpecified("IP")},
		{[]any{"Static", "198.51.100.7", "255.0.255.0", "", ""}, api.ErrInvalidIPAddressSpecified("netmask")},
		{[]any{"Static", "198.51.100.7", "24", "", ""}, api.ErrInvalidIPAddressSpecified("netmask")},
		{[]any{"Static", "198.51.100.7", "255.255.255.0", "gw", ""}, api.ErrInvalidIPAddressSpecified("gateway")},
		{[]any{"Static", "198.51.100.7", "255.255.255.0", "", "1.2.3"}, api.ErrInvalidIPAddressSpecified("DNS")},
		{[]any{"None", "", "", "", ""}, api.ErrPIFIsManagementInterface(pif.String())},
	} {
		s.Refused(c.want, "PIF.reconfigure_ip", append([]any{pif}, c.args...)...)
	}
	if _, err := s.Call("PIF.reconfigure_ip", pif, "Static", "198.51.100.7", "255.255.255.0", "203.0.113.1", ""); err == nil {
		t.Error("a gateway elsewhere is fine")
	}
	if now := document(); now.Address != d.Address || now.Gateway != d.Gateway {
		t.Errorf("a refused call has written: %+v", now)
	}
	s.Must(nil, "PIF.reconfigure_ip", pif, "DHCP", "", "", "", "")
	if d := document(); d.Mode != config.ModeDHCP || d.Address.IsValid() || d.Interface != "eth0" {
		t.Errorf("document %+v", d)
	}
	other := api.NewPIF()
	other.Managed = true
	ref := wiretest.Insert(s.Server, other)
	s.Must(nil, "PIF.reconfigure_ip", ref, "None", "", "", "", "")
	s.Refused(api.ErrNotImplemented("PIF.reconfigure_ip of an interface that is not the management interface"), "PIF.reconfigure_ip", ref, "DHCP", "", "", "", "")
	s.Covers("PIF.reconfigure_ip")
}
