// Package life takes a guest through all a machine can go through, by the
// management API alone, and looks at each step at what its disk holds. It is the
// same on a host booted in the lab and on one of `make dev`.
//
// A Life is used by one goroutine.
package life

import (
	"context"
	"strings"
	"testing"

	"cairn/ci/lab/demo"
	"cairn/ci/lab/inside"
	"cairn/toolstack/client"
)

const diskSize = 24 << 20

// Life is one guest, its disk and what its disk holds.
type Life struct {
	T     testing.TB
	API   API
	Host  inside.Host
	Guest *demo.Guest
	SR    string

	before Census
	vdi    string
	disk   string // serial number of the disk, as the guest sees it
}

// New makes a storage repository of a kind and a guest with a disk on it.
func New(ctx context.Context, t testing.TB, c *client.Client, host inside.Host, kind string, config map[string]string) *Life {
	t.Helper()
	l := &Life{T: t, API: API{t, c}, Host: host}
	l.before = Count(ctx, l.API, host)
	l.SR = l.API.Repository(ctx, kind, config)
	var err error
	if l.Guest, err = demo.Create(ctx, c, "life"); err != nil {
		t.Fatal(err)
	}
	l.vdi, l.disk = l.API.Disk(ctx, l.SR, "system", diskSize)
	l.API.Drive(ctx, l.Guest.Ref, l.vdi, "0", "Disk")
	l.API.Call(ctx, nil, "VM.set_VCPUs_max", l.Guest.Ref, 2)
	return l
}

// Whole lives from the first start to the last trace.
func (l *Life) Whole(ctx context.Context) {
	l.T.Helper()
	tty := Up(ctx, l.T, l.Guest)
	one := tty.Fill(ctx, l.T, l.disk, 1, 8)
	l.hotPlug(ctx, tty)
	snapshot := l.API.Ref(ctx, "VM.snapshot", l.Guest.Ref, "first")
	l.holds(ctx, tty, l.disk, one, "after a snapshot")
	two := tty.Fill(ctx, l.T, l.disk, 2, 8)
	checkpoint := l.API.Ref(ctx, "VM.checkpoint", l.Guest.Ref, "second")
	tty = Sit(ctx, l.T, l.Guest) // the machine was put aside for a moment, and its console with it
	_, err := demo.Heartbeats(ctx, tty.Console, 2)
	must(l.T, err)
	tty = l.sleepAndWake(ctx, two)
	three := tty.Fill(ctx, l.T, l.disk, 3, 16)
	if one == two || two == three {
		l.T.Fatal("writing changes nothing")
	}
	l.halt(ctx)
	l.API.Call(ctx, nil, "VM.revert", snapshot)
	l.State(ctx, "Halted")
	l.sound(ctx)
	l.copies(ctx, one)
	l.API.Call(ctx, nil, "VM.revert", checkpoint)
	l.State(ctx, "Suspended")
	l.sound(ctx)
	l.wake(ctx, two)
	l.halt(ctx)
	l.nothingLeft(ctx, snapshot, checkpoint)
}

// halt takes the guest's power away, after which its images must be sound.
func (l *Life) halt(ctx context.Context) {
	l.T.Helper()
	must(l.T, l.Guest.HardShutdown(ctx))
	l.sound(ctx)
}

func (l *Life) sound(ctx context.Context) {
	l.T.Helper()
	if Sound(ctx, l.API, l.Host) == 0 {
		l.T.Error("there is no image to look at")
	}
}

// State asserts the guest's power state.
func (l *Life) State(ctx context.Context, want string) {
	l.T.Helper()
	if got, err := l.Guest.PowerState(ctx); err != nil || got != want {
		l.T.Errorf("%s is %s, %v; want %s", l.Guest.Name, got, err, want)
	}
}

func (l *Life) holds(ctx context.Context, tty Keyboard, disk, want, when string) {
	l.T.Helper()
	if got := tty.Sum(ctx, l.T, disk); got != want {
		l.T.Errorf("%s disk %s is %s, want %s", when, disk, got, want)
	}
}

// hotPlug gives a running guest a disk, a NIC and a CPU, and takes the disk and
// the NIC away.
func (l *Life) hotPlug(ctx context.Context, tty Keyboard) {
	l.T.Helper()
	vdi, serial := l.API.Disk(ctx, l.SR, "data", diskSize)
	vbd := l.API.Drive(ctx, l.Guest.Ref, vdi, "1", "Disk")
	l.API.Call(ctx, nil, "VBD.plug", vbd)
	filled := tty.Fill(ctx, l.T, serial, 9, 4)
	l.API.Call(ctx, nil, "VBD.unplug", vbd)
	if answer := strings.Join(tty.Ask(ctx, l.T, "disks"), "\n"); strings.Contains(answer, serial) {
		l.T.Errorf("the disk is there still:\n%s", answer)
	}
	l.API.Call(ctx, nil, "VBD.plug", vbd)
	l.holds(ctx, tty, serial, filled, "after it was out")
	l.API.Call(ctx, nil, "VBD.unplug", vbd)
	l.API.Call(ctx, nil, "VBD.destroy", vbd)
	l.API.Call(ctx, nil, "VDI.destroy", vdi)
	l.plugNIC(ctx, tty)
	l.API.Call(ctx, nil, "VM.set_VCPUs_number_live", l.Guest.Ref, 2)
	if kvm, err := l.Guest.QueryKVM(ctx); err != nil || !kvm.Enabled {
		return // an emulated guest's kernel refuses a CPU that comes later
	}
	if online := Word(l.T, tty.Ask(ctx, l.T, "cpus"), "cpus", "online"); online != "0-1" {
		l.T.Errorf("CPUs %s are there, want 0-1", online)
	}
}

