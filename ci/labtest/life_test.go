//go:build lab

package labtest

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"cairn/ci/lab"
	"cairn/ci/lab/inside"
	"cairn/ci/lab/life"
	"cairn/toolstack/client"
)

// lifeLimit bounds a whole life of a guest under emulation.
const lifeLimit = 25 * time.Minute

// blank gives a host a disk for guests, blank.
func blank(c *lab.Config) { c.Disks = []lab.Disk{{SizeMiB: 2048, Serial: "data"}} }

// single gives a host one processor: where it is emulated, several of them damage its
// kernel's memory in the end (docs/decisions.md).
func single(c *lab.Config) {
	if lab.KVM() != nil {
		c.CPUs = 1
	}
}

var onBlank = map[string]string{"device": "/dev/vdb"}

// ready boots a host that can be looked into, and waits until all of it is there.
func ready(ctx context.Context, t *testing.T, change ...func(*lab.Config)) (*lab.Host, *client.Client) {
	t.Helper()
	h := boot(ctx, t, func(c *lab.Config) {
		c.Debug = true
		for _, f := range change {
			f(c)
		}
	})
	c := login(ctx, t, h)
	wait(ctx, t, h, "host-ready")
	return h, c
}

// TestVMLife takes a guest through all there is on a booted host.
func TestVMLife(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), lifeLimit)
	defer cancel()
	h, c := ready(ctx, t, blank, single)
	life.New(ctx, t, c, inside.Booted{Host: h}, "ext", onBlank).Whole(ctx)
	powerOff(ctx, t, h)
	clean(ctx, t, h)
}

// crowdLimit bounds the life of many guests on a host that is emulated itself.
const crowdLimit = 20 * time.Minute

// TestVMCrowd starts 20 guests at once, stops and destroys them: nothing of them is
// left on the host.
func TestVMCrowd(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), crowdLimit)
	defer cancel()
	h, c := ready(ctx, t, blank, func(c *lab.Config) { c.MemoryMiB = 5120 })
	crowd := life.NewCrowd(ctx, t, c, inside.Booted{Host: h}, "ext", onBlank)
	crowd.Live(ctx, 2)
	crowd.End(ctx)
	powerOff(ctx, t, h)
	clean(ctx, t, h)
}

// TestVMDrive reads a CD that lies in the host's own drive.
func TestVMDrive(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), lifeLimit)
	defer cancel()
	h, c := ready(ctx, t, func(c *lab.Config) {
		c.Disks = []lab.Disk{{Path: filepath.Join(image(t), "demo.iso"), Format: "raw", Bus: "cd"}}
	})
	a := life.API{T: t, Client: c}
	g := create(ctx, t, a.Client, "reader")
	a.Drive(ctx, g.Ref, disc(ctx, t, a), "3", "CD")
	tty := life.Up(ctx, t, g)
	life.ReadsDemoCD(ctx, t, tty)
	must(t, g.CleanShutdown(ctx))
	must(t, g.Destroy(ctx))
	powerOff(ctx, t, h)
}

// driveLimit is how long after a boot a drive may be found: its drivers come last.
const driveLimit = 2 * time.Minute

// inserted waits for a repository of drives to show a disc.
func inserted(ctx context.Context, t *testing.T, a life.API, sr string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, driveLimit)
	defer cancel()
	var vdis []string
	a.Until(ctx, "a disc", []string{"vdi"}, func() bool {
		a.Call(ctx, nil, "SR.scan", sr)
		a.Call(ctx, &vdis, "SR.get_VDIs", sr)
		return len(vdis) > 0
	})
	return vdis[0]
}

// disc is the disc in the host's drive.
func disc(ctx context.Context, t *testing.T, a life.API) string {
	t.Helper()
	var srs map[string]struct {
		Type     string            `json:"type"`
		SMConfig map[string]string `json:"sm_config"`
	}
	a.Call(ctx, &srs, "SR.get_all_records")
	for ref, sr := range srs {
		if sr.Type == "udev" && sr.SMConfig["type"] == "cd" {
			return inserted(ctx, t, a, ref)
		}
	}
	t.Fatalf("the host has no repository of its drives: %+v", srs)
	return ""
}

// TestVMLifeLVM takes a guest through a shorter life on logical volumes. After it the
// disk is as it came.
func TestVMLifeLVM(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), lifeLimit)
	defer cancel()
	h, c := ready(ctx, t, blank)
	l := life.New(ctx, t, c, inside.Booted{Host: h}, "lvm", onBlank)
	l.Short(ctx)
	l.Blank(ctx, "lvm", "/dev/vdb")
	powerOff(ctx, t, h)
	clean(ctx, t, h)
}
