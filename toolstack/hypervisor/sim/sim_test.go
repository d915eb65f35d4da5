package sim_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cairn/image/guest/qga"
	"cairn/toolstack/api"
	"cairn/toolstack/console"
	"cairn/toolstack/db"
	"cairn/toolstack/host"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/hypervisor/conformance"
	"cairn/toolstack/hypervisor/sim"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

// quick is a pace that shows that time passes, and wastes none.
var quick = sim.Pace{Start: time.Millisecond, Shutdown: 5 * time.Millisecond, Destroy: time.Millisecond}

func TestSimulatorConforms(t *testing.T) {
	h := sim.NewHost(quick, 1)
	defer h.Close()
	conformance.Run(t, conformance.Target{
		Hypervisor: h,
		Spec: hypervisor.Spec{
			Kind: hypervisor.Accelerated, Machine: hypervisor.DefaultMachine, MemoryBytes: 256 << 20,
			VCPUs: 1, VCPUsMax: 1, Boot: hypervisor.DirectBoot{Kernel: "/usr/share/cairn/guest/vmlinuz"},
		},
		Greeting: "cairn-demo-guest ready",
		KVM:      true,
		Answer: func(uuid string) {
			agent := qga.New(qga.Machine{Console: t.Output(), Off: func(string) { h.End(uuid, hypervisor.ByGuest) }})
			h.SetAgent(uuid, func(port net.Conn) { _ = agent.Serve(port) })
		},
		Volumes: conformance.Names{},
		Bridge:  "xenbr0",
		Hold:    func(_ *testing.T, uuid string) { h.HoldDevices(uuid, true) },
		Kept:    func(*testing.T, string, bool) {},
		Full: func(_ *testing.T, d hypervisor.Disk) conformance.Full {
			return conformance.Full{
				Source: *d.Source, Fail: func(uuid string) { h.FailWrite(uuid, d.ID, hypervisor.NoSpace) }, Grow: func() {},
			}
		},
		Kill:   func(_ *testing.T, uuid string) { h.End(uuid, hypervisor.ByCrash) },
		Bounce: func(*testing.T) { h.Resync() },
		Limit:  5 * time.Second,
	})
}

// TestShutdownIsOfOneDomain: a power button that was pressed does not end the
// domain after the one it belongs to.
func TestShutdownIsOfOneDomain(t *testing.T) {
	h := sim.NewHost(sim.Pace{Shutdown: time.Hour}, 1)
	defer h.Close()
	ctx := t.Context()
	spec := hypervisor.Spec{
		UUID: api.NewUUID(), Kind: hypervisor.Accelerated, Machine: hypervisor.DefaultMachine, MemoryBytes: 256 << 20,
		VCPUs: 1, VCPUsMax: 1, Boot: hypervisor.DirectBoot{Kernel: "/vmlinuz"},
	}
	must(t, h.Start(ctx, spec, false))
	must(t, h.Shutdown(ctx, spec.UUID))
	must(t, h.Shutdown(ctx, spec.UUID))
	must(t, h.Destroy(ctx, spec.UUID))
	must(t, h.Start(ctx, spec, false))
	if _, runs := h.Spec(spec.UUID); !runs {
		t.Error("the second domain is gone")
	}
}

// stack is the API on a simulated pool.
type stack struct {
	*wiretest.Server
	pool *sim.Pool
	vms  *vm.Manager
}

func newStack(t *testing.T, hosts, vms int) *stack {
	t.Helper()
	guests := t.TempDir()
	for _, f := range []string{"vmlinuz", "initrd.img"} {
		must(t, os.WriteFile(filepath.Join(guests, f), nil, 0o644))
	}
	s := &stack{pool: newPool(t, hosts, vms, guests)}
	ctx, cancel := context.WithCancel(context.Background())
	s.Server = wiretest.New(t, func(r *api.Registry, d *db.DB) {
		own := ownHost(t, d, s.pool)
		others, err := s.pool.Open(ctx, d, own.Ref())
		must(t, err)
		s.vms = vm.New(vm.Config{
			DB: d, Hypervisor: s.pool.First(), Consoles: s.pool, Host: own, Others: others, GuestDir: guests,
			ShutdownTimeout: time.Minute,
		})
		s.vms.Register(r)
	})
	ready, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); _ = s.vms.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() { cancel(); <-done })
	<-ready
	return s
}

