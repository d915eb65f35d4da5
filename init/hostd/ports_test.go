package hostd

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"cairn/init/hostd/client"
)

// refused says whether an error has a code, and nothing else.
func refused(err error, code string) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == code
}

// TestBridges makes and removes bridges, over a restart.
func TestBridges(t *testing.T) {
	l := newLab(t)
	l.smbios(staticDoc)
	l.start()
	l.logged("network-up", "if=eth0", "addr=10.0.0.2/24")
	l.logged("console banner")
	ctx := context.Background()
	net, err := l.client.Network(ctx)
	must(t, err)
	if net.Interface != "eth0" || net.Bridge != "xenbr0" || net.Address != "10.0.0.2/24" {
		t.Errorf("network %+v", net)
	}
	for range 2 {
		must(t, l.client.PutBridge(ctx, client.Bridge{Name: "xapi0", MTU: 9000}))
		must(t, l.client.PutBridge(ctx, client.Bridge{Name: "xenbr0", Uplink: "eth0", MTU: 1500}))
	}
	for _, c := range []struct {
		b    client.Bridge
		code string
	}{
		{client.Bridge{Name: "xenbr1", Uplink: "eth9"}, client.CodeNotFound},
		{client.Bridge{Name: "xenbr1", Uplink: "eth0"}, client.CodeInUse},
		{client.Bridge{Name: "a name of more than 15"}, client.CodeBadRequest},
		{client.Bridge{Name: "xapi1", MTU: 7}, client.CodeBadRequest},
		{client.Bridge{Name: "xapi1", Uplink: "-x"}, client.CodeBadRequest},
	} {
		if err := l.client.PutBridge(ctx, c.b); !refused(err, c.code) {
			t.Errorf("%+v: %v", c.b, err)
		}
	}
	l.terminate()
	l.start()
	l.logged("network-up", "if=eth0", "addr=10.0.0.2/24")
	all, err := l.client.Bridges(ctx)
	must(t, err)
	if len(all) != 2 || all[0].Name != "xapi0" || all[0].MTU != 9000 || all[0].Management || all[1].Uplink != "eth0" || !all[1].Management || all[1].MAC != "52:54:00:00:00:01" {
		t.Errorf("bridges %+v", all)
	}
	if err := l.client.DeleteBridge(ctx, "xenbr0"); !refused(err, client.CodeInUse) {
		t.Errorf("the management network's bridge: %v", err)
	}
	for range 2 {
		must(t, l.client.DeleteBridge(ctx, "xapi0"))
	}
	if all, err = l.client.Bridges(ctx); err != nil || len(all) != 1 {
		t.Errorf("bridges %+v %v", all, err)
	}
	l.terminate()
}

// TestPorts puts, changes, loses and removes ports.
func TestPorts(t *testing.T) {
	l := newLab(t)
	l.start()
	ctx := context.Background()
	if all, err := l.client.Ports(ctx); err != nil || len(all) != 0 {
		t.Errorf("at first: %v %v", all, err)
	}
	good := client.Port{Interface: "cv0123456789ab", Bridge: "xapi0", MAC: "02:00:00:00:00:01", Mode: client.Locked, IPv4: []string{"192.0.2.1"}, RateKBps: 10, MTU: 1500}
	other := client.Port{Interface: "cvb", Bridge: "xapi0", MAC: "02:00:00:00:00:02", Mode: client.Disabled}
	for range 2 {
		must(t, l.client.PutPort(ctx, good))
		must(t, l.client.PutPort(ctx, other))
	}
	if got := l.read("guarded"); got != "cv0123456789ab locked 02:00:00:00:00:01 [192.0.2.1] [] 10240\ncvb disabled 02:00:00:00:00:02 [] [] 0" {
		t.Errorf("in force: %s", got)
	}
	l.logged("system module", "name=nf_tables")
	for _, change := range []func(*client.Port){
		func(p *client.Port) { p.Interface = "a/b" },
		func(p *client.Port) { p.Bridge = "" },
		func(p *client.Port) { p.MAC = "01:00:00:00:00:01" },
		func(p *client.Port) { p.MAC = "02:00:00:00:00:01:02:03" },
		func(p *client.Port) { p.Mode = "open" },
		func(p *client.Port) { p.IPv4 = []string{"2001:db8::1"} },
		func(p *client.Port) { p.IPv6 = []string{"fe80::1%eth0"} },
		func(p *client.Port) { p.IPv4 = slices.Repeat([]string{"192.0.2.1"}, maxAddresses+1) },
		func(p *client.Port) { p.RateKBps = -1 },
		func(p *client.Port) { p.MTU = 1 },
	} {
		p := good
		change(&p)
		if err := l.client.PutPort(ctx, p); !refused(err, client.CodeBadRequest) && !refused(err, client.CodeNotFound) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	broken := good
	broken.Interface = "cvbroken"
	if err := l.client.PutPort(ctx, broken); !refused(err, client.CodeInternal) {
		t.Errorf("the kernel refuses: %v", err)
	}
	l.kill()
	l.plant("guarded", "")
	l.start()
	if got := l.read("guarded"); !strings.HasPrefix(got, "cv0123456789ab locked") || strings.Count(got, "\n") != 1 {
		t.Errorf("after a restart: %s", got)
	}
	all, err := l.client.Ports(ctx)
	must(t, err)
	good.Dropped = 7
	if len(all) != 2 || !slices.Equal(all[0].IPv4, good.IPv4) || all[0].Dropped != 7 || all[1].Mode != client.Disabled {
		t.Errorf("ports %+v", all)
	}
	for range 2 {
		must(t, l.client.DeletePort(ctx, "cv0123456789ab"))
	}
	must(t, l.client.DeletePort(ctx, "cvb"))
	if got := l.read("guarded"); got != "" {
		t.Errorf("left: %s", got)
	}
	if got := l.read("guarded.cut"); got != "cv0123456789ab\ncvb\n" {
		t.Errorf("interfaces that were taken away: %q", got)
	}
	l.terminate()
}

// FuzzPort: whatever comes over the socket is refused, or is something the rules
// can be made of.
func FuzzPort(f *testing.F) {
	for _, text := range []string{
		`{"interface":"cv1","bridge":"b","mac":"02:00:00:00:00:01","mode":"locked","ipv4":["192.0.2.1"],"ipv6":["::1"],"rate_kbps":1}`,
		`{"interface":"","mac":"x"}`, `[]`, `{"ipv4":["::ffff:1.2.3.4"]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var p client.Port
		if json.Unmarshal(text, &p) != nil {
			return
		}
		got, err := portOf(p)
		if err != nil {
			return
		}
		if len(got.MAC) != 6 || got.Interface == "" || len(got.Interface) > 15 || got.Rate > maxRateKBps<<10 || len(got.IPv4) != len(p.IPv4) {
			t.Errorf("%s gives %+v", text, got)
		}
	})
}
