package machine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/storage"
	"cairn/toolstack/storage/storagetest"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/disk/disktest"
	"cairn/toolstack/transfer/machine"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

const mib = 1 << 20

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// disks are those of real storage, with bytes in memory.
type disks struct {
	*storage.Manager
	db *db.DB

	mu     sync.Mutex
	bytes  map[api.VDIRef]*disktest.Memory
	open   int
	opened int
	fail   func(what string, off int64) error
	real   bool // bytes are those of volumes
}

// handle is one opening of a disk.
type handle struct {
	*disktest.Memory
	ctx  context.Context
	from *disks
}

func (h handle) WriteAt(p []byte, off int64) (int, error) {
	if err := context.Cause(h.ctx); err != nil {
		return 0, err
	}
	return h.Memory.WriteAt(p, off)
}

func (h handle) Close() error {
	h.from.mu.Lock()
	defer h.from.mu.Unlock()
	h.from.open--
	return nil
}

func (d *disks) memory(ref api.VDIRef) *disktest.Memory {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bytes[ref] == nil {
		vdi, err := db.Get(d.db.Snapshot(), ref)
		if err != nil {
			return nil
		}
		d.bytes[ref] = disktest.New(vdi.VirtualSize)
		d.bytes[ref].Fail = func(what string, off int64) error {
			if d.fail == nil {
				return nil
			}
			return d.fail(what, off)
		}
	}
	return d.bytes[ref]
}

