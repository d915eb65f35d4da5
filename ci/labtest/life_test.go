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
	"cairn/toolstack/client"
)

// lifeLimit bounds a whole life of a guest under emulation.
const lifeLimit = 12 * time.Minute

const (
	diskSize = 64 << 20
	null     = "OpaqueRef:NULL"
)

// life is one guest, its disk and what its disk holds.
type life struct {
	t    *testing.T
	h    *lab.Host
	api  api
	g    *demo.Guest
	sr   string
	vdi  string
	disk string // serial number of the disk, as the guest sees it
	vbd  string
}

func newLife(ctx context.Context, t *testing.T, kind string) *life {
	t.Helper()
	h := boot(ctx, t, func(c *lab.Config) {
		c.Debug = true
		c.Disks = []lab.Disk{{SizeMiB: 2048, Serial: "data"}}
	})
	l := &life{t: t, h: h, api: api{t, login(ctx, t, h)}}
	l.sr = l.api.repository(ctx, kind, "/dev/vdb")
	l.g = create(ctx, t, l.api.Client, "life")
	l.vdi, l.disk = l.api.disk(ctx, l.sr, "system", diskSize)
	l.vbd = l.api.drive(ctx, l.g.Ref, l.vdi, "0", "Disk")
	return l
}

// TestVMLife takes a guest through all there is, and looks at each step at what
// its disk holds.
func TestVMLife(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), lifeLimit)
	defer cancel()
	l := newLife(ctx, t, "ext")
	l.api.call(ctx, nil, "VM.set_VCPUs_max", l.g.Ref, 2)
	tty := up(ctx, t, l.g)
	one := tty.fill(ctx, t, l.disk, 1, 8)
	l.hotPlug(ctx, tty)
	snapshot := l.api.ref(ctx, "VM.snapshot", l.g.Ref, "first")
	if got := tty.sum(ctx, t, l.disk); got != one {
		t.Errorf("the disk is %s after a snapshot, was %s", got, one)
	}
	two := tty.fill(ctx, t, l.disk, 2, 8)
	checkpoint := l.api.ref(ctx, "VM.checkpoint", l.g.Ref, "second")
	_, err := demo.Heartbeats(ctx, tty.Console, 2)
	must(t, err)
	tty = l.sleepAndWake(ctx, two)
	three := tty.fill(ctx, t, l.disk, 3, 16)
	if one == two || two == three {
		t.Fatal("writing changes nothing")
	}
	must(t, l.g.HardShutdown(ctx))
	l.api.call(ctx, nil, "VM.revert", snapshot)
	wantState(ctx, t, l.g, "Halted")
	l.copies(ctx, one)
	l.api.call(ctx, nil, "VM.revert", checkpoint)
	wantState(ctx, t, l.g, "Suspended")
	l.holdsAfterResume(ctx, two)
	must(t, l.g.HardShutdown(ctx))
	l.nothingLeft(ctx, snapshot, checkpoint)
	powerOff(ctx, t, l.h)
	clean(ctx, t, l.h)
}

