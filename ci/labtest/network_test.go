//go:build lab

package labtest

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"cairn/ci/lab"
	"cairn/ci/lab/demo"
	hostd "cairn/init/hostd/client"
	"cairn/toolstack/client"
	"cairn/toolstack/hypervisor"
)

// join gives a halted guest a NIC on a network; the name is its interface's.
func join(ctx context.Context, t *testing.T, c *client.Client, g *demo.Guest, device, network string) (vif, tap string) {
	t.Helper()
	must(t, c.Call(ctx, "VIF.create", &vif, map[string]any{
		"device": device, "network": network, "VM": g.Ref, "MAC": "", "MTU": 1500, "other_config": map[string]string{},
		"qos_algorithm_type": "ratelimit", "qos_algorithm_params": map[string]string{"kbps": "1000"},
	}))
	var uuid string
	must(t, c.Call(ctx, "VIF.get_uuid", &uuid, vif))
	return vif, hypervisor.TapName(uuid)
}

// master is the bridge an interface of the host is in, empty when it is not there.
func master(ctx context.Context, h *lab.Host, iface string) string {
	a, err := h.Debug(ctx, "read", "/sys/class/net/"+iface+"/master/uevent")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(a.Output) {
		if name, ok := strings.CutPrefix(line, "INTERFACE="); ok {
			return strings.TrimSpace(name)
		}
	}
	return ""
}

// ports are those hostd keeps.
func ports(ctx context.Context, t *testing.T, h *lab.Host) map[string]hostd.Port {
	t.Helper()
	a, err := h.Debug(ctx, "read", "/run/cairn/ports.json")
	must(t, err)
	all := map[string]hostd.Port{}
	must(t, json.Unmarshal([]byte(a.Output), &all))
	return all
}

// TestVMNetworks: the real kernel takes the rules of a guest that is on the
// management network and on a private one, hostd's end changes nothing, and
// nothing is left when the guest has gone.
func TestVMNetworks(t *testing.T) {
	ctx := deadline(t)
	h := boot(ctx, t, func(c *lab.Config) { c.Debug = true })
	c := login(ctx, t, h)
	if b := master(ctx, h, "eth0"); b != "xenbr0" {
		t.Errorf("the management NIC is in %q", b)
	}
	var networks map[string]struct{ Bridge string }
	must(t, c.Call(ctx, "network.get_all_records", &networks))
	var management, lan string
	for ref, n := range networks {
		if n.Bridge == "xenbr0" {
			management = ref
		}
	}
	must(t, c.Call(ctx, "network.create", &lan, map[string]any{"name_label": "lan", "MTU": 1500, "other_config": map[string]string{}}))
	g := create(ctx, t, c, "joined")
	outside, first := join(ctx, t, c, g, "0", management)
	_, second := join(ctx, t, c, g, "1", lan)
	must(t, c.Call(ctx, "VIF.set_locking_mode", nil, outside, "locked"))
	must(t, c.Call(ctx, "VIF.set_ipv4_allowed", nil, outside, []string{"10.0.2.77"}))
	must(t, c.Call(ctx, "VIF.set_ipv6_allowed", nil, outside, []string{"2001:db8::77", "fe80::77"}))
	must(t, g.Start(ctx))
	if a, b := master(ctx, h, first), master(ctx, h, second); a != "xenbr0" || b != "xapi0" {
		t.Errorf("the guest is in %q and %q", a, b)
	}
	h.Mark()
	_, err := h.Kill(ctx, "hostd")
	must(t, err)
	wait(ctx, t, h, "network-up")
	must(t, c.Call(ctx, "VIF.set_locking_mode", nil, outside, "disabled"))
	if all := ports(ctx, t, h); all[first].Mode != hostd.Disabled || all[second].Mode != hostd.Unlocked || all[second].RateKBps != 1000 {
		t.Errorf("ports %+v", all)
	}
	if a, b := master(ctx, h, first), master(ctx, h, "eth0"); a != "xenbr0" || b != "xenbr0" {
		t.Errorf("after hostd's end the guest is in %q, the NIC in %q", a, b)
	}
	must(t, g.HardShutdown(ctx))
	if a, b := master(ctx, h, first), master(ctx, h, second); a+b != "" || len(ports(ctx, t, h)) != 0 {
		t.Errorf("left: %q, %q, %v", a, b, ports(ctx, t, h))
	}
	powerOff(ctx, t, h)
}
