//go:build lab

package main

import (
	"context"
	"fmt"
	"strings"

	"cairn/ci/lab/demo"
	"cairn/ci/lab/life"
)

// operation is what is done to a guest while daemons die.
type operation struct {
	name string
	// slow ones need a guest that has booted each time: there one daemon dies at
	// each step, of the seed's choice.
	slow   bool
	before func(*rig) // makes the guest what the operation asks for
	call   func(context.Context, *rig) error
	done   func(*rig) bool // by the records
	after  func(*rig)      // looks at the guest itself
}

// diskBytes is small: every byte is read very often.
const diskBytes = 8 << 20

var rounds = []round{
	{nothing, nothing, []operation{
		{"VM.start", false, halted, ask("VM.start", (*rig).vmRef, false, false), in("Running"), same},
		{"VM.hard_shutdown", false, started, ask("VM.hard_shutdown", (*rig).vmRef), in("Halted"), nothing},
	}},
	{booted, nothing, []operation{
		{"VM.snapshot", false, written, takeSnapshot, snapshotThere, keptWhileItRuns},
	}},
	{plugs, unplugs, []operation{
		{"VBD.plug", false, detached("VBD"), ask("VBD.plug", (*rig).vbdRef), attached("VBD"), seesDisk},
		{"VBD.unplug", false, isAttached("VBD"), ask("VBD.unplug", (*rig).vbdRef), not(attached("VBD")), seesDisk},
		{"VIF.plug", false, detached("VIF"), ask("VIF.plug", (*rig).vifRef), attached("VIF"), keptWhileItRuns},
		{"VIF.unplug", false, isAttached("VIF"), ask("VIF.unplug", (*rig).vifRef), not(attached("VIF")), keptWhileItRuns},
	}},
	{nothing, halted, []operation{
		{"VM.clean_shutdown", true, booted, ask("VM.clean_shutdown", (*rig).vmRef), in("Halted"), nothing},
	}},
}

func nothing(*rig) {}

func (r *rig) vmRef() string  { return r.guest.Ref }
func (r *rig) vbdRef() string { return r.vbd }
func (r *rig) vifRef() string { return r.vif }

// ask is a call about one object.
func ask(method string, of func(*rig) string, args ...any) func(context.Context, *rig) error {
	return func(ctx context.Context, r *rig) error {
		return r.api.Client.Call(ctx, method, nil, append([]any{of(r)}, args...)...)
	}
}

func (r *rig) state() string { return r.api.Text(r.ctx, "VM.get_power_state", r.guest.Ref) }

func in(state string) func(*rig) bool { return func(r *rig) bool { return r.state() == state } }

func not(f func(*rig) bool) func(*rig) bool { return func(r *rig) bool { return !f(r) } }

func halted(r *rig) {
	r.Helper()
	if r.state() != "Halted" {
		r.must(r.guest.HardShutdown(r.ctx))
	}
	r.tty, r.qemu = nil, 0
}

func started(r *rig) {
	r.Helper()
	if r.state() != "Running" {
		r.must(r.guest.Start(r.ctx))
		r.tty, r.qemu = nil, 0
	}
}

// booted starts the guest anew and waits until it can be asked.
func booted(r *rig) {
	r.Helper()
	halted(r)
	k := life.Up(r.ctx, quiet{r.T}, r.guest)
	r.tty = &k
	same(r)
}

// same notes which process the guest is, and that it stays.
func same(r *rig) {
	r.Helper()
	pids := r.pids()
	switch {
	case r.state() != "Running":
		return
	case len(pids) != 1 || r.qemu != 0 && r.qemu != pids[0]:
		r.lost++
		r.Errorf("the guest was process %d and is %v", r.qemu, pids)
	default:
		r.qemu = pids[0]
	}
}

// keptWhileItRuns: the guest is the same process and reads its disk as it wrote it.
func keptWhileItRuns(r *rig) {
	r.Helper()
	same(r)
	if r.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, callLimit)
	defer cancel()
	if got := r.keyboard().Sum(ctx, r.T, r.serial); got != r.content[r.system] {
		r.lost++
		r.Errorf("the guest reads %s, and wrote %s", got, r.content[r.system])
	}
}

// written gives the disk other contents.
func written(r *rig) {
	r.Helper()
	r.fills++
	ctx, cancel := context.WithTimeout(r.ctx, callLimit)
	defer cancel()
	r.content[r.system] = r.keyboard().Fill(ctx, r.T, r.serial, r.fills, 2)
}