// hotPlug gives a running guest a disk, a NIC and a CPU, and takes the disk and
// the NIC away.
func (l *life) hotPlug(ctx context.Context, tty keyboard) {
	l.t.Helper()
	vdi, serial := l.api.disk(ctx, l.sr, "data", diskSize)
	vbd := l.api.drive(ctx, l.g.Ref, vdi, "1", "Disk")
	l.api.call(ctx, nil, "VBD.plug", vbd)
	filled := tty.fill(ctx, l.t, serial, 9, 4)
	l.api.call(ctx, nil, "VBD.unplug", vbd)
	if answer := strings.Join(tty.ask(ctx, l.t, "disks"), "\n"); strings.Contains(answer, serial) {
		l.t.Errorf("the disk is there still:\n%s", answer)
	}
	l.api.call(ctx, nil, "VBD.plug", vbd)
	if got := tty.sum(ctx, l.t, serial); got != filled {
		l.t.Errorf("the disk is %s after it was out, was %s", got, filled)
	}
	l.api.call(ctx, nil, "VBD.unplug", vbd)
	l.api.call(ctx, nil, "VBD.destroy", vbd)
	l.api.call(ctx, nil, "VDI.destroy", vdi)

	network := l.api.ref(ctx, "network.create", map[string]any{
		"name_label": "private", "name_description": "", "MTU": "1500", "other_config": map[string]string{}, "bridge": "", "managed": true,
	})
	vif := l.api.nic(ctx, l.g.Ref, network, "0")
	l.api.call(ctx, nil, "VIF.plug", vif)
	mac := l.api.text(ctx, "VIF.get_MAC", vif)
	if answer := strings.Join(tty.ask(ctx, l.t, "nics"), "\n"); !strings.Contains(answer, "mac="+mac) {
		l.t.Errorf("no NIC %s:\n%s", mac, answer)
	}
	l.api.call(ctx, nil, "VIF.unplug", vif)
	l.api.call(ctx, nil, "VIF.destroy", vif)
	l.api.call(ctx, nil, "network.destroy", network)

	l.api.call(ctx, nil, "VM.set_VCPUs_number_live", l.g.Ref, 2)
	if online := word(l.t, tty.ask(ctx, l.t, "cpus"), "cpus", "online"); online != "0-1" {
		l.t.Errorf("CPUs %s are there, want 0-1", online)
	}
}

// sleepAndWake suspends and resumes the guest, which goes on where it was.
func (l *life) sleepAndWake(ctx context.Context, want string) keyboard {
	l.t.Helper()
	l.api.call(ctx, nil, "VM.suspend", l.g.Ref)
	wantState(ctx, l.t, l.g, "Suspended")
	return l.holdsAfterResume(ctx, want)
}

func (l *life) holdsAfterResume(ctx context.Context, want string) keyboard {
	l.t.Helper()
	l.api.call(ctx, nil, "VM.resume", l.g.Ref, false, false)
	tty := sit(ctx, l.t, l.g)
	_, err := demo.Heartbeats(ctx, tty.Console, 1)
	must(l.t, err)
	if got := tty.sum(ctx, l.t, l.disk); got != want {
		l.t.Errorf("the disk is %s after a resume, was %s", got, want)
	}
	return tty
}

// copies clones the halted guest: both hold the same, and what one writes the
// other does not see.
func (l *life) copies(ctx context.Context, want string) {
	l.t.Helper()
	other := &demo.Guest{Name: "clone"}
	other.Ref = l.api.ref(ctx, "VM.clone", l.g.Ref, other.Name)
	other = demo.Attach(l.api.Client, other)
	var vbds []string
	l.api.call(ctx, &vbds, "VM.get_VBDs", other.Ref)
	if len(vbds) != 1 {
		l.t.Fatalf("the clone has %d drives", len(vbds))
	}
	vdi := l.api.ref(ctx, "VBD.get_VDI", vbds[0])
	serial := l.api.text(ctx, "VDI.get_uuid", vdi)
	tty := up(ctx, l.t, other)
	if got := tty.sum(ctx, l.t, serial); got != want {
		l.t.Errorf("the clone's disk is %s, want %s", got, want)
	}
	tty.fill(ctx, l.t, serial, 5, 8)
	must(l.t, other.HardShutdown(ctx))
	must(l.t, other.Destroy(ctx))
	l.api.call(ctx, nil, "VDI.destroy", vdi)

	tty = up(ctx, l.t, l.g)
	if got := tty.sum(ctx, l.t, l.disk); got != want {
		l.t.Errorf("the disk is %s after its clone was written to, want %s", got, want)
	}
	must(l.t, l.g.HardShutdown(ctx))
}