// Open implements machine.Disks.
func (d *disks) Open(ctx context.Context, ref api.VDIRef, write bool) (disk.Device, error) {
	if d.real {
		return d.Manager.Open(ctx, ref, write)
	}
	m := d.memory(ref)
	if m == nil {
		return nil, db.HandleInvalid(api.ClassOf[api.VDI](), string(ref))
	}
	if d.fail != nil {
		if err := d.fail("open", 0); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open++
	d.opened++
	return handle{m, ctx, d}, nil
}

// place is a host on which nothing runs.
type place struct{ ref api.HostRef }

func (p place) Ref() api.HostRef              { return p.ref }
func (place) Kind() (hypervisor.Kind, bool)   { return hypervisor.Accelerated, true }
func (place) AwaitKind(context.Context) error { return nil }
func (place) GuestMemory() int64              { return 64 << 30 }
func (place) Address() string                 { return "192.0.2.1" }
func (place) Boot() string                    { return "boot" }

type noConsoles struct{}

func (noConsoles) Attach(context.Context, string) error { return nil }
func (noConsoles) Renew(context.Context, string) error  { return nil }

// rig is the API with VMs and disks on one host in memory.
type rig struct {
	*wiretest.Server
	disks  *disks
	hostd  *storagetest.Hostd
	vms    *vm.Manager
	config vm.Config
	sr     api.SRRef
	net    api.NetworkRef
	now    func() time.Time // of exports
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{hostd: storagetest.New(), now: time.Now}
	host := place{api.NewRef[api.Host]()}
	var streams *machine.Manager
	r.Server = wiretest.New(t, func(reg *api.Registry, d *db.DB) {
		h := api.NewHost()
		h.UUID, h.Enabled, h.Hostname, h.SoftwareVersion = api.NewUUID(), true, "here", map[string]string{"product_brand": "Cairn"}
		must(t, d.Update(t.Context(), func(tx *db.Tx) error { db.InsertAs(tx, host.ref, h); return nil }))
		store := storage.New(storage.Config{DB: d, Hostd: func(ref api.HostRef) storage.Hostd {
			if ref != host.ref {
				return nil
			}
			return r.hostd
		}})
		store.Register(reg)
		must(t, store.EnsureDrivers(t.Context()))
		r.disks = &disks{Manager: store, db: d, bytes: map[api.VDIRef]*disktest.Memory{}}
		r.config = vm.Config{
			DB: d, Hypervisor: hypervisor.NewFake(), Consoles: noConsoles{}, Host: host, GuestDir: t.TempDir(), Disks: store,
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		}
		r.vms = vm.New(r.config)
		r.vms.Register(reg)
		streams = machine.New(machine.Config{
			DB: d, VMs: r.vms, Disks: r.disks, ThisHost: host.Ref, Patience: 50 * time.Millisecond,
			Now: func() time.Time { return r.now() },
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
		streams.Register(reg)
	})
	streams.Handle(r.Wire)
	r.run(r.vms)
	r.Must(&r.sr, "SR.create", host.ref, map[string]string{"location": "/srv/one"}, 0, "one", "", "file", "", false, map[string]string{})
	pool := api.NewPool()
	pool.DefaultSR = r.sr
	wiretest.Insert(r.Server, pool)
	network := api.NewNetwork()
	network.NameLabel, network.Bridge, network.Managed = "office", "xenbr0", true
	r.net = wiretest.Insert(r.Server, network)
	return r
}

// run runs a manager until the test ends, and waits until it has looked once.
func (r *rig) run(m *vm.Manager) {
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx, func() { close(ready) }) }()
	r.T.Cleanup(func() { cancel(); <-done })
	<-ready
}

// noise is a disk of which some chunks hold something.
func noise(seed uint64, size int64) []byte {
	b := make([]byte, size)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for at := int64(0); at < size; at += mib {
		if rnd.IntN(3) == 0 {
			for i := at; i < min(at+mib/3, size); i++ {
				b[i] = byte(rnd.Uint32())
			}
		}
	}
	b[size-1] = 7
	return b
}

// newDisk makes a disk with bytes.
func (r *rig) newDisk(name string, b []byte) api.VDIRef {
	r.T.Helper()
	ref, err := r.disks.Create(r.T.Context(), storage.CreateSpec{SR: r.sr, Size: int64(len(b)), Name: name, Tags: []string{"t"}})
	must(r.T, err)
	_, err = r.disks.memory(ref).WriteAt(b, 0)
	must(r.T, err)
	return ref
}

// insert writes a VM with two disks, an empty drive and a NIC.
func (r *rig) insert(name string, edit func(*api.VM)) (api.VMRef, []api.VDIRef) {
	r.T.Helper()
	rec := api.NewVM()
	rec.UUID, rec.NameLabel, rec.HVMBootPolicy, rec.Domid = api.NewUUID(), name, "BIOS order", -1
	rec.MemoryStaticMax, rec.MemoryDynamicMax, rec.MemoryDynamicMin, rec.MemoryStaticMin = 1<<30, 1<<30, 1<<30, 1<<29
	rec.VCPUsMax, rec.VCPUsAtStartup = 2, 2
	rec.OtherConfig = map[string]string{"mac_seed": api.NewUUID(), "folder": "/a"}
	rec.Tags = []string{"blue"}
	if edit != nil {
		edit(rec)
	}
	vdis := []api.VDIRef{r.newDisk(name+" 0", noise(1, 6*mib)), r.newDisk(name+" 1", noise(2, 3*mib))}
	ref := api.NewRef[api.VM]()
	r.update(func(tx *db.Tx) {
		db.InsertAs(tx, ref, rec)
		for i, vdi := range vdis {
			v := api.NewVBD()
			v.UUID, v.VM, v.VDI, v.Userdevice, v.Type, v.Mode, v.Bootable = api.NewUUID(), ref, vdi, fmt.Sprint(i), api.VBDTypeDisk, api.VBDModeRW, i == 0
			db.Insert(tx, v)
		}
		cd := api.NewVBD()
		cd.UUID, cd.VM, cd.Userdevice, cd.Type, cd.Mode, cd.Empty = api.NewUUID(), ref, "3", api.VBDTypeCD, api.VBDModeRO, true
		db.Insert(tx, cd)
		nic := api.NewVIF()
		nic.UUID, nic.VM, nic.Network, nic.Device, nic.MAC, nic.MTU = api.NewUUID(), ref, r.net, "0", "02:00:00:00:00:01", 1500
		db.Insert(tx, nic)
	})
	return ref, vdis
}

func (r *rig) update(f func(*db.Tx)) {
	r.T.Helper()
	must(r.T, r.DB.Update(r.T.Context(), func(tx *db.Tx) error { f(tx); return nil }))
}

// get fetches a stream whole.
func (r *rig) get(path string) []byte {
	r.T.Helper()
	resp, err := http.Get(r.HTTP.URL + path + "&session_id=" + r.Session)
	must(r.T, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(r.T, err)
	if resp.StatusCode != http.StatusOK {
		r.T.Fatalf("%s: %s: %s", path, resp.Status, b)
	}
	return b
}

// put sends a stream and returns the VMs that its task says came of it.
func (r *rig) put(path string, body io.Reader, length int64) ([]string, error) {
	r.T.Helper()
	var task string
	r.Must(&task, "task.create", "import", "")
	req, err := http.NewRequestWithContext(r.T.Context(), http.MethodPut, r.HTTP.URL+path+"&session_id="+r.Session+"&task_id="+task, body)
	must(r.T, err)
	req.ContentLength = length
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	return r.outcome(task)
}

// outcome waits for the end of a task.
func (r *rig) outcome(task string) ([]string, error) {
	r.T.Helper()
	read := func() *api.Task { return wiretest.Get(r.Server, api.TaskRef(task)) }
	r.Until("the end of the task", func() bool {
		return read().Status != api.TaskStatusTypePending && read().Status != api.TaskStatusTypeCancelling
	})
	t := read()
	if t.Status != api.TaskStatusTypeSuccess {
		return nil, &api.Error{Code: t.ErrorInfo[0], Params: t.ErrorInfo[1:]}
	}
	if t.Progress != 1 {
		r.T.Errorf("progress %v", t.Progress)
	}
	var refs []string
	for _, part := range bytes.Split([]byte(t.Result), []byte("<value>"))[1:] {
		if ref, _, ok := bytes.Cut(part, []byte("</value>")); ok && bytes.HasPrefix(ref, []byte("OpaqueRef:")) {
			refs = append(refs, string(ref))
		}
	}
	return refs, nil
}

func (r *rig) importing(query string, b []byte) ([]string, error) {
	r.T.Helper()
	return r.put("/import?x=y"+query, bytes.NewReader(b), int64(len(b)))
}

// mustImport is importing of one VM.
func (r *rig) mustImport(query string, b []byte) api.VMRef {
	r.T.Helper()
	refs, err := r.importing(query, b)
	if err != nil || len(refs) != 1 {
		r.T.Fatalf("import%s: %v, %v", query, refs, err)
	}
	return api.VMRef(refs[0])
}

// code is an error's, with its parameters.
func code(err error) string {
	var known *api.Error
	if errors.As(err, &known) {
		return fmt.Sprint(known.Code, " ", known.Params)
	}
	return fmt.Sprint(err)
}

// vdis are a VM's disks in the order of their places.
func (r *rig) vdis(ref api.VMRef) []api.VDIRef {
	all := map[string]api.VDIRef{}
	for _, vbd := range wiretest.Get(r.Server, ref).VBDs {
		if v := wiretest.Get(r.Server, vbd); v.Type == api.VBDTypeDisk {
			all[v.Userdevice] = v.VDI
		}
	}
	var list []api.VDIRef
	for n := range 16 {
		if vdi, ok := all[fmt.Sprint(n)]; ok {
			list = append(list, vdi)
		}
	}
	return list
}

// state is all there is, but for tasks and sessions: what a failed import must leave as
// it was.
func (r *rig) state() string {
	snap := r.DB.Snapshot()
	var b bytes.Buffer
	for _, class := range []*api.ClassInfo{
		api.ClassOf[api.VM](), api.ClassOf[api.VBD](), api.ClassOf[api.VIF](), api.ClassOf[api.VDI](),
		api.ClassOf[api.Network](), api.ClassOf[api.VMMetrics](), api.ClassOf[api.VTPM](), api.ClassOf[api.SR](),
	} {
		n := 0
		snap.Objects(class, func(o *db.Object) bool { n++; return true })
		fmt.Fprintf(&b, "%s %d\n", class.Name, n)
	}
	volumes, err := r.hostd.Volumes(context.Background(), wiretest.Get(r.Server, r.sr).UUID)
	fmt.Fprintf(&b, "volumes %d %v", len(volumes), err)
	return b.String()
}

// unchanged waits until all is as it was, and no disk is open.
func (r *rig) unchanged(what, before string) {
	r.T.Helper()
	r.Until(what+": all as it was", func() bool { return r.state() == before })
	r.disks.mu.Lock()
	defer r.disks.mu.Unlock()
	if r.disks.open != 0 {
		r.T.Errorf("%s: %d disks are open", what, r.disks.open)
	}
}

// cancelled asserts that a task was cancelled.
func (r *rig) cancelled(task string) {
	r.T.Helper()
	if _, err := r.outcome(task); code(err) != "TASK_CANCELLED ["+task+"]" {
		r.T.Error(err)
	}
}

// cancelsAtRead is a task that is cancelled when a disk is read next.
func (r *rig) cancelsAtRead(label string) (task string) {
	r.T.Helper()
	r.Must(&task, "task.create", label, "")
	r.disks.fail = func(what string, _ int64) error {
		if what == "read" {
			r.disks.fail = nil
			r.Must(nil, "task.cancel", task)
		}
		return nil
	}
	return task
}