func newPool(t *testing.T, hosts, vms int, guests string) *sim.Pool {
	t.Helper()
	p, err := sim.New(sim.Config{Hosts: hosts, VMs: vms, Seed: 7, Pace: quick, GuestDir: guests, Now: time.Unix(1e9, 0).UTC()})
	must(t, err)
	return p
}

func ownHost(t *testing.T, d *db.DB, p *sim.Pool) *host.Manager {
	t.Helper()
	h, err := host.New(host.Config{DB: d, Hypervisor: p.First(), Hostd: sim.Hostd(""), StateDir: t.TempDir()})
	must(t, err)
	must(t, h.Sync(t.Context()))
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *stack) guests() (running, halted []api.VMRef) {
	for ref, v := range db.All[api.VM](s.DB.Snapshot()) {
		switch {
		case v.IsControlDomain || v.IsATemplate:
		case v.PowerState == api.VMPowerStateRunning:
			running = append(running, ref)
		case v.PowerState == api.VMPowerStateHalted:
			halted = append(halted, ref)
		}
	}
	return running, halted
}

func (s *stack) record(ref api.VMRef) *api.VM {
	s.T.Helper()
	v, err := db.Get(s.DB.Snapshot(), ref)
	must(s.T, err)
	return v
}

// TestPoolIsWhole: every reference leads somewhere, from both sides.
func TestPoolIsWhole(t *testing.T) {
	const hosts, vms = 3, 60
	s := newStack(t, hosts, vms)
	snap := s.DB.Snapshot()
	n := 0
	for ref, v := range db.All[api.VM](snap) {
		if v.IsATemplate {
			continue
		}
		metrics, err := db.Get(snap, v.Metrics)
		must(t, err)
		if v.IsControlDomain {
			continue
		}
		n++
		active := v.PowerState != api.VMPowerStateHalted
		if (metrics.MemoryActual > 0) != active || v.ResidentOn.IsNull() == active || (len(v.Consoles) == 1) != active {
			t.Errorf("%s is %s on %q with %d consoles", v.NameLabel, v.PowerState, v.ResidentOn, len(v.Consoles))
		}
		if len(v.VBDs) != 1 || len(v.VIFs) != 1 || len(v.AllowedOperations) == 0 {
			t.Errorf("%s (%s): %d disks, %d NICs, allowed %v", v.NameLabel, ref, len(v.VBDs), len(v.VIFs), v.AllowedOperations)
		}
	}
	cpus := 0
	for _, h := range db.All[api.Host](snap) {
		cpus += len(h.HostCPUs)
		if len(h.PIFs) != 2 || len(h.PBDs) != 2 || len(h.ResidentVMs) < vms/hosts/2 {
			t.Errorf("host %s: %d PIFs, %d PBDs, %d VMs", h.NameLabel, len(h.PIFs), len(h.PBDs), len(h.ResidentVMs))
		}
		control, err := db.Get(snap, h.ControlDomain)
		must(t, err)
		if !control.IsControlDomain || h.SoftwareVersion["product_brand"] == "" {
			t.Errorf("host %s: %+v", h.NameLabel, h)
		}
	}
	if n != vms || cpus != hosts*32 {
		t.Errorf("%d VMs and %d CPUs", n, cpus)
	}
}

func TestEqualSeedsEqualPools(t *testing.T) {
	a, b := newStack(t, 2, 10), newStack(t, 2, 10)
	n := 0
	for ref, v := range db.All[api.VM](a.DB.Snapshot()) {
		if len(v.VBDs) == 0 {
			continue // templates and control domains are the toolstack's
		}
		n++
		if w := b.record(ref); w.UUID != v.UUID || w.NameLabel != v.NameLabel || w.PowerState != v.PowerState || w.VBDs[0] != v.VBDs[0] {
			t.Errorf("%s differs from %s", v.NameLabel, w.NameLabel)
		}
	}
	if n != 10 {
		t.Errorf("compared %d", n)
	}
}

