//go:build lab

package main

import (
	"context"
	"os"
	"slices"
	"testing"

	hostd "cairn/init/hostd/client"

	"cairn/ci/lab/demo"
	"cairn/toolstack/client"
	"cairn/toolstack/hypervisor"
)

// wires is what hostd says of bridges and ports.
type wires struct {
	*instance
	hostd *hostd.Client
}

// hostd calls the instance's own, by the root of its namespace.
func (d *instance) wires() wires {
	d.Helper()
	c := d.inside().Hostd()
	d.Cleanup(c.Close)
	return wires{d, c}
}

// in lists the interfaces in a bridge; missing says that there is no such bridge.
func (w wires) in(bridge string) (taps []string, missing bool) {
	w.Helper()
	all, err := w.hostd.Bridges(w.Context())
	w.must(err)
	i := slices.IndexFunc(all, func(b hostd.Bridge) bool { return b.Name == bridge })
	if i < 0 {
		return nil, true
	}
	slices.Sort(all[i].Ports)
	return all[i].Ports, false
}

func (w wires) port(tap string) hostd.Port {
	w.Helper()
	all, err := w.hostd.Ports(w.Context())
	w.must(err)
	for _, p := range all {
		if p.Interface == tap {
			return p
		}
	}
	return hostd.Port{}
}

func (d *instance) network(api *client.Client, name string) (ref, bridge string) {
	d.Helper()
	d.must(api.Call(d.Context(), "network.create", &ref, map[string]any{"name_label": name, "MTU": 1500, "other_config": map[string]string{}}))
	d.must(api.Call(d.Context(), "network.get_bridge", &bridge, ref))
	return ref, bridge
}

// join gives a guest a NIC and returns it with the name of its interface.
func (d *instance) join(api *client.Client, g *demo.Guest, network string) (vif, tap string) {
	d.Helper()
	d.must(api.Call(d.Context(), "VIF.create", &vif, map[string]any{
		"device": "0", "network": network, "VM": g.Ref, "MAC": "", "MTU": 1500, "other_config": map[string]string{},
		"qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	}))
	var uuid string
	d.must(api.Call(d.Context(), "VIF.get_uuid", &uuid, vif))
	return vif, hypervisor.TapName(uuid)
}

// TestDevNetworks: two guests on a private network, by real libvirt, bridges and
// rules, and nothing left of it at the end.
func TestDevNetworks(t *testing.T) {
	dir := scratch(t)
	d := launch(t, program(t), dir)
	api := d.login()
	ctx := context.Background()
	w := d.wires()
	lan, bridge := d.network(api, "lan")
	other, elsewhere := d.network(api, "other")
	var guests []*demo.Guest
	var vifs, taps []string
	for _, name := range []string{"one", "two"} {
		g, err := demo.Create(ctx, api, name)
		d.must(err)
		vif, tap := d.join(api, g, lan)
		guests, vifs, taps = append(guests, g), append(vifs, vif), append(taps, tap)
	}
	d.must(api.Call(ctx, "VIF.set_locking_mode", nil, vifs[0], "locked"))
	d.must(api.Call(ctx, "VIF.set_ipv4_allowed", nil, vifs[0], []string{"192.0.2.1"}))
	for _, g := range guests {
		d.must(g.Start(ctx))
	}
	sorted := slices.Sorted(slices.Values(taps))
	if got, _ := w.in(bridge); !slices.Equal(got, sorted) {
		t.Errorf("in %s: %v, want %v", bridge, got, sorted)
	}
	if p := w.port(taps[0]); p.Mode != hostd.Locked || !slices.Equal(p.IPv4, []string{"192.0.2.1"}) {
		t.Errorf("port %+v", p)
	}
	d.must(api.Call(ctx, "VIF.set_locking_mode", nil, vifs[0], "disabled"))
	if p := w.port(taps[0]); p.Mode != hostd.Disabled {
		t.Errorf("port %+v", p)
	}
	d.must(api.Call(ctx, "VIF.move", nil, vifs[1], other))
	if got, _ := w.in(elsewhere); !slices.Equal(got, taps[1:]) {
		t.Errorf("after the move: %v", got)
	}
	for i, g := range guests {
		d.must(g.HardShutdown(ctx))
		if p := w.port(taps[i]); p.Interface != "" {
			t.Errorf("left: %+v", p)
		}
		d.must(api.Call(ctx, "VIF.destroy", nil, vifs[i]))
		d.must(g.Destroy(ctx))
	}
	for ref, name := range map[string]string{lan: bridge, other: elsewhere} {
		if left, _ := w.in(name); len(left) > 0 {
			t.Errorf("in %s: %v", name, left)
		}
		d.must(api.Call(ctx, "network.destroy", nil, ref))
		if _, missing := w.in(name); !missing {
			t.Errorf("%s is left", name)
		}
	}
	left := d.descendants()
	d.must(d.cmd.Process.Signal(os.Interrupt))
	d.must(d.cmd.Wait())
	gone(t, left)
}
