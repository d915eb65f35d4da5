package network_test

import (
	"slices"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/network"
	"cairn/toolstack/wire/wiretest"
)

type stack struct {
	*wiretest.Server
	hostd *hosttest.Hostd
	net   *network.Manager
}

func newStack(t *testing.T) stack {
	t.Helper()
	s := stack{hostd: hosttest.New()}
	s.Server = wiretest.New(t, func(r *api.Registry, d *db.DB) {
		s.net = network.New(network.Config{DB: d, Hostd: func(api.HostRef) network.Hostd { return s.hostd }})
		s.net.Register(r)
	})
	return s
}

func TestVIF(t *testing.T) {
	s := newStack(t)
	ref := wiretest.Insert(s.Server, api.NewVIF())
	for _, tt := range []struct {
		method string
		value  any
		holds  func(*api.VIF) bool
	}{
		{"VIF.set_locking_mode", "locked", func(v *api.VIF) bool { return v.LockingMode == api.VIFLockingModeLocked }},
		{"VIF.set_ipv4_allowed", []string{"192.0.2.1", "192.0.2.1"}, func(v *api.VIF) bool { return slices.Equal(v.IPv4Allowed, []string{"192.0.2.1"}) }},
		{"VIF.add_ipv4_allowed", "192.0.2.2", func(v *api.VIF) bool { return len(v.IPv4Allowed) == 2 }},
		{"VIF.remove_ipv4_allowed", "192.0.2.1", func(v *api.VIF) bool { return slices.Equal(v.IPv4Allowed, []string{"192.0.2.2"}) }},
		{"VIF.set_ipv6_allowed", []string{"2001:DB8::1"}, func(v *api.VIF) bool { return slices.Equal(v.IPv6Allowed, []string{"2001:db8::1"}) }},
		{"VIF.add_ipv6_allowed", "2001:db8:0::1", func(v *api.VIF) bool { return len(v.IPv6Allowed) == 1 }},
		{"VIF.add_ipv6_allowed", "fe80::2", func(v *api.VIF) bool { return len(v.IPv6Allowed) == 2 }},
		{"VIF.remove_ipv6_allowed", "2001:db8::0:1", func(v *api.VIF) bool { return slices.Equal(v.IPv6Allowed, []string{"fe80::2"}) }},
		{"VIF.set_trunks", []int{20, 10, 20}, func(v *api.VIF) bool { return slices.Equal(v.Trunks, []int64{10, 20}) }},
		{"VIF.add_trunks", 15, func(v *api.VIF) bool { return slices.Equal(v.Trunks, []int64{10, 15, 20}) }},
		{"VIF.remove_trunks", 10, func(v *api.VIF) bool { return slices.Equal(v.Trunks, []int64{15, 20}) }},
	} {
		s.Must(nil, tt.method, ref, tt.value)
		if v := wiretest.Get(s.Server, ref); !tt.holds(v) {
			t.Errorf("%s(%v) has no effect: %+v", tt.method, tt.value, v)
		}
		s.Covers(tt.method)
	}
	before := wiretest.Get(s.Server, ref)
	for method, bad := range map[string]string{
		"VIF.add_ipv4_allowed": "192.0.2.256", "VIF.remove_ipv4_allowed": "2001:db8::1",
		"VIF.add_ipv6_allowed": "192.0.2.1", "VIF.remove_ipv6_allowed": "fe80::1%eth0",
	} {
		s.Refused(api.ErrInvalidIPAddressSpecified(bad), method, ref, bad)
	}
	s.Refused(api.ErrInvalidIPAddressSpecified("::ffff:192.0.2.1"), "VIF.set_ipv6_allowed", ref, []string{"::1", "::ffff:192.0.2.1"})
	s.Refused(api.ErrVLANTagInvalid("4095"), "VIF.add_trunks", ref, 4095)
	s.Refused(api.ErrVLANTagInvalid("-1"), "VIF.set_trunks", ref, []int{1, -1})
	if wiretest.Get(s.Server, ref) != before {
		t.Error("a refused call has written")
	}
	attached := api.NewVIF()
	attached.CurrentlyAttached = true
	live := wiretest.Insert(s.Server, attached)
	s.Refused(api.ErrNotImplemented("trunks of an attached interface"), "VIF.add_trunks", live, 5)
}

func TestPurpose(t *testing.T) {
	s := newStack(t)
	a, b := wiretest.Insert(s.Server, api.NewNetwork()), wiretest.Insert(s.Server, api.NewNetwork())
	s.Must(nil, "network.add_purpose", a, "nbd")
	s.Must(nil, "network.add_purpose", a, "nbd")
	if p := wiretest.Get(s.Server, a).Purpose; !slices.Equal(p, []api.NetworkPurpose{api.NetworkPurposeNBD}) {
		t.Errorf("purposes %v", p)
	}
	s.Refused(api.ErrNetworkIncompatiblePurposes("insecure_nbd", "nbd"), "network.add_purpose", b, "insecure_nbd")
	if p := wiretest.Get(s.Server, b).Purpose; len(p) != 0 {
		t.Errorf("purposes %v", p)
	}
	s.Must(nil, "network.remove_purpose", a, "nbd")
	s.Must(nil, "network.add_purpose", b, "insecure_nbd")
	if p := wiretest.Get(s.Server, b).Purpose; len(wiretest.Get(s.Server, a).Purpose) != 0 || len(p) != 1 {
		t.Errorf("purposes %v, %v", wiretest.Get(s.Server, a).Purpose, p)
	}
	s.Covers("network.add_purpose", "network.remove_purpose")
}

func TestDefaultLocking(t *testing.T) {
	s := newStack(t)
	n := wiretest.Insert(s.Server, api.NewNetwork())
	s.Must(nil, "network.set_default_locking_mode", n, "disabled")
	if m := wiretest.Get(s.Server, n).DefaultLockingMode; m != api.NetworkDefaultLockingModeDisabled {
		t.Errorf("mode %s", m)
	}
	v := api.NewVIF()
	v.Network, v.CurrentlyAttached, v.LockingMode = n, true, api.VIFLockingModeNetworkDefault
	vif := wiretest.Insert(s.Server, v)
	s.Refused(api.ErrVIFInUse(n.String(), vif.String()), "network.set_default_locking_mode", n, "unlocked")
	s.Covers("network.set_default_locking_mode")
}

func TestDisallowUnplug(t *testing.T) {
	s := newStack(t)
	p := wiretest.Insert(s.Server, api.NewPIF())
	s.Must(nil, "PIF.set_disallow_unplug", p, true)
	if !wiretest.Get(s.Server, p).DisallowUnplug {
		t.Error("not kept")
	}
	s.Covers("PIF.set_disallow_unplug")
}
