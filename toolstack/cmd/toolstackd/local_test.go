package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"cairn/init/supervise/catalogue"
	"cairn/toolstack/client"
)

// TestLocalSocket: on the host itself xe needs neither a server nor a password, whoever
// may not connect is asked for both, and what a killed process left is no hindrance.
func TestLocalSocket(t *testing.T) {
	d := newInstance(t, "memory")
	c := newCommandLine(t, d.address())
	d.stop()
	d.cfg.local = filepath.Join(t.TempDir(), "api.sock")
	if err := os.WriteFile(d.cfg.local, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.cfg.fakeHypervisor = survive(d.hv)
	d.start()
	d.address()
	info, err := os.Stat(d.cfg.local)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v, %v", info, err)
	}
	c.socket = d.cfg.local
	if _, _, errOut := c.try("host-list", "--minimal"); errOut == "" {
		t.Error("what the environment says of a server does not count")
	}
	c.env["XE_EXTRA_ARGS"] = ""
	host := c.xe("host-list", "--minimal")
	c.want(c.xe("host-list", "--minimal", "-s", d.cfg.local), host)
	vm := c.xe("vm-install", "template=Cairn demo guest", "new-name-label=here")
	file := filepath.Join(t.TempDir(), "here.xva")
	c.xe("vm-export", "uuid="+vm, "filename="+file)
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Errorf("an export by the socket: %v, %v", info, err)
	}
	if _, out, _ := c.try("__complete", "vm-start", "vm=h"); out != "vm=here\n" {
		t.Errorf("completion offers %q", out)
	}
	if status, _, _ := c.try("host-list", "-u", "joe", "-p", "1"); status == 0 {
		t.Error("another user needs no password")
	}
	d.stop()
	if _, err := os.Stat(d.cfg.local); err == nil {
		t.Error("the socket stays behind")
	}
}

// TestHandedOver: PID 1 names its sockets as toolstackd knows them, and xe looks for the
// local one where it is, which is for root alone.
func TestHandedOver(t *testing.T) {
	services := catalogue.All()
	i := slices.IndexFunc(services, func(s catalogue.Service) bool { return s.Name == "toolstackd" })
	if i < 0 {
		t.Fatal("no service toolstackd")
	}
	names := map[string]catalogue.Listen{}
	for _, l := range services[i].Sockets {
		names[l.Name] = l
	}
	local := names[localName]
	if len(names) != 2 || names[socketName].Network != "tcp" || local.Network != "unix" || local.Address != client.LocalSocket ||
		local.Mode != 0o600 || local.Owner.User != "root" {
		t.Errorf("sockets %+v", names)
	}
}
