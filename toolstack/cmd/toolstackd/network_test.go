package main

import (
	"slices"
	"strings"
	"testing"

	"cairn/init/hostd/client"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/hypervisor"
)

// TestNetworkCommands is a user who makes a network, joins a guest to it and says
// what it may send, with xe.
func TestNetworkCommands(t *testing.T) {
	d := newInstance(t, "memory")
	hostd := d.cfg.fakeHostd.(*hosttest.Hostd)
	hostd.Set(func(h *hosttest.Hostd) {
		h.Hardware.NICs = append(h.Hardware.NICs, client.NIC{Name: "eth1", MAC: "52:54:00:00:00:02", PCI: "0000:00:03.0", Link: true, MTU: 1500})
	})
	c := newCommandLine(t, d.address())

	c.want(c.xe("pif-list", "management=true", "params=device", "--minimal"), "eth0")
	host := c.xe("host-list", "--minimal")
	c.xe("pif-scan", "host-uuid="+host)
	pif := c.xe("pif-list", "device=eth1", "--minimal")
	c.want(c.xe("pif-param-get", "uuid="+pif, "param-name=MAC"), "52:54:00:00:00:02")
	c.want(c.xe("network-list", "bridge=xenbr1", "params=name-label", "--minimal"), "Pool-wide network associated with eth1")
	c.xe("pif-plug", "uuid="+pif)
	c.want(c.xe("pif-param-get", "uuid="+pif, "param-name=currently-attached"), "true")
	c.xe("pif-unplug", "uuid="+pif)
	c.want(c.xe("pif-list", "currently-attached=false", "--minimal"), pif)
	c.xe("pif-forget", "uuid="+pif)
	c.want(c.xe("pif-list", "device=eth1", "--minimal"), "")
	pif = c.xe("pif-introduce", "host-uuid="+host, "device=eth1")
	c.want(c.xe("pif-list", "device=eth1", "--minimal"), pif)

	lan := c.xe("network-create", "name-label=lan", "MTU=9000")
	c.want(c.xe("network-param-get", "uuid="+lan, "param-name=bridge"), "xapi0")
	c.want(c.xe("network-list", "name-label=lan", "params=MTU", "--minimal"), "9000")
	c.xe("network-param-set", "uuid="+lan, "name-description=guests only", "MTU=1500")
	c.want(c.xe("network-param-get", "uuid="+lan, "param-name=MTU"), "1500")

	c.xe("network-attach", "uuid="+lan, "host-uuid="+host)
	management := c.xe("pif-list", "management=true", "--minimal")
	c.xe("pif-reconfigure-ip", "uuid="+management, "mode=static", "IP=192.0.2.9", "netmask=255.255.255.0", "gateway=192.0.2.1")
	c.want(c.xe("pif-param-get", "uuid="+management, "param-name=IP"), "192.0.2.9")

	vm := c.xe("vm-install", "template=Cairn demo guest", "new-name-label=web")
	vif := c.xe("vif-create", "vm-uuid="+vm, "network-uuid="+lan, "device=0")
	c.xe("vif-param-set", "uuid="+vif, "locking-mode=locked", "ipv4-allowed=192.0.2.1")
	c.xe("vm-start", "vm=web")
	port := func() client.Port {
		all, _ := hostd.Ports(t.Context())
		i := slices.IndexFunc(all, func(p client.Port) bool { return p.Interface == hypervisor.TapName(vif) })
		if i < 0 {
			return client.Port{}
		}
		return all[i]
	}
	if p := port(); p.Mode != client.Locked || !slices.Equal(p.IPv4, []string{"192.0.2.1"}) || p.Bridge != "xapi0" {
		t.Errorf("port %+v", p)
	}
	c.xe("vif-param-set", "uuid="+vif, "qos_algorithm_type=ratelimit", "qos_algorithm_params:kbps=100")
	c.xe("vif-param-set", "uuid="+vif, "ipv4-allowed=192.0.2.1,192.0.2.2")
	if p := port(); len(p.IPv4) != 2 || p.RateKBps != 100 {
		t.Errorf("port %+v", p)
	}
	c.xe("vif-param-set", "uuid="+vif, "locking-mode=unlocked")
	if p := port(); p.Mode != client.Unlocked {
		t.Errorf("port %+v", p)
	}
	if _, _, errOut := c.try("network-destroy", "uuid="+lan); !strings.Contains(errOut, "NETWORK_CONTAINS_VIF") {
		t.Errorf("a network in use: %s", errOut)
	}
	c.xe("vm-shutdown", "vm=web", "--force")
	if p := port(); p.Interface != "" {
		t.Errorf("the port is left: %+v", p)
	}
	c.xe("vif-destroy", "uuid="+vif)
	c.xe("network-destroy", "uuid="+lan)
	c.want(c.xe("network-list", "name-label=lan", "--minimal"), "")
	if all, _ := hostd.Bridges(t.Context()); slices.ContainsFunc(all, func(b client.Bridge) bool { return b.Name == "xapi0" }) {
		t.Errorf("bridges %+v", all)
	}
	d.stop()
}
