//go:build lab

package devhost

import (
	"errors"
	"fmt"
	"testing"

	"cairn/toolstack/hypervisor"
)

// TestLibvirtLongestChain: a disk of as many layers as it may have takes part in all
// that is done to a guest, and the guest outlives its libvirtd.
func TestLibvirtLongestChain(t *testing.T) {
	l, h, v := start(t)
	ctx := bounded(t)
	top := v.Create(t, "layer1.qcow2", 8<<20)
	grow := func(n int) hypervisor.Source { return v.Overlay(t, fmt.Sprintf("layer%d.qcow2", n), top) }
	for n := 2; n < hypervisor.MaxLayers; n++ {
		top = grow(n)
	}
	spec, id := withDisk(top)
	must(t, h.Start(ctx, spec, false))
	last := grow(hypervisor.MaxLayers)
	overlay := []hypervisor.Overlay{{ID: id, Source: last}}
	must(t, h.Snapshot(ctx, spec.UUID, overlay))
	must(t, h.Commit(ctx, spec.UUID, id, nil))
	must(t, h.Snapshot(ctx, spec.UUID, []hypervisor.Overlay{{ID: id, Source: grow(hypervisor.MaxLayers)}}))
	must(t, errors.Join(l.Kill("libvirtd"), l.Run("libvirtd")))
	on := func(when string) {
		t.Helper()
		must(t, h.Ready(ctx))
		hw, err := h.Hardware(ctx, spec.UUID)
		must(t, err)
		if disk, _ := hw.Disk(id); !disk.Source.Equal(&last) {
			t.Errorf("%s: the disk is on %+v", when, disk.Source)
		}
	}
	on("after libvirtd's death")
	must(t, h.Pause(ctx, spec.UUID)) // waits until libvirt has taken the domain over
	must(t, h.Resume(ctx, spec.UUID))
	file := v.Path("memory")
	must(t, h.Save(ctx, spec.UUID, file))
	spec.Disks[0].Source = &last
	must(t, h.Restore(ctx, file, spec, false))
	on("after a restore")
	must(t, h.Destroy(ctx, spec.UUID))
	v.Check(t, last)
}
