package main

import (
	"strings"
	"testing"

	hostconfig "cairn/init/config"
	"cairn/toolstack/host/hosttest"
)

// TestStorageCommands is a user's session with repositories and disks.
func TestStorageCommands(t *testing.T) {
	d := newInstance(t, "memory")
	c := newCommandLine(t, d.address())
	host := c.xe("host-list", "--minimal")

	sr := c.xe("sr-create", "name-label=fast", "type=ext", "device-config:device=/dev/sdb", "host-uuid="+host)
	c.want(c.xe("sr-list", "name-label=fast", "params=type", "--minimal"), "ext")
	pbd := c.xe("pbd-list", "sr-uuid="+sr, "--minimal")
	c.want(c.xe("pbd-param-get", "uuid="+pbd, "param-name=currently-attached"), "true")
	if probe := c.xe("sr-probe", "type=ext", "host-uuid="+host, "device-config:device=/dev/sdb"); !strings.Contains(probe, "<UUID>"+sr+"</UUID>") {
		t.Errorf("probed %s", probe)
	}
	if _, _, errOut := c.try("sr-create", "name-label=x", "type=nfs", "device-config:server=s"); !strings.Contains(errOut, "SR_UNKNOWN_DRIVER") {
		t.Errorf("a type nobody knows: %s", errOut)
	}

	vdi := c.xe("vdi-create", "sr-uuid="+sr, "name-label=root", "virtual-size=1GiB", "type=user")
	c.want(c.xe("vdi-param-get", "uuid="+vdi, "param-name=virtual-size"), "1073741824")
	c.xe("vdi-resize", "uuid="+vdi, "disk-size=2GiB")
	c.want(c.xe("vdi-param-get", "uuid="+vdi, "param-name=virtual-size"), "2147483648")
	snapshot := c.xe("vdi-snapshot", "uuid="+vdi)
	c.want(c.xe("vdi-param-get", "uuid="+snapshot, "param-name=is-a-snapshot"), "true")
	c.want(c.xe("vdi-param-get", "uuid="+snapshot, "param-name=snapshot-of"), vdi)
	clone := c.xe("vdi-clone", "uuid="+vdi)
	other := c.xe("sr-create", "name-label=slow", "type=file", "device-config:location=/srv/slow", "host-uuid="+host)
	copied := c.xe("vdi-copy", "uuid="+snapshot, "sr-uuid="+other)
	c.want(c.xe("vdi-param-get", "uuid="+copied, "param-name=sr-uuid"), other)
	for _, uuid := range []string{copied, clone, snapshot, vdi} {
		c.xe("vdi-destroy", "uuid="+uuid)
	}
	c.want(c.xe("vdi-list", "managed=true", "--minimal"), "")

	c.xe("sr-scan", "uuid="+sr)
	c.xe("pbd-unplug", "uuid="+pbd)
	c.xe("pbd-plug", "uuid="+pbd)
	c.xe("pbd-unplug", "uuid="+pbd)
	c.xe("sr-forget", "uuid="+sr)
	c.want(c.xe("sr-introduce", "uuid="+sr, "name-label=again", "type=ext"), sr)
	pbd = c.xe("pbd-create", "sr-uuid="+sr, "host-uuid="+host, "device-config:device=/dev/sdb")
	c.xe("pbd-plug", "uuid="+pbd)
	c.xe("pbd-unplug", "uuid="+pbd)
	c.xe("sr-destroy", "uuid="+sr)
	c.want(c.xe("sr-list", "name-label=again", "--minimal"), "")
}

// TestLocalStorage: where the configuration document names a disk, a template with
// disks installs on a host that nobody has set up.
func TestLocalStorage(t *testing.T) {
	d := newInstance(t, "memory")
	d.address()
	d.stop()
	d.cfg.fakeHostd.(*hosttest.Hostd).Set(func(h *hosttest.Hostd) {
		h.Document.Storage.Local = hostconfig.Local{Type: hostconfig.LocalLVM, Device: "/dev/sdb"}
	})
	d.cfg.fakeHypervisor = survive(d.hv)
	d.start()
	address := d.address()
	api := d.login(address)
	var pools []string
	d.must(api.Call(t.Context(), "pool.get_all", &pools))
	sr := none
	for batch := (struct{ Token string }{}); sr == none; {
		d.must(api.Call(t.Context(), "event.from", &batch, []string{"pool"}, batch.Token, 5.5))
		d.must(api.Call(t.Context(), "pool.get_default_SR", &sr, pools[0]))
	}
	c := newCommandLine(t, address)
	uuid := c.xe("sr-list", "name-label=Local storage", "type=lvm", "--minimal")
	c.want(c.xe("pool-list", "params=default-SR", "--minimal"), uuid)
	vm := c.xe("vm-install", "template=Debian Trixie 13", "new-name-label=web")
	c.want(c.xe("vdi-list", "sr-uuid="+uuid, "params=vbd-uuids", "--minimal"), c.xe("vbd-list", "vm-uuid="+vm, "type=Disk", "--minimal"))
	d.stop()
}

const none = "OpaqueRef:NULL"
