package vm_test

import (
	"context"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/storage"
	"cairn/toolstack/storage/storagetest"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

const gib = 1 << 30

// ports is a network that has a port for every NIC.
type ports struct {
	db   *db.DB
	step func() error // before a port is taken away
}

func (p ports) Plug(_ context.Context, _ api.HostRef, vif api.VIFRef) (hypervisor.NIC, error) {
	v, err := db.Get(p.db.Snapshot(), vif)
	if err != nil {
		return hypervisor.NIC{}, err
	}
	return hypervisor.NIC{ID: v.UUID, MAC: v.MAC, Bridge: "xenbr0", Tap: hypervisor.TapName(v.UUID)}, nil
}

func (p ports) Unplug(context.Context, api.HostRef, api.VIFRef) error { return p.step() }

// images tells a hypervisor that knows saved memory by its file of copies of it.
type images struct {
	vm.Disks
	db *db.DB
	hv *hypervisor.Fake
}

func (i images) Copy(ctx context.Context, vdi api.VDIRef, sr api.SRRef, progress func(float64)) (api.VDIRef, error) {
	made, err := i.Disks.Copy(ctx, vdi, sr, progress)
	if err == nil {
		i.hv.CopySaved(i.file(vdi), i.file(made))
	}
	return made, err
}

func (i images) file(ref api.VDIRef) string {
	vdi, err := db.Get(i.db.Snapshot(), ref)
	if err != nil {
		return ""
	}
	sr, err := db.Get(i.db.Snapshot(), vdi.SR)
	if err != nil {
		return ""
	}
	return "/run/sr-mount/" + sr.UUID + "/" + vdi.Location
}

// rig is the API with VMs, their devices and disks on one host in memory.
type rig struct {
	*stack
	hostd *storagetest.Hostd
	disks *storage.Manager
	sr    api.SRRef // the pool's default, for suspended VMs, too
	pool  api.PoolRef
	net   api.NetworkRef
	// unplugging is asked before a NIC's port is taken away.
	unplugging func() error
}

func newRig(t *testing.T) *rig { return newRigEdit(t, func(*vm.Config) {}) }

// newRigEdit is a rig with a configuration of the test's.
func newRigEdit(t *testing.T, edit func(*vm.Config)) *rig {
	t.Helper()
	r := &rig{hostd: storagetest.New(), unplugging: func() error { return nil }}
	r.stack = newStackOn(t, func(s *stack, reg *api.Registry, d *db.DB) {
		r.disks = storage.New(storage.Config{
			DB:      d,
			Hostd:   func(api.HostRef) storage.Hostd { return r.hostd },
			Domains: func(api.HostRef) storage.Domains { return s.config.Hypervisor },
		})
		r.disks.Register(reg)
		must(t, r.disks.EnsureDrivers(t.Context()))
		devices := device.New(device.Config{
			DB: d, Storage: r.disks, Network: ports{d, func() error { return r.unplugging() }},
			Hypervisor: func(api.HostRef) hypervisor.Hypervisor { return s.config.Hypervisor },
		})
		devices.Register(reg)
		s.config.Disks, s.config.Devices = images{r.disks, d, s.hv}, devices
		edit(&s.config)
	})
	r.host.memory = 64 * gib
	r.sr = r.makeSR("/srv/one")
	pool := api.NewPool()
	pool.DefaultSR, pool.SuspendImageSR = r.sr, r.sr
	r.pool = wiretest.Insert(r.Server, pool)
	network := api.NewNetwork()
	network.Bridge = "xenbr0"
	r.net = wiretest.Insert(r.Server, network)
	return r
}

func (r *rig) makeSR(where string) (ref api.SRRef) {
	r.T.Helper()
	r.Must(&ref, "SR.create", r.host.ref, map[string]string{"location": where}, 0, where, "", "file", "", false, map[string]string{})
	return ref
}

// install makes a VM of a template with one disk, adds a second one, a CD drive and
// a NIC, and writes to the disks.
func (r *rig) install(name string) string {
	r.T.Helper()
	var ref string
	r.Must(&ref, "VM.clone", r.templates()["generic-linux-bios"], name)
	r.Must(nil, "VM.provision", ref)
	second, err := r.disks.Create(r.ctx, storage.CreateSpec{SR: r.sr, Size: gib, Name: name + " data"})
	must(r.T, err)
	r.Must(nil, "VBD.create", r.vbd(ref, second, "1", "Disk"))
	r.Must(nil, "VBD.create", r.vbd(ref, "", "3", "CD"))
	r.Must(nil, "VIF.create", map[string]any{
		"device": "0", "network": r.net, "VM": ref, "MAC": "", "MTU": 1500, "other_config": map[string]string{},
		"qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	})
	for i, vdi := range r.vdis(ref) {
		r.write(vdi, 0, uint64(10+i))
	}
	return ref
}

func (r *rig) vbd(vm string, vdi api.VDIRef, device, kind string) map[string]any {
	return map[string]any{
		"VM": vm, "VDI": vdi, "userdevice": device, "bootable": false, "mode": map[string]string{"Disk": "RW", "CD": "RO"}[kind],
		"type": kind, "unpluggable": true, "empty": kind == "CD", "other_config": map[string]string{},
		"qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	}
}

// vdis are the disks of a VM in the order of their places.
func (r *rig) vdis(ref string) (all []api.VDIRef) { return disksOf(r.DB.Snapshot(), ref) }

func disksOf(snap db.Reader, ref string) (all []api.VDIRef) {
	at := map[int]api.VDIRef{}
	for _, v := range db.All[api.VBD](snap) {
		if n, err := strconv.Atoi(v.Userdevice); err == nil && string(v.VM) == ref && v.Type == api.VBDTypeDisk {
			at[n] = v.VDI
		}
	}
	for n := range 16 {
		if vdi, ok := at[n]; ok {
			all = append(all, vdi)
		}
	}
	return all
}

func (r *rig) vdi(ref api.VDIRef) *api.VDI { r.T.Helper(); return wiretest.Get(r.Server, ref) }

// write writes to a disk that nothing runs on, or what the guest would.
func (r *rig) write(ref api.VDIRef, cluster int64, value uint64) {
	r.T.Helper()
	v := r.vdi(ref)
	must(r.T, r.hostd.Write(wiretest.Get(r.Server, v.SR).UUID, v.Location, cluster, value))
}

// guestWrites writes to what the domain of a VM has at a place.
func (r *rig) guestWrites(ref string, place int, cluster int64, value uint64) {
	r.T.Helper()
	hw, err := r.hv.Hardware(r.ctx, r.uuid(ref))
	must(r.T, err)
	serial := r.vdi(r.vdis(ref)[place]).UUID
	i := slices.IndexFunc(hw.Disks, func(d hypervisor.Disk) bool { return d.Serial == serial })
	if i < 0 {
		r.T.Fatalf("the domain has no disk %s: %+v", serial, hw.Disks)
	}
	must(r.T, r.hostd.Write(wiretest.Get(r.Server, r.sr).UUID, path.Base(hw.Disks[i].Source.Path), cluster, value))
}

func (r *rig) read(ref api.VDIRef, cluster int64) uint64 {
	r.T.Helper()
	v := r.vdi(ref)
	content, err := r.hostd.Content(wiretest.Get(r.Server, v.SR).UUID, v.Location)
	must(r.T, err)
	return content[cluster]
}

// managed are the disks that count as such.
func (r *rig) managed() (n int) {
	for _, v := range db.All[api.VDI](r.DB.Snapshot()) {
		if v.Managed {
			n++
		}
	}
	return n
}

// onlyDisks waits until so many disks are left.
func (r *rig) onlyDisks(n int) {
	r.T.Helper()
	r.Until(strconv.Itoa(n)+" disks", func() bool { return r.managed() == n })
}

// newStackOn is newStack where the VMs get what prepare puts into the config.
func newStackOn(t *testing.T, prepare func(*stack, *api.Registry, *db.DB)) *stack {
	t.Helper()
	s := &stack{hv: hypervisor.NewFake(), guests: t.TempDir(), ctx: t.Context()}
	s.host = &fakeHost{ref: api.NewRef[api.Host](), kind: hypervisor.Accelerated, memory: 2 << 30}
	s.Server = wiretest.New(t, func(r *api.Registry, d *db.DB) {
		h := api.NewHost()
		h.UUID, h.Enabled = api.NewUUID(), true
		must(t, d.Update(s.ctx, func(tx *db.Tx) error { db.InsertAs(tx, s.host.ref, h); return nil }))
		s.config = vm.Config{DB: d, Hypervisor: s.hv, Consoles: noConsoles{}, Host: s.host, GuestDir: s.guests, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
		prepare(s, r, d)
		s.vms = vm.New(s.config)
		s.vms.Register(r)
	})
	s.run(s.vms)
	return s
}

type noConsoles struct{}

func (noConsoles) Attach(context.Context, string) error { return nil }
func (noConsoles) Renew(context.Context, string) error  { return nil }
