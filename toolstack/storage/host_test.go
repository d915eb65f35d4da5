package storage_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cairn/toolstack/alert"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/storage"
	"cairn/toolstack/storage/storagetest"
	"cairn/toolstack/task"
	"cairn/toolstack/wire/wiretest"
)

// rig is a server that speaks for one host with a hostd in memory.
type rig struct {
	*wiretest.Server
	hostd   *storagetest.Hostd
	m       *storage.Manager
	host    api.HostRef
	domains *domains
	run     func() // starts Run
	config  storage.Config
	later   atomic.Int64 // how far its clock is ahead
}

// restart is another process on the same database and host.
func (r *rig) restart() {
	r.T.Helper()
	r.m = storage.New(r.config)
	if err := r.m.Recover(r.T.Context()); err != nil {
		r.T.Fatal(err)
	}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{hostd: storagetest.New()}
	r.domains = newDomains(r.hostd)
	r.Server = wiretest.New(t, func(reg *api.Registry, d *db.DB) {
		r.config = storage.Config{
			Now: func() time.Time { return time.Now().Add(time.Duration(r.later.Load())) },
			DB:  d, Quiet: time.Millisecond, Alerts: alert.New(d), Tasks: task.New(task.Config{DB: d}),
			Hostd: func(h api.HostRef) storage.Hostd {
				if h == r.host {
					return r.hostd
				}
				return nil
			},
			Domains: func(api.HostRef) storage.Domains { return r.domains },
		}
		r.m = storage.New(r.config)
		r.m.Register(reg)
	})
	r.host = wiretest.Insert(r.Server, api.NewHost())
	if err := r.m.EnsureDrivers(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.run = func() {
		t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); r.m.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-ended })
		<-r.m.Ready()
	}
	return r
}

var noMap = map[string]string{}

// sr makes a repository in a directory.
func (r *rig) sr(kind, where string) (ref api.SRRef) {
	r.T.Helper()
	key := "location"
	if kind == "ext" || kind == "lvm" {
		key = "device"
	}
	r.Must(&ref, "SR.create", r.host, map[string]string{key: where}, 0, kind+" storage", "", kind, "", false, noMap)
	return ref
}

func (r *rig) disk(sr api.SRRef, name string, size int64) (ref api.VDIRef) {
	r.T.Helper()
	r.Must(&ref, "VDI.create", map[string]any{
		"name_label": name, "name_description": "", "SR": sr, "virtual_size": size, "type": "user",
		"sharable": false, "read_only": false, "other_config": noMap, "xenstore_data": noMap, "sm_config": noMap, "tags": []string{"t"},
	})
	return ref
}

func (r *rig) vdi(ref api.VDIRef) *api.VDI { r.T.Helper(); return wiretest.Get(r.Server, ref) }

func (r *rig) uuid(ref api.VDIRef) string {
	r.T.Helper()
	return wiretest.Get(r.Server, r.vdi(ref).SR).UUID
}

// write writes as a guest would.
func (r *rig) write(ref api.VDIRef, cluster int64, value uint64) {
	r.T.Helper()
	if err := r.hostd.Write(r.uuid(ref), r.vdi(ref).Location, cluster, value); err != nil {
		r.T.Fatal(err)
	}
}

func (r *rig) content(ref api.VDIRef) map[int64]uint64 {
	r.T.Helper()
	c, err := r.hostd.Content(r.uuid(ref), r.vdi(ref).Location)
	if err != nil {
		r.T.Fatal(err)
	}
	return c
}

func (r *rig) reads(what string, ref api.VDIRef, want map[int64]uint64) {
	r.T.Helper()
	if got := r.content(ref); !maps.Equal(got, want) {
		r.T.Errorf("%s reads %v, want %v", what, got, want)
	}
}

