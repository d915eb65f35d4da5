package device_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"cairn/init/hostd/client"
	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/console"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/operation"
	"cairn/toolstack/storage"
	"cairn/toolstack/storage/storagetest"
	"cairn/toolstack/vm"
)

// world is what outlives the toolstack.
type world struct {
	t       *testing.T
	disk    *db.Memory
	hv      *hypervisor.Fake
	hostd   *storagetest.Hostd
	network *switchboard
	host    api.HostRef
	guests  string

	vm         api.VMRef
	root, data api.VDIRef
	vbd, hot   api.VBDRef // of root and data
	drive      api.VBDRef
	iso        api.VDIRef
	nic, spare api.VIFRef
	there      api.NetworkRef
}

// life is one toolstackd.
type life struct {
	*world
	g    *gate
	db   *db.DB
	reg  *api.Registry
	stop func()

	disks *storage.Manager
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, disk: db.NewMemory(), hv: hypervisor.NewFake(), hostd: storagetest.New(),
		network: &switchboard{ports: map[string]string{}}, host: api.NewRef[api.Host](), guests: t.TempDir(),
	}
	if err := os.WriteFile(filepath.Join(w.guests, "vmlinuz"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return w
}

// begin starts a toolstack and returns when it says it is ready.
func (w *world) begin() *life {
	l := &life{world: w, g: &gate{}, reg: api.NewRegistry()}
	ctx, cancel := context.WithCancel(w.t.Context())
	var err error
	if l.db, err = db.Open(ctx, gatedEngine{w.disk, l.g}, db.Options{}); err != nil {
		w.t.Fatal(err)
	}
	if err := operation.Recover(ctx, l.db, journal.Discard()); err != nil {
		w.t.Fatal(err)
	}
	w.hostd.Fail(func(string, string, string) error { return l.g.step() })
	hv := gatedHypervisor{doing{w.hv, l.g.do}, l.g}
	disks := storage.New(storage.Config{
		DB: l.db, Hostd: func(api.HostRef) storage.Hostd { return w.hostd },
		Domains: func(api.HostRef) storage.Domains { return hv },
	})
	devices := device.New(device.Config{
		DB: l.db, Storage: disks, Network: gatedNetwork{w.network, l.g, l.db},
		Hypervisor: func(api.HostRef) hypervisor.Hypervisor { return hv },
	})
	vms := vm.New(vm.Config{
		DB: l.db, Hypervisor: hv, Consoles: console.New(l.db, hv, nil), Host: fakeHost{w.host},
		Devices: devices, GuestDir: w.guests, ShutdownTimeout: 300 * time.Millisecond,
	})
	l.disks = disks
	disks.Register(l.reg)
	devices.Register(l.reg)
	vms.Register(l.reg)
	l.run(ctx, cancel, disks, vms)
	return l
}

func (l *life) run(ctx context.Context, cancel func(), disks *storage.Manager, vms *vm.Manager) {
	var all sync.WaitGroup
	all.Go(func() { _ = disks.Run(ctx) })
	<-disks.Ready()
	ready := make(chan struct{})
	all.Go(func() { _ = vms.Run(ctx, func() { close(ready) }) })
	<-ready
	l.stop = func() {
		cancel()
		all.Wait()
		l.db.Close()
	}
}

// callTask is a task that nobody looks at.
type callTask struct{ ref api.TaskRef }

func (t callTask) Ref() api.TaskRef { return t.ref }
func (callTask) Set(float64)        {}

// call is a client's.
func (l *life) call(method string, args ...string) error {
	values := make([]api.Value, len(args))
	for i, a := range args {
		values[i] = api.Value{Kind: api.StringValue, Text: a}
		if a == "false" {
			values[i] = api.Value{Kind: api.BoolValue, Text: "0"}
		}
	}
	c := &api.Call{Context: l.t.Context(), Task: callTask{api.NewRef[api.Task]()}, Message: api.FindMessage(method)}
	_, err := l.reg.Handler(c.Message)(c, values)
	return err
}

// furnish makes a machine with a disk, a drive and a NIC, more to plug, and two
// networks.
func (l *life) furnish() {
	w := l.world
	host := api.NewHost()
	host.UUID, host.Enabled = api.NewUUID(), true
	sr := &api.SR{UUID: api.NewUUID(), Type: "file", ContentType: "user", PhysicalSize: 1 << 40}
	place := map[string]string{"location": "/srv/one"}
	machine := api.NewVM()
	machine.UUID, machine.NameLabel, machine.PowerState = api.NewUUID(), "one", api.VMPowerStateHalted
	machine.PVKernel, machine.VCPUsMax, machine.VCPUsAtStartup = w.guests+"/vmlinuz", 2, 1
	machine.MemoryStaticMax, machine.MemoryDynamicMax, machine.MemoryDynamicMin = 64<<20, 64<<20, 64<<20
	var srRef api.SRRef
	l.update(func(tx *db.Tx) {
		db.InsertAs(tx, w.host, host)
		srRef = db.Insert(tx, sr)
		db.Insert(tx, &api.PBD{UUID: api.NewUUID(), Host: w.host, SR: srRef, DeviceConfig: place})
		machine.Metrics = db.Insert(tx, &api.VMMetrics{UUID: api.NewUUID()})
		w.vm = db.Insert(tx, machine)
		w.there = db.Insert(tx, &api.Network{UUID: api.NewUUID(), Bridge: "xapi1"})
		here := db.Insert(tx, &api.Network{UUID: api.NewUUID(), Bridge: "xapi0"})
		for i, ref := range []*api.VIFRef{&w.nic, &w.spare} {
			n := strconv.Itoa(i)
			*ref = db.Insert(tx, &api.VIF{UUID: api.NewUUID(), VM: w.vm, Network: here, Device: n, MAC: "02:00:00:00:00:0" + n})
		}
	})
	if _, err := w.hostd.FormatRepository(l.t.Context(), sr.UUID, client.RepositoryConfig{Type: "file", Config: place}); err != nil {
		l.t.Fatal(err)
	}
	for pbd := range db.All[api.PBD](l.db.Snapshot()) {
		l.must("PBD.plug", pbd.String())
	}
	l.furnishDisks(srRef)
}

func (l *life) furnishDisks(sr api.SRRef) {
	w := l.world
	for _, d := range []struct {
		name string
		ref  *api.VDIRef
	}{{"root", &w.root}, {"data", &w.data}, {"image", &w.iso}} {
		var err error
		if *d.ref, err = l.disks.Create(l.t.Context(), storage.CreateSpec{SR: sr, Size: 1 << 20, Name: d.name}); err != nil {
			l.t.Fatal(err)
		}
	}
	l.update(func(tx *db.Tx) {
		w.vbd = db.Insert(tx, &api.VBD{UUID: api.NewUUID(), VM: w.vm, VDI: w.root, Userdevice: "0", Unpluggable: true, Mode: api.VBDModeRW, Type: api.VBDTypeDisk})
		w.hot = db.Insert(tx, &api.VBD{UUID: api.NewUUID(), VM: w.vm, VDI: w.data, Userdevice: "1", Unpluggable: true, Mode: api.VBDModeRW, Type: api.VBDTypeDisk})
		w.drive = db.Insert(tx, &api.VBD{UUID: api.NewUUID(), VM: w.vm, Empty: true, Userdevice: "3", Mode: api.VBDModeRO, Type: api.VBDTypeCD})
	})
}

func (l *life) update(f func(*db.Tx)) {
	l.t.Helper()
	if err := l.db.Update(l.t.Context(), func(tx *db.Tx) error { f(tx); return nil }); err != nil {
		l.t.Fatal(err)
	}
}

func (l *life) must(method string, args ...string) {
	l.t.Helper()
	if err := l.call(method, args...); err != nil {
		l.t.Fatalf("%s: %v", method, err)
	}
}

// reset takes the machine back to where every scenario begins.
func (l *life) reset() {
	l.t.Helper()
	if l.get().PowerState != api.VMPowerStateHalted {
		l.must("VM.hard_shutdown", string(l.vm))
	}
	l.update(func(tx *db.Tx) {
		if v, err := db.Edit(tx, l.drive); err == nil {
			v.VDI, v.Empty = "", true
		}
		for _, ref := range []api.VIFRef{l.nic, l.spare} {
			if v, err := db.Edit(tx, ref); err == nil {
				for network, n := range db.All[api.Network](tx) {
					if n.Bridge == "xapi0" {
						v.Network = network
					}
				}
			}
		}
	})
	l.settled("reset")
	if n := len(l.network.ports); n > 0 {
		l.t.Errorf("%d ports of a halted machine", n)
	}
}

func (l *life) get() *api.VM {
	r, err := db.Get(l.db.Snapshot(), l.vm)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// settled waits until rows, domain and host agree, which must not take long.
func (l *life) settled(what string) { l.t.Helper(); l.until(what, l.wrong) }

func (l *life) until(what string, wrongly func() string) {
	l.t.Helper()
	w := l.db.Watch()
	defer w.Close()
	limit := time.After(5 * time.Second)
	for {
		wrong := wrongly()
		if wrong == "" {
			return
		}
		select {
		case <-w.C():
			w.Changes()
		case <-limit:
			l.t.Fatalf("%s: %s", what, wrong)
		}
	}
}

// wrong says what is not as it should be.
func (l *life) wrong() string {
	r, snap := l.get(), l.db.Snapshot()
	spec, runs := l.hv.Spec(r.UUID)
	if runs != (r.PowerState == api.VMPowerStateRunning) || len(r.CurrentOperations) > 0 {
		return fmt.Sprintf("the machine is %s doing %v, its domain there: %v", r.PowerState, r.CurrentOperations, runs)
	}
	if domains, err := l.hv.List(l.t.Context()); err != nil || runs && domains[0].State != hypervisor.Running {
		return fmt.Sprintf("the domain is not going on: %v %v", domains, err)
	}
	hw := hypervisor.Hardware{Disks: spec.Disks, NICs: spec.NICs}
	has := map[api.VDIRef]bool{}
	for _, ref := range r.VBDs {
		v, _ := db.Get(snap, ref)
		d, there := hw.Disk(v.UUID)
		if there != v.CurrentlyAttached || len(v.CurrentOperations) > 0 || there && (d.Source == nil) != v.Empty {
			return fmt.Sprintf("drive %s: attached %v empty %v doing %v, in the domain: %v %v", v.Userdevice, v.CurrentlyAttached, v.Empty, v.CurrentOperations, there, d.Source)
		}
		has[v.VDI] = has[v.VDI] || there && !v.Empty
	}
	for ref, vdi := range db.All[api.VDI](snap) {
		if held := vdi.SMConfig["host_"+string(l.host)] != ""; held != has[ref] {
			return fmt.Sprintf("disk %s: held by the host %v, in use %v", vdi.NameLabel, held, has[ref])
		}
	}
	return l.wrongNIC(r, hw)
}

func (l *life) wrongNIC(r *api.VM, hw hypervisor.Hardware) string {
	snap, want := l.db.Snapshot(), map[string]string{}
	for _, ref := range r.VIFs {
		v, _ := db.Get(snap, ref)
		network, _ := db.Get(snap, v.Network)
		n, there := hw.NIC(v.UUID)
		if there != v.CurrentlyAttached || len(v.CurrentOperations) > 0 || there && n.Bridge != network.Bridge {
			return fmt.Sprintf("NIC %s: attached %v doing %v on %s, in the domain: %v %s", v.Device, v.CurrentlyAttached, v.CurrentOperations, network.Bridge, there, n.Bridge)
		}
		if there {
			want[v.UUID] = network.Bridge
		}
	}
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	if !maps.Equal(want, l.network.ports) {
		return fmt.Sprintf("ports %v, want %v", l.network.ports, want)
	}
	return ""
}