func (l *Life) plugNIC(ctx context.Context, tty Keyboard) {
	l.T.Helper()
	network := l.API.Network(ctx, "private")
	vif := l.API.NIC(ctx, l.Guest.Ref, network, "0")
	l.API.Call(ctx, nil, "VIF.plug", vif)
	mac := l.API.Text(ctx, "VIF.get_MAC", vif)
	if answer := strings.Join(tty.Ask(ctx, l.T, "nics %s", mac), "\n"); !strings.Contains(answer, "mac="+mac) {
		l.T.Errorf("no NIC %s:\n%s", mac, answer)
	}
	l.API.Call(ctx, nil, "VIF.unplug", vif)
	l.API.Call(ctx, nil, "VIF.destroy", vif)
	l.API.Call(ctx, nil, "network.destroy", network)
}

// sleepAndWake suspends and resumes the guest, which goes on where it was.
func (l *Life) sleepAndWake(ctx context.Context, want string) Keyboard {
	l.T.Helper()
	l.API.Call(ctx, nil, "VM.suspend", l.Guest.Ref)
	l.State(ctx, "Suspended")
	return l.wake(ctx, want)
}

func (l *Life) wake(ctx context.Context, want string) Keyboard {
	l.T.Helper()
	l.API.Call(ctx, nil, "VM.resume", l.Guest.Ref, false, false)
	tty := Sit(ctx, l.T, l.Guest)
	_, err := demo.Heartbeats(ctx, tty.Console, 1)
	must(l.T, err)
	l.holds(ctx, tty, l.disk, want, "after a resume")
	return tty
}

// copies clones the halted guest: both hold the same, and what one writes the
// other does not see.
func (l *Life) copies(ctx context.Context, want string) {
	l.T.Helper()
	other := &demo.Guest{Name: "clone"}
	other.Ref = l.API.Ref(ctx, "VM.clone", l.Guest.Ref, other.Name)
	other = demo.Attach(l.API.Client, other)
	vbd := l.API.First(ctx, "VM.get_VBDs", other.Ref)
	vdi := l.API.Ref(ctx, "VBD.get_VDI", vbd)
	serial := l.API.Text(ctx, "VDI.get_uuid", vdi)
	tty := Up(ctx, l.T, other)
	l.holds(ctx, tty, serial, want, "in a clone")
	tty.Fill(ctx, l.T, serial, 5, 8)
	must(l.T, other.HardShutdown(ctx))
	l.sound(ctx)
	must(l.T, other.Destroy(ctx))
	l.API.Call(ctx, nil, "VDI.destroy", vdi)

	tty = Up(ctx, l.T, l.Guest)
	l.holds(ctx, tty, l.disk, want, "after its clone was written to")
	l.halt(ctx)
}

// nothingLeft destroys everything; the repository must be empty then.
func (l *Life) nothingLeft(ctx context.Context, snapshots ...string) {
	l.T.Helper()
	for _, vm := range append(snapshots, l.Guest.Ref) {
		var vbds, vdis []string
		l.API.Call(ctx, &vbds, "VM.get_VBDs", vm)
		for _, vbd := range vbds {
			vdis = append(vdis, l.API.Ref(ctx, "VBD.get_VDI", vbd))
		}
		l.API.Call(ctx, nil, "VM.destroy", vm)
		for _, vdi := range vdis {
			if err := l.API.Client.Call(ctx, "VDI.destroy", nil, vdi); err != nil && !client.IsCode(err, "HANDLE_INVALID") {
				l.T.Errorf("VDI.destroy: %v", err)
			}
		}
	}
	l.API.Empty(ctx, l.SR)
	pbd := l.API.First(ctx, "SR.get_PBDs", l.SR)
	l.API.Call(ctx, nil, "PBD.unplug", pbd)
	l.API.Call(ctx, nil, "PBD.plug", pbd)
	l.API.Call(ctx, nil, "SR.scan", l.SR)
	if vdis := l.API.vdis(ctx, l.SR); len(vdis) != 0 {
		l.T.Errorf("%d disks came back", len(vdis))
	}
	l.API.Call(ctx, nil, "PBD.unplug", pbd)
	l.API.Call(ctx, nil, "SR.destroy", l.SR)
	NothingBeyond(ctx, l.API, l.Host, l.before)
}
