package guest

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/guest/qga"
)

func TestOSVersion(t *testing.T) {
	for name, tt := range map[string]struct {
		os   qga.OS
		want map[string]string
	}{
		"Debian": {
			qga.OS{ID: "debian", Name: "Debian GNU/Linux", PrettyName: "Debian GNU/Linux 13 (trixie)", VersionID: "13", KernelRelease: "6.12.9-amd64", KernelVersion: "#1 SMP"},
			map[string]string{"name": "Debian GNU/Linux 13 (trixie)", "distro": "debian", "major": "13", "uname": "6.12.9-amd64"},
		},
		"Rocky": {
			qga.OS{ID: "rocky", Name: "Rocky Linux", VersionID: "9.4", KernelRelease: "5.14.0"},
			map[string]string{"name": "Rocky Linux", "distro": "rocky", "major": "9", "minor": "4", "uname": "5.14.0"},
		},
		"Windows": {
			qga.OS{ID: "mswindows", Name: "Microsoft Windows", PrettyName: "Windows Server 2022 Standard", VersionID: "2022", KernelRelease: "20348", KernelVersion: "10.0"},
			map[string]string{"name": "Windows Server 2022 Standard", "distro": "windows", "major": "10", "minor": "0", "build": "20348"},
		},
		"nothing": {qga.OS{}, map[string]string{}},
	} {
		if got := osVersion(tt.os); !maps.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

func TestDriversVersion(t *testing.T) {
	for version, want := range map[string]string{
		"10.0.13": "10.0.13.0", "8.2": "8.2.0.0", "1.2.3.4.5": "1.2.3.0", "": "0.0.0.0", "git-7": "0.0.0.0",
		"99999999999.1": "0.0.0.0", "7.0.4rc1": "7.0.0.0", "100.96.1.7": "100.96.1.7",
	} {
		v := driversVersion(version)
		if got := v["major"] + "." + v["minor"] + "." + v["micro"] + "." + v["build"]; got != want || len(v) != 4 {
			t.Errorf("%q is %s, want %s", version, got, want)
		}
	}
}

func nic(mac string, addresses ...string) qga.Interface {
	i := qga.Interface{MAC: mac}
	for _, a := range addresses {
		i.Addresses = append(i.Addresses, netip.MustParseAddr(a))
	}
	return i
}

func TestNetworks(t *testing.T) {
	devices := map[string]string{"02:00:00:00:00:01": "0", "02:00:00:00:00:02": "3"}
	got := networks([]qga.Interface{
		nic("00:00:00:00:00:00", "127.0.0.1"),                                        // the loopback
		nic("02:00:00:00:00:01"),                                                     // a port of the bridge
		nic("02:42:00:00:00:01", "172.17.0.1"),                                       // of the guest alone
		nic("02:00:00:00:00:01", "192.0.2.7", "fe80::1", "2001:db8::7", "192.0.2.8"), // the bridge over it
		nic("02:00:00:00:00:01", "192.0.2.7"),                                        // an alias
		nic("02:00:00:00:00:02", "2001:db8::9"),
	}, devices)
	want := map[string]string{
		"0/ip": "192.0.2.7", "0/ipv4/0": "192.0.2.7", "0/ipv4/1": "192.0.2.8", "0/ipv6/0": "fe80::1", "0/ipv6/1": "2001:db8::7",
		"3/ipv6/0": "2001:db8::9",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("192.0.2.%d", i))
	}
	if n := len(networks([]qga.Interface{nic("02:00:00:00:00:01", many...)}, devices)); n != maxAddresses+1 {
		t.Errorf("%d entries of 200 addresses", n)
	}
}

// TestDescribe: what is lost with the agent, step by step.
func TestDescribe(t *testing.T) {
	f := facts{os: qga.OS{ID: "debian"}, host: "web1", networks: map[string]string{"1/ip": "192.0.2.1"}, disks: []qga.Filesystem{{Mountpoint: "/", Type: "ext4", Total: 5}}}
	g := api.NewVMGuestMetrics()
	f.describe(g, Unknown)
	if g.Live || g.PVDriversDetected || g.OSVersion != nil || g.CanUseHotplugVBD != api.TristateTypeUnspecified {
		t.Errorf("of nobody: %+v", g)
	}
	f.describe(g, Present)
	if !g.Live || !g.PVDriversDetected || !g.PVDriversUpToDate || g.OSVersion["distro"] != "debian" || g.Networks["1/ip"] != "192.0.2.1" ||
		g.NetbiosName["host_name"] != "web1" || g.Disks["0/mountpoint"] != "/" || g.Disks["0/type"] != "ext4" || g.Disks["0/total"] != "5" ||
		g.Other["feature-suspend"] != "1" || g.Other["feature-shutdown"] != "" || g.CanUseHotplugVIF != api.TristateTypeYes {
		t.Errorf("present: %+v", g)
	}
	f.describe(g, Hung)
	if g.Live || g.Networks["1/ip"] == "" {
		t.Errorf("hung: %+v", g)
	}
	f.describe(g, Gone)
	if g.Live || len(g.Networks) != 0 || g.OSVersion["distro"] != "debian" {
		t.Errorf("gone: %+v", g)
	}
}
