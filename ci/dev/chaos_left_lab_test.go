//go:build lab

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"

	"cairn/toolstack/client"
)

// tearDown starts and stops the guest once more, destroys everything, and looks for
// what is left of it.
func (r *rig) tearDown() {
	r.Helper()
	booted(r)
	keptWhileItRuns(r)
	r.must(r.guest.CleanShutdown(r.ctx))
	r.tty, r.qemu = nil, 0
	r.rest(operation{name: "the last shutdown"})
	var snapshots []string
	r.api.Call(r.ctx, &snapshots, "VM.get_snapshots", r.guest.Ref)
	for _, vm := range append(snapshots, r.guest.Ref) {
		r.destroy(vm)
	}
	r.content = map[string]string{}
	r.untilEmpty()
	var bridge string
	r.api.Call(r.ctx, &bridge, "network.get_bridge", r.network)
	r.api.Call(r.ctx, nil, "network.destroy", r.network)
	pbd := r.api.First(r.ctx, "SR.get_PBDs", r.sr)
	r.api.Call(r.ctx, nil, "PBD.unplug", pbd)
	r.api.Call(r.ctx, nil, "SR.destroy", r.sr)
	r.nothingLeft(bridge)
}

// destroy takes a machine away with its disks.
func (r *rig) destroy(vm string) {
	r.Helper()
	var vbds, vdis []string
	r.api.Call(r.ctx, &vbds, "VM.get_VBDs", vm)
	for _, vbd := range vbds {
		vdis = append(vdis, r.api.Ref(r.ctx, "VBD.get_VDI", vbd))
	}
	r.api.Call(r.ctx, nil, "VM.destroy", vm)
	for _, vdi := range vdis {
		if err := r.api.Client.Call(r.ctx, "VDI.destroy", nil, vdi); err != nil && !client.IsCode(err, "HANDLE_INVALID") {
			r.Errorf("VDI.destroy: %v", err)
		}
	}
}

// untilEmpty waits until layers that nobody needs are removed.
func (r *rig) untilEmpty() {
	r.Helper()
	next := batch{}
	for range 120 {
		var vdis []string
		if r.api.Call(r.ctx, &vdis, "SR.get_VDIs", r.sr); len(vdis) == 0 {
			return
		}
		r.api.Call(r.ctx, &next, "event.from", []string{"vdi"}, next.Token, 0.5)
	}
	r.Errorf("disks are left")
}

// nothingLeft looks for processes, sockets, files, interfaces and rules.
func (r *rig) nothingLeft(bridge string) {
	r.Helper()
	if pids := r.pids(); len(pids) > 0 {
		r.Errorf("processes %v are left", pids)
	}
	for _, dir := range []string{"run/libvirt", "state/sr", "var/lib/libvirt"} {
		err := filepath.WalkDir(filepath.Join(r.dir, dir), func(path string, d os.DirEntry, err error) error {
			if err == nil && (strings.Contains(d.Name(), r.guest.UUID) || strings.HasSuffix(d.Name(), ".qcow2")) {
				r.Errorf("%s is left", path)
			}
			return err
		})
		r.must(err)
	}
	if taps := r.taps(); len(taps) > 0 {
		r.Errorf("interfaces %v are left", taps)
	}
	bridges, err := r.hostd.Bridges(r.ctx)
	r.must(err)
	for _, b := range bridges {
		if b.Name == bridge {
			r.Errorf("bridge %s is left", bridge)
		}
	}
	r.noRules()
}

// noRules: the tables of the host's network namespace name no interface of a guest's.
func (r *rig) noRules() {
	r.Helper()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", r.host.Pid()))
	r.must(err)
	defer ns.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	r.must(err)
	chains, err := c.ListChains()
	r.must(err)
	if len(chains) == 0 {
		r.Error("there are no rules at all, not even hostd's own")
	}
	for _, chain := range chains {
		if strings.Contains(chain.Name, "cv") {
			r.Errorf("chain %s is left", chain.Name)
		}
		sets, err := c.GetSets(chain.Table)
		r.must(err)
		for _, set := range sets {
			elements, err := c.GetSetElements(set)
			r.must(err)
			if slices.ContainsFunc(elements, func(e nftables.SetElement) bool { return strings.HasPrefix(string(e.Key), "cv") }) {
				r.Errorf("map %s still names interfaces of guests", set.Name)
			}
		}
	}
}