// sound checks that there is a row for every volume and a volume for every row,
// and that rows and headers say the same of the layers.
func (r *rig) sound(sr api.SRRef) {
	r.T.Helper()
	volumes, err := r.hostd.Volumes(r.T.Context(), wiretest.Get(r.Server, sr).UUID)
	if err != nil {
		r.T.Fatal(err)
	}
	rows := map[string]*api.VDI{}
	byUUID := map[string]*api.VDI{}
	for _, v := range db.All[api.VDI](r.DB.Snapshot()) {
		if v.SR == sr {
			if byUUID[v.UUID] = v; v.Type != api.VDITypeCBTMetadata {
				rows[v.Location] = v
			}
		}
	}
	for _, v := range volumes {
		row := rows[v.Name]
		if row == nil {
			r.T.Errorf("volume %s has no row", v.Name)
			continue
		}
		delete(rows, v.Name)
		below := ""
		if p := byUUID[row.SMConfig["vhd-parent"]]; p != nil {
			below = p.Location
		}
		if below != v.Backing {
			r.T.Errorf("row of %s says it is based on %q, its header %q", v.Name, below, v.Backing)
		}
		for key := range row.SMConfig {
			if row.CBTEnabled && (key == "cairn:since" || key == "cairn:log") {
				continue
			}
			if strings.HasPrefix(key, "cairn:") && key != "cairn:layer" || key == "cairn:layer" && row.Managed {
				r.T.Errorf("row of %s is left with %s=%s", v.Name, key, row.SMConfig[key])
			}
		}
	}
	for name := range rows {
		r.T.Errorf("row of %s has no volume", name)
	}
}

func (r *rig) names(sr api.SRRef) []string {
	var names []string
	for _, v := range db.All[api.VDI](r.DB.Snapshot()) {
		if v.SR == sr && v.Managed {
			names = append(names, v.NameLabel)
		}
	}
	slices.Sort(names)
	return names
}

// vm runs a machine with a disk; the reference of its VBD comes back.
func (r *rig) vm(vdi api.VDIRef) (api.VMRef, api.VBDRef) {
	r.T.Helper()
	vm := api.NewVM()
	vm.PowerState, vm.ResidentOn = api.VMPowerStateRunning, r.host
	ref := wiretest.Insert(r.Server, vm)
	b := api.NewVBD()
	b.VM, b.VDI, b.CurrentlyAttached, b.Mode, b.Type = ref, vdi, true, api.VBDModeRW, api.VBDTypeDisk
	vbd := wiretest.Insert(r.Server, b)
	s, err := r.m.Attach(r.T.Context(), r.host, vdi, true)
	if err != nil {
		r.T.Fatal(err)
	}
	r.domains.start(wiretest.Get(r.Server, ref).UUID, wiretest.Get(r.Server, vbd).UUID, r.uuid(vdi), *s)
	return ref, vbd
}

// busy is a rig with a disk that a running machine has.
type busy struct {
	*rig
	sr    api.SRRef
	ref   api.VDIRef // of the disk, whose first cluster holds 1
	vm    api.VMRef
	vbd   api.VBDRef
	guest string // the machine's uuid
}

func newBusy(t *testing.T) busy {
	t.Helper()
	b := busy{rig: newRig(t)}
	b.sr = b.rig.sr("ext", "/dev/sdb")
	b.ref = b.disk(b.sr, "root", 8*mib)
	b.write(b.ref, 0, 1)
	b.vm, b.vbd = b.rig.vm(b.ref)
	b.guest = wiretest.Get(b.Server, b.vm).UUID
	return b
}

// writes has the guest write to a cluster of its disk.
func (b busy) writes(cluster int64, value uint64) {
	b.T.Helper()
	if err := b.domains.write(b.guest, cluster, value); err != nil {
		b.T.Errorf("the guest does not go on: %v", err)
	}
}

// ends stops the machine and merges what there is: the disk must hold what it held.
func (b busy) ends(want map[int64]uint64) {
	b.T.Helper()
	b.halt(b.vm, b.vbd)
	b.merges(want)
}

// merges merges what there is: the disk must hold what it held.
func (b busy) merges(want map[int64]uint64) {
	b.T.Helper()
	b.coalesce(b.sr)
	b.reads("the disk in the end", b.ref, want)
	b.sound(b.sr)
}

func (r *rig) halt(vm api.VMRef, vbd api.VBDRef) {
	r.T.Helper()
	r.domains.stop(wiretest.Get(r.Server, vm).UUID)
	vdi := wiretest.Get(r.Server, vbd).VDI
	err := r.DB.Update(r.T.Context(), func(tx *db.Tx) error {
		b, err := db.Edit(tx, vbd)
		if err != nil {
			return err
		}
		b.CurrentlyAttached = false
		v, err := db.Edit(tx, vm)
		if err != nil {
			return err
		}
		v.PowerState, v.ResidentOn = api.VMPowerStateHalted, ""
		return nil
	})
	if err != nil {
		r.T.Fatal(err)
	}
	if err := r.m.Detach(r.T.Context(), r.host, vdi); err != nil {
		r.T.Fatal(err)
	}
}

var _ storage.Domains = (*domains)(nil)
var _ hypervisor.Source