func (r *rig) snapshotName() string { return fmt.Sprintf("snapshot %d", r.fills) }

func takeSnapshot(ctx context.Context, r *rig) error {
	return r.api.Client.Call(ctx, "VM.snapshot", nil, r.guest.Ref, r.snapshotName())
}

// snapshotThere finds the snapshot, which must hold what the disk did.
func snapshotThere(r *rig) bool {
	r.Helper()
	var found []string
	r.api.Call(r.ctx, &found, "VM.get_by_name_label", r.snapshotName())
	if len(found) > 1 {
		r.Errorf("%d snapshots are named %s", len(found), r.snapshotName())
	}
	for _, ref := range found {
		vbd := r.api.First(r.ctx, "VM.get_VBDs", ref)
		r.content[r.api.Ref(r.ctx, "VBD.get_VDI", vbd)] = r.content[r.system]
	}
	return len(found) > 0
}

// plugs makes what is plugged and unplugged.
func plugs(r *rig) {
	r.Helper()
	booted(r)
	vdi, _ := r.api.Disk(r.ctx, r.sr, "data", diskBytes)
	r.vbd = r.api.Drive(r.ctx, r.guest.Ref, vdi, "1", "Disk")
	r.vif = r.api.NIC(r.ctx, r.guest.Ref, r.network, "1")
	r.content[vdi] = r.read(vdi)
}

func unplugs(r *rig) {
	r.Helper()
	if r.Failed() {
		return
	}
	detached("VBD")(r)
	detached("VIF")(r)
	vdi := r.api.Ref(r.ctx, "VBD.get_VDI", r.vbd)
	r.api.Call(r.ctx, nil, "VBD.destroy", r.vbd)
	r.api.Call(r.ctx, nil, "VIF.destroy", r.vif)
	r.api.Call(r.ctx, nil, "VDI.destroy", vdi)
	delete(r.content, vdi)
	r.vbd, r.vif = "", ""
}

func (r *rig) device(class string) string {
	if class == "VBD" {
		return r.vbd
	}
	return r.vif
}

func attached(class string) func(*rig) bool {
	return func(r *rig) (is bool) {
		r.api.Call(r.ctx, &is, class+".get_currently_attached", r.device(class))
		return is
	}
}

func detached(class string) func(*rig) {
	return func(r *rig) {
		r.Helper()
		if attached(class)(r) {
			r.api.Call(r.ctx, nil, class+".unplug", r.device(class))
		}
	}
}

func isAttached(class string) func(*rig) {
	return func(r *rig) {
		r.Helper()
		if !attached(class)(r) {
			r.api.Call(r.ctx, nil, class+".plug", r.device(class))
		}
	}
}

// seesDisk: the guest itself has the disk when the record says so.
func seesDisk(r *rig) {
	r.Helper()
	keptWhileItRuns(r)
	serial := r.api.Text(r.ctx, "VDI.get_uuid", r.api.Ref(r.ctx, "VBD.get_VDI", r.vbd))
	has, sees := attached("VBD")(r), false
	for range 50 { // a guest notices a moment later
		if sees = strings.Contains(strings.Join(r.keyboard().Ask(r.ctx, r.T, "disks"), "\n"), serial); sees == has {
			return
		}
	}
	r.Errorf("the record says %v, the guest sees its disk: %v", has, sees)
}

// build makes the guest with its disk and NIC, and gives the disk contents.
func (r *rig) build() {
	r.Helper()
	r.sr = r.api.Repository(r.ctx, "file", map[string]string{"location": "/state/sr/chaos"})
	r.network = r.api.Ref(r.ctx, "network.create", map[string]any{
		"name_label": "lan", "name_description": "", "MTU": "1500", "other_config": map[string]string{}, "bridge": "", "managed": true,
	})
	var err error
	r.guest, err = demo.Create(r.ctx, r.api.Client, "chaos")
	r.must(err)
	r.system, r.serial = r.api.Disk(r.ctx, r.sr, "system", diskBytes)
	r.api.Drive(r.ctx, r.guest.Ref, r.system, "0", "Disk")
	r.api.NIC(r.ctx, r.guest.Ref, r.network, "0")
	booted(r)
	written(r)
	halted(r)
}
