package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestArchives is a user's session with VMs as files, over TLS and through the daemon as
// it is wired.
func TestArchives(t *testing.T) {
	d := newInstance(t, "memory")
	c := newCommandLine(t, d.address())
	host := c.xe("host-list", "--minimal")
	sr := c.xe("sr-create", "name-label=fast", "type=ext", "device-config:device=/dev/sdb", "host-uuid="+host)
	c.xe("pool-param-set", "uuid="+c.xe("pool-list", "--minimal"), "default-SR="+sr)
	vm := c.xe("vm-install", "template=Debian Trixie 13", "new-name-label=web")
	file := func(name string) string { return filepath.Join(t.TempDir(), name) }

	xva := file("web.xva")
	c.xe("vm-export", "vm=web", "filename="+xva, "compress=zstd")
	disks := c.xe("vdi-list", "managed=true", "--minimal")
	made := c.xe("vm-import", "filename="+xva)
	if made == vm || strings.Count(c.xe("vm-list", "name-label=web", "--minimal"), ",") != 1 {
		t.Errorf("vm-import made %s", made)
	}
	if n := len(c.xe("vdi-list", "managed=true", "--minimal")); n != 2*len(disks)+1 {
		t.Errorf("disks are %s", c.xe("vdi-list", "managed=true", "--minimal"))
	}
	c.xe("vm-uninstall", "uuid="+made, "--force")

	b, err := os.ReadFile(xva)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(xva, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, errOut := c.try("vm-import", "filename="+xva); !strings.Contains(errOut, "IMPORT_ERROR_PREMATURE_EOF") {
		t.Errorf("half a file: %s", errOut)
	}
	c.want(c.xe("vm-list", "name-label=web", "--minimal"), vm)

	meta := file("web.meta")
	c.xe("vm-export", "uuid="+vm, "filename="+meta, "metadata=true")
	c.want(c.xe("vm-import", "filename="+meta, "metadata=true", "dry-run=true"), "")
	if _, _, errOut := c.try("vm-import", "filename="+meta, "metadata=true", "preserve=true"); !strings.Contains(errOut, "VM_TO_IMPORT_IS_NOT_NEWER_VERSION") {
		t.Errorf("a VM as new: %s", errOut)
	}
	c.want(c.xe("vm-import", "filename="+meta, "metadata=true", "preserve=true", "force=true"), vm)
	snapshot := c.xe("vm-snapshot", "vm=web", "new-name-label=before")
	c.xe("snapshot-export-to-template", "snapshot-uuid="+snapshot, "filename="+file("s.xva"))
	template := c.xe("template-list", "name-label=Debian Trixie 13", "--minimal")
	c.xe("template-export", "template-uuid="+template, "filename="+file("t.xva"))
	if _, _, errOut := c.try("vm-export", "uuid="+vm, "filename="+file("x"), "compress=lzma"); !strings.Contains(errOut, "INVALID_VALUE") {
		t.Errorf("an unknown compression: %s", errOut)
	}
}
