//go:build lab

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cairn/toolstack/hypervisor"
)

// row is what all records have that can have operations.
type row struct {
	Allowed []string          `json:"allowed_operations"`
	Current map[string]string `json:"current_operations"`
}

// records are those of the guest and of its repository, at one time.
type records struct {
	vm struct {
		row
		State string   `json:"power_state"`
		Host  string   `json:"resident_on"`
		VBDs  []string `json:"VBDs"`
		VIFs  []string `json:"VIFs"`
	}
	vbds map[string]struct {
		row
		UUID     string `json:"uuid"`
		VDI      string `json:"VDI"`
		Attached bool   `json:"currently_attached"`
	}
	vifs map[string]struct {
		row
		UUID     string `json:"uuid"`
		Attached bool   `json:"currently_attached"`
	}
	vdis map[string]struct {
		row
		SR       string            `json:"SR"`
		UUID     string            `json:"uuid"`
		Name     string            `json:"name_label"`
		Location string            `json:"location"`
		Managed  bool              `json:"managed"`
		SMConfig map[string]string `json:"sm_config"`
	}
	tasks map[string]struct {
		Name   string `json:"name_label"`
		Status string `json:"status"`
	}
}

func (r *rig) records() (x records) {
	r.Helper()
	r.api.Call(r.ctx, &x.vm, "VM.get_record", r.guest.Ref)
	r.api.Call(r.ctx, &x.vbds, "VBD.get_all_records")
	r.api.Call(r.ctx, &x.vifs, "VIF.get_all_records")
	r.api.Call(r.ctx, &x.vdis, "VDI.get_all_records")
	r.api.Call(r.ctx, &x.tasks, "task.get_all_records")
	return x
}

// restLimit is how long a host may take to come to rest after a death.
const restLimit = time.Minute

// rest waits until nothing is in progress and everything agrees.
func (r *rig) rest(op operation) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, restLimit)
	defer cancel()
	next := batch{}
	for {
		wrong := r.wrong()
		if wrong == "" {
			return
		}
		if ctx.Err() != nil {
			r.Errorf("after %s: %s", op.name, wrong)
			return
		}
		r.api.Call(r.ctx, &next, "event.from", []string{"*"}, next.Token, 0.5)
	}
}

// wrong says in what the records are not true, or what is still in progress.
func (r *rig) wrong() string {
	r.Helper()
	x := r.records()
	for _, check := range []func(records) string{records.busy, r.domain, r.wires, r.volumes} {
		if wrong := check(x); wrong != "" {
			return wrong
		}
	}
	if x.vm.State == "Halted" {
		r.images(x)
	}
	return ""
}

func (x records) busy() string {
	for _, t := range x.tasks {
		if t.Status == "pending" || t.Status == "cancelling" {
			return "task " + t.Name + " is " + t.Status
		}
	}
	rows := map[string]row{"VM": x.vm.row}
	for ref, v := range x.vbds {
		rows["VBD "+ref] = v.row
	}
	for ref, v := range x.vifs {
		rows["VIF "+ref] = v.row
	}
	for ref, v := range x.vdis {
		if rows["VDI "+ref] = v.row; !v.Managed {
			rows["VDI "+ref] = row{Current: v.Current, Allowed: []string{"none"}} // nothing can be done to a hidden one
		}
	}
	for _, v := range x.vdis {
		if state := v.SMConfig["cairn:state"]; state != "" {
			return fmt.Sprintf("disk %q is %s", v.Name, state)
		}
	}
	for name, v := range rows {
		if len(v.Current) > 0 || len(v.Allowed) == 0 {
			return fmt.Sprintf("%s: current %v, allowed %v", name, v.Current, v.Allowed)
		}
	}
	for state, op := range map[string]string{"Halted": "start", "Running": "hard_shutdown"} {
		if slices.Contains(x.vm.Allowed, op) != (x.vm.State == state) {
			return fmt.Sprintf("a VM %s allows %v", x.vm.State, x.vm.Allowed)
		}
	}
	return ""
}

// domain compares the records with the domain, its process and its devices.
func (r *rig) domain(x records) string {
	list, err := r.libvirt.List(r.ctx)
	if err != nil {
		return err.Error()
	}
	pids := r.pids()
	i := slices.IndexFunc(list, func(d hypervisor.Domain) bool { return d.UUID == r.guest.UUID })
	runs := x.vm.State == "Running"
	if !runs && x.vm.State != "Halted" || runs != (i >= 0) || runs && list[i].State != hypervisor.Running || len(pids) > 1 || runs != (len(pids) == 1) {
		return fmt.Sprintf("VM %s, domains %v, processes %v", x.vm.State, list, pids)
	}
	if host := x.vm.Host != "OpaqueRef:NULL"; host != runs {
		return fmt.Sprintf("VM %s, resident on %s", x.vm.State, x.vm.Host)
	}
	var hw hypervisor.Hardware
	if runs {
		if hw, err = r.libvirt.Hardware(r.ctx, r.guest.UUID); err != nil {
			return err.Error()
		}
	}
	return r.devices(x, hw)
}

