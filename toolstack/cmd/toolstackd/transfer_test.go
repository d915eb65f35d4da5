package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDiskStreams is a user's session with disks that leave and come back.
func TestDiskStreams(t *testing.T) {
	d := newInstance(t, "memory")
	c := newCommandLine(t, d.address())
	dir := t.TempDir()
	sr := c.xe("sr-create", "name-label=fast", "type=ext", "device-config:device=/dev/sdb", "host-uuid="+c.xe("host-list", "--minimal"))
	disk := func() string {
		return c.xe("vdi-create", "sr-uuid="+sr, "name-label=root", "virtual-size=3MiB", "type=user")
	}
	want := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{}).Read(want[1<<20 : 2<<20])
	file := func(name string) string { return filepath.Join(dir, name) }
	d.must(os.WriteFile(file("in"), want, 0o600))
	first, second := disk(), disk()
	c.xe("vdi-import", "uuid="+first, "filename="+file("in"))
	base := c.xe("vdi-snapshot", "uuid="+first)
	c.xe("vdi-export", "uuid="+base, "filename="+file("base.vhd"), "format=vhd")
	copy(want, "changed")
	d.must(os.WriteFile(file("head"), want[:512], 0o600))
	c.xe("vdi-import", "uuid="+first, "filename="+file("head"), "format=raw")
	c.xe("vdi-export", "uuid="+first, "filename="+file("day2.vhd"), "format=vhd", "base="+base)
	for _, name := range []string{"base.vhd", "day2.vhd"} {
		c.xe("vdi-import", "uuid="+second, "filename="+file(name), "format=vhd")
	}
	c.xe("vdi-export", "uuid="+second, "filename="+file("out"))
	if got, err := os.ReadFile(file("out")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back as others: %v", len(got), err)
	}
	if _, _, errOut := c.try("vdi-import", "uuid="+second, "filename="+file("in"), "format=vhd"); !strings.Contains(errOut, "import failed") && !strings.Contains(errOut, "IMPORT_ERROR") {
		t.Errorf("raw bytes as a VHD: %s", errOut)
	}
}