// nothingLeft destroys everything and looks for what stayed.
func (l *life) nothingLeft(ctx context.Context, snapshots ...string) {
	l.t.Helper()
	for _, vm := range append(snapshots, l.g.Ref) {
		var vbds []string
		l.api.call(ctx, &vbds, "VM.get_VBDs", vm)
		var vdis []string
		for _, vbd := range vbds {
			vdis = append(vdis, l.api.ref(ctx, "VBD.get_VDI", vbd))
		}
		l.api.call(ctx, nil, "VM.destroy", vm)
		for _, vdi := range vdis {
			if err := l.api.Call(ctx, "VDI.destroy", nil, vdi); err != nil && !client.IsCode(err, "HANDLE_INVALID") {
				l.t.Errorf("VDI.destroy: %v", err)
			}
		}
	}
	all, err := l.h.Debug(ctx, "processes")
	must(l.t, err)
	for _, p := range all.Processes {
		if strings.Contains(p.Argv, "qemu") || strings.Contains(p.Argv, "swtpm") {
			l.t.Errorf("a process is left: %d %s", p.PID, p.Argv)
		}
	}
	l.api.first(ctx, "SR.get_PBDs", l.sr)
	pbd := l.api.first(ctx, "SR.get_PBDs", l.sr)
	l.api.call(ctx, nil, "PBD.unplug", pbd)
	l.api.call(ctx, nil, "PBD.plug", pbd)
	l.api.call(ctx, nil, "SR.scan", l.sr)
	var vdis []string
	l.api.call(ctx, &vdis, "SR.get_VDIs", l.sr)
	if len(vdis) != 0 {
		l.t.Errorf("%d disks are left", len(vdis))
	}
	l.api.call(ctx, nil, "PBD.unplug", pbd)
	l.api.call(ctx, nil, "SR.destroy", l.sr)
}

// TestVMFromCD boots the demo guest by firmware from a CD in the host's own drive.
func TestVMFromCD(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), lifeLimit)
	defer cancel()
	h := boot(ctx, t, func(c *lab.Config) {
		c.Debug = true
		c.Disks = []lab.Disk{{Path: filepath.Join(image(t), "demo.iso"), Format: "raw", Bus: "cd"}}
	})
	a := api{t, login(ctx, t, h)}
	wait(ctx, t, h, "host-ready")
	cd := disc(ctx, t, a)
	template := a.first(ctx, "VM.get_by_name_label", "Debian 13")
	g := &demo.Guest{Name: "from CD"}
	g.Ref = a.ref(ctx, "VM.clone", template, g.Name)
	a.call(ctx, nil, "VM.remove_from_other_config", g.Ref, "disks")
	a.call(ctx, nil, "VM.provision", g.Ref)
	a.call(ctx, nil, "VM.set_memory_limits", g.Ref, 512<<20, 512<<20, 512<<20, 512<<20)
	a.call(ctx, nil, "VM.set_HVM_boot_params", g.Ref, map[string]string{"firmware": "uefi", "order": "d"})
	a.drive(ctx, g.Ref, cd, "3", "CD")
	g.UUID = a.text(ctx, "VM.get_uuid", g.Ref)
	g = demo.Attach(a.Client, g)
	tty := up(ctx, t, g)
	answer := strings.Join(tty.ask(ctx, t, "mount-cd"), "\n")
	if !strings.Contains(strings.ToUpper(answer), "EFI.IMG") {
		t.Errorf("the CD holds\n%s", answer)
	}
	must(t, g.CleanShutdown(ctx))
	must(t, g.Destroy(ctx))
	powerOff(ctx, t, h)
}

// disc is the disc in the host's drive.
func disc(ctx context.Context, t *testing.T, a api) string {
	t.Helper()
	var srs map[string]struct {
		Type string   `json:"type"`
		VDIs []string `json:"VDIs"`
	}
	a.call(ctx, &srs, "SR.get_all_records")
	for _, sr := range srs {
		if sr.Type == "udev" && len(sr.VDIs) == 1 {
			return sr.VDIs[0]
		}
	}
	t.Fatalf("no disc in a drive of the host: %+v", srs)
	return ""
}
