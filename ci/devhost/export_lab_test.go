//go:build lab

package devhost

import (
	"os"
	"path/filepath"
	"testing"

	"cairn/init/hostd/client"
	"cairn/toolstack/transfer/disk/disktest"
	"cairn/toolstack/transfer/nbd"
)

// TestHostdLendsVolumes: the real qemu-nbd lends out what hostd made, in layers, and
// what is written to it is there when it is closed.
func TestHostdLendsVolumes(t *testing.T) {
	dir, _, c := Hostd(t)
	const sr = "0ab7a2c5-1c8c-4f2b-9c7a-00000000000b"
	ctx := t.Context()
	directory(t, c, sr, "/state/sr/lent")
	borrow := func(name string, r client.ExportRequest) *nbd.Client {
		t.Helper()
		lent, err := c.ExportVolume(ctx, sr, name, r)
		must(t, err)
		d, err := nbd.New(ctx, lent, "", nbd.Depth)
		must(t, err)
		return d
	}
	for name, spec := range map[string]client.VolumeSpec{"raw": {Size: 5 << 20, Format: client.Raw}, "base": {Size: 5 << 20, Format: client.Qcow2}} {
		_, err := c.CreateVolume(ctx, sr, name, spec)
		must(t, err)
		d := borrow(name, client.ExportRequest{Writable: true})
		disktest.Keeps(t, d)
		must(t, d.Close())
	}
	_, err := c.CreateVolume(ctx, sr, "top", client.VolumeSpec{Format: client.Qcow2, Backing: "base"})
	must(t, err)
	below := []string{"base"}
	d := borrow("top", client.ExportRequest{Layers: below, Writable: true})
	_, err = d.WriteAt([]byte("mine"), 1<<20)
	must(t, err)
	must(t, d.Close())
	d = borrow("top", client.ExportRequest{Layers: below})
	b := make([]byte, 4)
	_, err = d.ReadAt(b, 1<<20)
	list, serr := d.Status(ctx, nbd.Depth, 1<<20, 1<<20)
	if err != nil || serr != nil || string(b) != "mine" || list[0].Len != 64<<10 || list[0].Flags != 1 || list[1].Flags != 2 {
		t.Errorf("%q %v, %v, %v", b, list, err, serr)
	}
	must(t, d.Close())
	check, err := c.CheckVolume(ctx, sr, "top")
	if err != nil || check.Errors != 0 || check.Leaks != 0 {
		t.Errorf("%+v, %v", check, err)
	}
	// An image that QEMU cannot open says so.
	lent, err := c.ExportVolume(ctx, sr, "raw", client.ExportRequest{Writable: true})
	must(t, err)
	if other, err := c.ExportVolume(ctx, sr, "raw", client.ExportRequest{}); err == nil {
		t.Error("it is lent out twice", other.Close())
	}
	must(t, lent.Close())
	if left, err := os.ReadDir(filepath.Join(dir, "run/cairn/exports")); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