func (r *rig) devices(x records, hw hypervisor.Hardware) string {
	want, got := map[string]string{}, map[string]string{}
	for _, ref := range x.vm.VBDs {
		if v := x.vbds[ref]; v.Attached {
			want[v.UUID] = r.chain(x, v.VDI)
		}
	}
	for _, ref := range x.vm.VIFs {
		if v := x.vifs[ref]; v.Attached {
			want[v.UUID] = hypervisor.TapName(v.UUID)
		}
	}
	for _, d := range hw.Disks {
		if d.Source == nil {
			got[d.ID] = ""
			continue
		}
		got[d.ID] = filepath.Base(d.Source.Path)
	}
	for _, n := range hw.NICs {
		got[n.ID] = n.Tap
	}
	if !maps.Equal(want, got) {
		return fmt.Sprintf("by the records the domain has %v, and it has %v", want, got)
	}
	return ""
}

// chain is the file a disk's top layer is in.
func (r *rig) chain(x records, vdi string) string { return x.vdis[vdi].Location + ".qcow2" }

// wires compares the records with hostd's ports and the interfaces there are.
func (r *rig) wires(x records) string {
	var want, ports, taps []string
	for _, v := range x.vifs {
		if v.Attached {
			want = append(want, hypervisor.TapName(v.UUID))
		}
	}
	all, err := r.hostd.Ports(r.ctx)
	if err != nil {
		return err.Error()
	}
	for _, p := range all {
		ports = append(ports, p.Interface)
	}
	taps = r.taps()
	for _, l := range [][]string{want, ports, taps} {
		slices.Sort(l)
	}
	if !slices.Equal(want, ports) || !slices.Equal(want, taps) {
		return fmt.Sprintf("by the records there are the interfaces %v; hostd has %v, the kernel %v", want, ports, taps)
	}
	return ""
}

// taps are the interfaces of guests.
func (r *rig) taps() (all []string) {
	text, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(r.host.Pid()), "net/dev"))
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && strings.HasPrefix(name, "cv") {
			all = append(all, name)
		}
	}
	return all
}

// volumes compares the rows of the repository with its volumes and its files.
func (r *rig) volumes(x records) string {
	var rows, volumes, files []string
	for _, v := range x.vdis {
		if v.SR == r.sr {
			rows = append(rows, v.Location)
		}
	}
	all, err := r.hostd.Volumes(r.ctx, r.srUUID())
	if err != nil {
		return err.Error()
	}
	active := map[string]bool{}
	for _, v := range all {
		volumes, active[v.Name] = append(volumes, v.Name), v.Active
		if v.Problem != "" {
			return "volume " + v.Name + ": " + v.Problem
		}
	}
	entries, err := os.ReadDir(filepath.Join(r.dir, "state/sr/chaos"))
	if err != nil {
		return err.Error()
	}
	for _, e := range entries {
		name, kind, _ := strings.Cut(e.Name(), ".")
		switch {
		case kind == "qcow2":
			files = append(files, name)
		case name != "" && (kind != "json" || !slices.Contains(rows, name)):
			return "a file " + e.Name() + " in the repository"
		}
	}
	for _, l := range [][]string{rows, volumes, files} {
		slices.Sort(l)
	}
	if !slices.Equal(rows, volumes) || !slices.Equal(rows, files) {
		return fmt.Sprintf("rows of %v, volumes %v, files %v", rows, volumes, files)
	}
	return r.active(x, active)
}

// active: volumes are active as long as a machine has them.
func (r *rig) active(x records, active map[string]bool) string {
	used := map[string]bool{}
	for _, v := range x.vbds {
		if v.Attached {
			used[x.vdis[v.VDI].Location] = true
		}
	}
	for name, is := range active {
		if used[name] && !is || is && len(used) == 0 {
			return fmt.Sprintf("volume %s: active %v, used %v", name, is, used[name])
		}
	}
	return ""
}

func (r *rig) srUUID() string { return r.api.Text(r.ctx, "SR.get_uuid", r.sr) }

// images has every image checked, and reads every disk whose contents are known.
func (r *rig) images(x records) {
	r.Helper()
	for _, v := range x.vdis {
		if v.SR != r.sr {
			continue
		}
		check, err := r.hostd.CheckVolume(r.ctx, r.srUUID(), v.Location)
		if err != nil || check.Errors != 0 || check.Leaks != 0 {
			r.Errorf("image of %q: %+v, %v", v.Name, check, err)
		}
	}
	r.compare(x)
}

// compare reads every disk whose contents are known.
func (r *rig) compare(x records) {
	r.Helper()
	for vdi, want := range r.content {
		if _, there := x.vdis[vdi]; !there {
			r.lost++
			r.Errorf("disk %s is lost", short(vdi))
			continue
		}
		if got := r.read(vdi); got != want {
			r.lost++
			r.Errorf("disk %q reads %s, want %s", x.vdis[vdi].Name, got, want)
		}
	}
}

// read is the checksum of a disk that nobody writes to.
func (r *rig) read(vdi string) string {
	r.Helper()
	location := r.api.Text(r.ctx, "VDI.get_location", vdi)
	raw := filepath.Join(r.dir, "raw")
	out, err := r.tools.Command(r.ctx, "qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw",
		filepath.Join(r.dir, "state/sr/chaos", location+".qcow2"), raw).CombinedOutput()
	if err != nil {
		r.Fatalf("qemu-img convert: %v: %s", err, out)
	}
	f, err := os.Open(raw)
	r.must(err)
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	r.must(err)
	return hex.EncodeToString(sum.Sum(nil))
}
