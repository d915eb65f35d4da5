package network_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/network"
	"cairn/toolstack/wire/wiretest"
)

// change edits a row behind the API's back.
func change[T any, P api.RecordPtr[T]](t *testing.T, s stack, ref api.Ref[T], f func(*T)) {
	t.Helper()
	err := db.Modify[T, P](t.Context(), s.DB, ref, func(_ *db.Tx, r *T) error { f(r); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

func (s stack) bridges(t *testing.T) map[string]client.Bridge {
	t.Helper()
	all, err := s.hostd.Bridges(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]client.Bridge{}
	for _, b := range all {
		out[b.Name] = b
	}
	return out
}

func (s stack) port(t *testing.T, vif api.VIFRef) (client.Port, bool) {
	t.Helper()
	all, err := s.hostd.Ports(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tap := hypervisor.TapName(wiretest.Get(s.Server, vif).UUID)
	i := slices.IndexFunc(all, func(p client.Port) bool { return p.Interface == tap })
	if i < 0 {
		return client.Port{}, false
	}
	return all[i], true
}

func newNetwork(s stack, args map[string]any) (ref api.NetworkRef, err error) {
	record := map[string]any{"name_label": "n", "name_description": "", "MTU": 1500, "other_config": map[string]string{}}
	for k, v := range args {
		record[k] = v
	}
	raw, err := s.Call("network.create", record)
	if err == nil {
		ref = api.NetworkRef(string(raw[1 : len(raw)-1]))
	}
	return ref, err
}

func TestCreateNetwork(t *testing.T) {
	s := newStack(t)
	var made []api.NetworkRef
	for _, args := range []map[string]any{nil, {"bridge": "xapi1", "MTU": 9000}, {"name_label": "third"}} {
		ref, err := newNetwork(s, args)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, ref)
	}
	for i, want := range []string{"xapi0", "xapi1", "xapi2"} {
		n := wiretest.Get(s.Server, made[i])
		if n.Bridge != want || !n.Managed || n.UUID == "" || n.DefaultLockingMode != api.NetworkDefaultLockingModeUnlocked {
			t.Errorf("network %+v", n)
		}
	}
	if n := wiretest.Get(s.Server, made[1]); n.MTU != 9000 {
		t.Errorf("MTU %d", n.MTU)
	}
	wiretest.Insert(s.Server, &api.PIF{Device: "eth7"})
	for _, c := range []struct {
		args map[string]any
		want *api.Error
	}{
		{map[string]any{"bridge": "xapi1"}, api.ErrBridgeNameExists("xapi1")},
		{map[string]any{"bridge": "xenbr0"}, api.ErrBridgeNameExists("xenbr0")},
		{map[string]any{"bridge": "a name that is long"}, api.ErrInvalidValue("bridge", "a name that is long")},
		{map[string]any{"bridge": "brücke"}, api.ErrInvalidValue("bridge", "brücke")},
		{map[string]any{"managed": false}, api.ErrInvalidValue("bridge", "")},
		{map[string]any{"bridge": "lo"}, api.ErrInvalidValue("bridge", "lo")},
		{map[string]any{"bridge": "eth7"}, api.ErrInvalidValue("bridge", "eth7")},
		{map[string]any{"MTU": 10}, api.ErrInvalidValue("MTU", "10")},
	} {
		var e *api.Error
		if _, err := newNetwork(s, c.args); !errors.As(err, &e) || e.Error() != c.want.Error() {
			t.Errorf("%v: %v", c.args, err)
		}
	}
	s.Covers("network.create")
}

func TestDestroyNetwork(t *testing.T) {
	s := newStack(t)
	host := s.host(t)
	ref, err := newNetwork(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Must(nil, "network.attach", ref, host)
	if b, ok := s.bridges(t)["xapi0"]; !ok || b.Uplink != "" || b.MTU != 1500 {
		t.Errorf("bridge %+v", b)
	}
	v := api.NewVIF()
	v.Network = ref
	vif := wiretest.Insert(s.Server, v)
	s.Refused(api.ErrNetworkContainsVIF(vif.String()), "network.destroy", ref)
	change(t, s, vif, func(v *api.VIF) { v.Network = "" })
	p := api.NewPIF()
	p.Network = ref
	pif := wiretest.Insert(s.Server, p)
	s.Refused(api.ErrNetworkContainsPIF(pif.String()), "network.destroy", ref)
	change(t, s, pif, func(p *api.PIF) { p.Network = "" })
	s.Must(nil, "network.destroy", ref)
	if len(s.bridges(t)) != 0 {
		t.Errorf("bridges %v", s.bridges(t))
	}
	s.Refused(api.ErrHandleInvalid("network", ref.String()), "network.destroy", ref)
	s.Covers("network.destroy", "network.attach")
}

func TestNetworkMTU(t *testing.T) {
	s := newStack(t)
	host := s.host(t)
	ref, err := newNetwork(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Must(nil, "network.set_MTU", ref, 9000)
	if len(s.bridges(t)) != 0 {
		t.Error("a bridge was made")
	}
	s.Must(nil, "network.attach", ref, host)
	s.Must(nil, "network.set_MTU", ref, 4000)
	if b := s.bridges(t)["xapi0"]; b.MTU != 4000 || wiretest.Get(s.Server, ref).MTU != 4000 {
		t.Errorf("bridge %+v", b)
	}
	s.Refused(api.ErrInvalidValue("MTU", "67"), "network.set_MTU", ref, 67)
	if wiretest.Get(s.Server, ref).MTU != 4000 {
		t.Error("a refused call has written")
	}
	s.Covers("network.set_MTU")
}

// plugged is a VIF whose port was made.
func (s stack) plugged(t *testing.T) (api.HostRef, api.NetworkRef, api.VIFRef) {
	t.Helper()
	host := s.host(t)
	n, err := newNetwork(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := api.NewVIF()
	v.UUID, v.MAC, v.Network, v.MTU, v.LockingMode = api.NewUUID(), "02:00:00:00:00:01", n, 1400, api.VIFLockingModeNetworkDefault
	vif := wiretest.Insert(s.Server, v)
	nic, err := s.net.Plug(t.Context(), host, vif)
	if err != nil {
		t.Fatal(err)
	}
	if want := (hypervisor.NIC{ID: v.UUID, MAC: v.MAC, Bridge: "xapi0", Tap: hypervisor.TapName(v.UUID), MTU: 1400}); nic != want {
		t.Errorf("NIC %+v", nic)
	}
	return host, n, vif
}

// TestLive changes what a guest may send while it runs.
func TestLive(t *testing.T) {
	s := newStack(t)
	host, n, vif := s.plugged(t)
	p, ok := s.port(t, vif)
	if !ok || p.Mode != client.Unlocked || p.Bridge != "xapi0" || p.MAC != "02:00:00:00:00:01" || p.RateKBps != 0 {
		t.Errorf("port %+v", p)
	}
	for _, step := range []struct {
		method string
		args   []any
		holds  func(client.Port) bool
	}{
		{"VIF.set_locking_mode", []any{"locked"}, func(p client.Port) bool { return p.Mode == client.Locked && len(p.IPv4) == 0 }},
		{"VIF.set_ipv4_allowed", []any{[]string{"192.0.2.1"}}, func(p client.Port) bool { return slices.Equal(p.IPv4, []string{"192.0.2.1"}) }},
		{"VIF.add_ipv4_allowed", []any{"192.0.2.2"}, func(p client.Port) bool { return len(p.IPv4) == 2 }},
		{"VIF.remove_ipv4_allowed", []any{"192.0.2.1"}, func(p client.Port) bool { return slices.Equal(p.IPv4, []string{"192.0.2.2"}) }},
		{"VIF.set_ipv6_allowed", []any{[]string{"2001:db8::1"}}, func(p client.Port) bool { return slices.Equal(p.IPv6, []string{"2001:db8::1"}) }},
		{"VIF.add_ipv6_allowed", []any{"fe80::1"}, func(p client.Port) bool { return len(p.IPv6) == 2 }},
		{"VIF.remove_ipv6_allowed", []any{"2001:db8::1"}, func(p client.Port) bool { return slices.Equal(p.IPv6, []string{"fe80::1"}) }},
		{"VIF.set_qos_algorithm_type", []any{"ratelimit"}, func(p client.Port) bool { return p.RateKBps == 0 }},
		{"VIF.set_qos_algorithm_params", []any{map[string]string{"kbps": "100"}}, func(p client.Port) bool { return p.RateKBps == 100 }},
		{"VIF.set_qos_algorithm_params", []any{map[string]string{"kbps": "99999999999999"}}, func(p client.Port) bool { return p.RateKBps == 1<<30 }},
		{"VIF.remove_from_qos_algorithm_params", []any{"kbps"}, func(p client.Port) bool { return p.RateKBps == 0 }},
		{"VIF.add_to_qos_algorithm_params", []any{"kbps", "200"}, func(p client.Port) bool { return p.RateKBps == 200 }},
		{"VIF.set_locking_mode", []any{"disabled"}, func(p client.Port) bool { return p.Mode == client.Disabled && p.IPv6 == nil }},
	} {
		s.Must(nil, step.method, append([]any{vif}, step.args...)...)
		if p, _ := s.port(t, vif); !step.holds(p) {
			t.Errorf("%s%v: port %+v", step.method, step.args, p)
		}
		s.Covers(step.method)
	}
	s.Refused(api.ErrMapDuplicateKey("VIF", "qos_algorithm_params", vif.String(), "kbps"), "VIF.add_to_qos_algorithm_params", vif, "kbps", "1")
	s.Must(nil, "VIF.set_locking_mode", vif, "network_default")
	s.Must(nil, "network.set_default_locking_mode", n, "disabled")
	if _, err := s.net.Plug(t.Context(), host, vif); err != nil {
		t.Fatal(err)
	}
	if p, _ := s.port(t, vif); p.Mode != client.Disabled {
		t.Errorf("port %+v", p)
	}
	for range 2 {
		if err := s.net.Unplug(t.Context(), host, vif); err != nil {
			t.Fatal(err)
		}
	}
	s.Must(nil, "VIF.set_locking_mode", vif, "locked")
	if p, ok := s.port(t, vif); ok {
		t.Errorf("left: %+v", p)
	}
}

// TestHostdFails: the caller hears of it, and the next call repairs it.
func TestHostdFails(t *testing.T) {
	s := newStack(t)
	host, _, vif := s.plugged(t)
	down := errors.New("hostd: connection refused")
	s.hostd.Set(func(h *hosttest.Hostd) { h.Err = down })
	if _, err := s.Call("VIF.set_locking_mode", vif, "locked"); err == nil {
		t.Error("no error")
	}
	if _, err := s.net.Plug(t.Context(), host, vif); !errors.Is(err, down) {
		t.Errorf("plug: %v", err)
	}
	if err := s.net.Unplug(t.Context(), host, vif); !errors.Is(err, down) {
		t.Errorf("unplug: %v", err)
	}
	s.hostd.Set(func(h *hosttest.Hostd) { h.Err = nil })
	if _, err := s.net.Plug(t.Context(), host, vif); err != nil {
		t.Error(err)
	}
	if p, _ := s.port(t, vif); p.Mode != client.Locked {
		t.Errorf("port %+v", p)
	}
}

// TestReconcile begins with what a toolstack that died has left.
func TestReconcile(t *testing.T) {
	s := newStack(t)
	host, _, kept := s.plugged(t)
	ctx := context.Background()
	insert := func(f func(*api.VIF, *api.VM)) api.VIFRef {
		vm, v := api.NewVM(), api.NewVIF()
		v.UUID, v.MAC, v.Network = api.NewUUID(), "02:00:00:00:00:02", wiretest.Get(s.Server, kept).Network
		f(v, vm)
		v.VM = wiretest.Insert(s.Server, vm)
		ref := wiretest.Insert(s.Server, v)
		if err := s.hostd.PutPort(ctx, client.Port{Interface: hypervisor.TapName(v.UUID)}); err != nil {
			t.Fatal(err)
		}
		return ref
	}
	stays := []api.VIFRef{
		kept,
		insert(func(v *api.VIF, _ *api.VM) { v.CurrentlyAttached = true }),
		insert(func(_ *api.VIF, vm *api.VM) {
			vm.CurrentOperations = map[string]api.VMOperations{"OpaqueRef:t": api.VMOperationsStart}
		}),
		insert(func(v *api.VIF, _ *api.VM) {
			v.CurrentOperations = map[string]api.VIFOperations{"OpaqueRef:t": api.VIFOperationsPlug}
		}),
		insert(func(v *api.VIF, _ *api.VM) {
			s.hostd.PutBridge(ctx, client.Bridge{Name: "xapi7", Ports: []string{hypervisor.TapName(v.UUID)}})
		}),
	}
	goes := insert(func(*api.VIF, *api.VM) {})
	for _, b := range []client.Bridge{{Name: "xapi8"}, {Name: "xenbr0", Management: true}} {
		s.hostd.PutBridge(ctx, b)
	}
	s.hostd.PutPort(ctx, client.Port{Interface: "cvstranger"})
	s.hostd.Set(func(h *hosttest.Hostd) {
		h.Hardware.NICs = append(h.Hardware.NICs, client.NIC{Name: "eth1", MAC: "52:54:00:00:00:02", PCI: "0000:00:03.0"})
	})
	ready := make(chan struct{})
	close(ready)
	if err := s.net.Run(ctx, ready, host); err != nil {
		t.Fatal(err)
	}
	for i, vif := range stays {
		if _, ok := s.port(t, vif); !ok {
			t.Errorf("port %d has gone", i)
		}
	}
	if _, ok := s.port(t, goes); ok {
		t.Error("the port of a halted VM is left")
	}
	if ports, _ := s.hostd.Ports(ctx); len(ports) != len(stays) {
		t.Errorf("ports %+v", ports)
	}
	have := s.bridges(t)
	if _, ok := have["xapi8"]; ok || len(have) != 3 {
		t.Errorf("bridges %v", have)
	}
	var pif api.PIFRef
	for ref, p := range db.All[api.PIF](s.DB.Snapshot()) {
		if p.Device == "eth1" {
			pif = ref
		}
	}
	s.Must(nil, "PIF.plug", pif)
	s.hostd.Set(func(h *hosttest.Hostd) { delete(h.BridgeRows, "xenbr1") }) // the host has booted
	if err := s.net.Reconcile(ctx, host); err != nil {
		t.Fatal(err)
	}
	if b := s.bridges(t)["xenbr1"]; b.Uplink != "eth1" {
		t.Errorf("bridge %+v", b)
	}
}

// TestNoHost: a host nobody can reach.
func TestNoHost(t *testing.T) {
	s := newStack(t)
	m := network.New(network.Config{DB: s.DB, Hostd: func(api.HostRef) network.Hostd { return nil }})
	_, _, vif := s.plugged(t)
	var e *api.Error
	if _, err := m.Plug(t.Context(), "OpaqueRef:h", vif); !errors.As(err, &e) || e.Code != api.CodeHostOffline {
		t.Error(err)
	}
}
