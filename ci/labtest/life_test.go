//go:build lab

package labtest

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn/ci/lab"
	"cairn/ci/lab/demo"
	"cairn/ci/lab/life"
)

// lifeLimit bounds a whole life of a guest under emulation.
const lifeLimit = 12 * time.Minute

// TestVMLife takes a guest through all there is on a booted host.
func TestVMLife(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), lifeLimit)
	defer cancel()
	h := boot(ctx, t, func(c *lab.Config) {
		c.Debug = true
		c.Disks = []lab.Disk{{SizeMiB: 2048, Serial: "data"}}
	})
	c := login(ctx, t, h)
	wait(ctx, t, h, "host-ready")
	life.New(ctx, t, c, "ext", map[string]string{"device": "/dev/vdb"}).Whole(ctx)
	all, err := h.Debug(ctx, "processes")
	must(t, err)
	for _, p := range all.Processes {
		if strings.Contains(p.Argv, "qemu") || strings.Contains(p.Argv, "swtpm") {
			t.Errorf("a process is left: %d %s", p.PID, p.Argv)
		}
	}
	powerOff(ctx, t, h)
	clean(ctx, t, h)
}

// TestVMFromCD boots the demo guest by firmware from a CD in the host's own drive.
func TestVMFromCD(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), lifeLimit)
	defer cancel()
	h := boot(ctx, t, func(c *lab.Config) {
		c.Debug = true
		c.Disks = []lab.Disk{{Path: filepath.Join(image(t), "demo.iso"), Format: "raw", Bus: "cd"}}
	})
	a := life.API{T: t, Client: login(ctx, t, h)}
	wait(ctx, t, h, "host-ready")
	cd := disc(ctx, t, a)
	template := a.First(ctx, "VM.get_by_name_label", "Debian Trixie 13")
	g := &demo.Guest{Name: "from CD"}
	g.Ref = a.Ref(ctx, "VM.clone", template, g.Name)
	a.Call(ctx, nil, "VM.remove_from_other_config", g.Ref, "disks")
	a.Call(ctx, nil, "VM.provision", g.Ref)
	a.Call(ctx, nil, "VM.set_memory_limits", g.Ref, 512<<20, 512<<20, 512<<20, 512<<20)
	a.Call(ctx, nil, "VM.set_HVM_boot_params", g.Ref, map[string]string{"firmware": "uefi", "order": "d"})
	a.Drive(ctx, g.Ref, cd, "3", "CD")
	g.UUID = a.Text(ctx, "VM.get_uuid", g.Ref)
	g = demo.Attach(a.Client, g)
	tty := life.Up(ctx, t, g)
	answer := strings.Join(tty.Ask(ctx, t, "mount-cd"), "\n")
	if !strings.Contains(strings.ToUpper(answer), "EFI.IMG") {
		t.Errorf("the CD holds\n%s", answer)
	}
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
	var batch struct {
		Token string `json:"token"`
	}
	for {
		a.Call(ctx, nil, "SR.scan", sr)
		var vdis []string
		a.Call(ctx, &vdis, "SR.get_VDIs", sr)
		if len(vdis) > 0 {
			return vdis[0]
		}
		a.Call(ctx, &batch, "event.from", []string{"vdi"}, batch.Token, 3.5)
	}
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