// TestLife takes guests of a simulated pool through their life.
func TestLife(t *testing.T) {
	s := newStack(t, 3, 60)
	running, halted := s.guests()
	at := s.record(running[0]).ResidentOn
	s.Must(nil, "VM.pause", running[0])
	s.Must(nil, "VM.unpause", running[0])
	s.Must(nil, "VM.clean_reboot", running[0])
	if v := s.record(running[0]); v.ResidentOn != at || v.PowerState != api.VMPowerStateRunning {
		t.Errorf("after a reboot on %s, was on %s (%s)", v.ResidentOn, at, v.PowerState)
	}
	s.Must(nil, "VM.clean_shutdown", running[0])
	s.Must(nil, "VM.hard_shutdown", running[1])
	s.Must(nil, "VM.start_on", halted[0], at, false, false)
	if v := s.record(halted[0]); v.ResidentOn != at {
		t.Errorf("runs on %s, wanted %s", v.ResidentOn, at)
	}
	s.Must(nil, "VM.start", running[1], false, false)
	must(t, s.pool.Crash(s.record(running[2]).UUID))
	s.Until("restarted after a crash", func() bool {
		v := s.record(running[2])
		m, err := db.Get(s.DB.Snapshot(), v.Metrics)
		return err == nil && v.PowerState == api.VMPowerStateRunning && m.StartTime.Year() > 2020
	})
	if s.pool.Crash(api.NewUUID()) == nil {
		t.Error("nobody crashed, and no error says so")
	}
}

// TestFreeMemory: a host's metrics follow what runs on it.
func TestFreeMemory(t *testing.T) {
	s := newStack(t, 2, 20)
	other := func() *api.HostMetrics {
		for _, h := range db.All[api.Host](s.DB.Snapshot()) {
			if h.OtherConfig["cairn:simulated"] == "1" {
				m, err := db.Get(s.DB.Snapshot(), h.Metrics)
				must(t, err)
				return m
			}
		}
		t.Fatal("there is no second host")
		return nil
	}
	before := other().MemoryFree
	running, _ := s.guests()
	for _, ref := range running {
		s.Must(nil, "VM.hard_shutdown", ref)
	}
	must(t, s.pool.Refresh(t.Context(), s.DB))
	if after := other().MemoryFree; after <= before || before <= 0 {
		t.Errorf("free %d, was %d", after, before)
	}
}

// TestReopen: what ran goes on running on a kept database, and is not made twice.
func TestReopen(t *testing.T) {
	s := newStack(t, 3, 30)
	running, _ := s.guests()
	again := newPool(t, 3, 30, t.TempDir())
	var own api.HostRef
	for ref, h := range db.All[api.Host](s.DB.Snapshot()) {
		if h.OtherConfig["cairn:simulated"] == "0" {
			own = ref
		}
	}
	others, err := again.Open(t.Context(), s.DB, own)
	must(t, err)
	if len(others) != 2 {
		t.Errorf("%d other hosts", len(others))
	}
	if still, _ := s.guests(); len(still) != len(running) {
		t.Errorf("%d run, %d ran", len(still), len(running))
	}
	must(t, again.Crash(s.record(running[0]).UUID))
	must(t, console.New(s.DB, again, nil).Attach(t.Context(), s.record(running[1]).UUID))
	if _, err := newPool(t, 2, 30, "").Open(t.Context(), s.DB, own); err == nil {
		t.Error("a pool of another size took the database over")
	}
}

// TestUse: guests that run use their virtual CPUs, as many as their rows give them.
func TestUse(t *testing.T) {
	s := newStack(t, 1, 20)
	before, err := s.pool.First().Stats(t.Context())
	must(t, err)
	after, err := s.pool.First().Stats(t.Context())
	must(t, err)
	grown := 0
	for i, x := range after {
		ref, err := db.ByUUID[api.VM](s.DB.Snapshot(), x.UUID)
		must(t, err)
		row, err := db.Get(s.DB.Snapshot(), ref)
		must(t, err)
		if int64(len(x.VCPUs)) != row.VCPUsAtStartup || x.Memory.Actual != row.MemoryTarget {
			t.Errorf("%+v of %d vCPUs", x, row.VCPUsAtStartup)
		}
		if x.VCPUs[0] > before[i].VCPUs[0] {
			grown++
		}
	}
	if len(after) < 10 || grown < 10 {
		t.Errorf("%d of %d guests did something", grown, len(after))
	}
}
