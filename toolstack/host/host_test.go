package host_test

import (
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/host"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/wire/wiretest"
)

type stack struct {
	*wiretest.Server
	m     *host.Manager
	hostd *hosttest.Hostd
	hv    *hypervisor.Fake

	now      atomic.Int64 // seconds, 0 for the real time
	restarts atomic.Int32
}

func (s *stack) time() time.Time {
	if at := s.now.Load(); at != 0 {
		return time.Unix(at, 0)
	}
	return time.Now()
}

func newStack(t *testing.T, change ...func(*hosttest.Hostd)) *stack {
	t.Helper()
	s := &stack{hostd: hosttest.New(), hv: hypervisor.NewFake()}
	for _, c := range change {
		s.hostd.Set(c)
	}
	dir := t.TempDir()
	s.Server = wiretest.New(t, func(r *api.Registry, d *db.DB) {
		var err error
		s.m, err = host.New(host.Config{
			DB: d, Hypervisor: s.hv, Hostd: s.hostd, StateDir: dir, Now: s.time, Restart: func() { s.restarts.Add(1) },
		})
		if err == nil {
			err = s.m.Sync(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		s.m.Register(r)
	})
	return s
}

func (s *stack) row() *api.Host {
	s.T.Helper()
	h, err := db.Get(s.DB.Snapshot(), s.m.Ref())
	if err != nil {
		s.T.Fatal(err)
	}
	return h
}

func TestRows(t *testing.T) {
	s := newStack(t)
	h := s.row()
	if h.Hostname != "cairn-test" || h.Address != "192.0.2.7" || !h.Enabled || h.OtherConfig["kvm"] != "usable" {
		t.Errorf("host %+v", h)
	}
	if v := h.SoftwareVersion; v["product_brand"] != "Cairn" || v["platform_version"] != "3.4.0" || v["network_backend"] != "bridge" || v["xapi"] == "" {
		t.Errorf("software_version %v", v)
	}
	if h.APIVersionMajor != 2 || h.APIVersionMinor != 23 || !slices.Contains(h.Capabilities, "hvm-3.0-x86_64") {
		t.Errorf("api %d.%d, capabilities %v", h.APIVersionMajor, h.APIVersionMinor, h.Capabilities)
	}
	if len(h.HostCPUs) != 2 || h.CPUInfo["cpu_count"] != "2" {
		t.Errorf("cpus %v %v", h.HostCPUs, h.CPUInfo)
	}
	dom0, err := db.Get(s.DB.Snapshot(), h.ControlDomain)
	if err != nil || !dom0.IsControlDomain || dom0.PowerState != api.VMPowerStateRunning || dom0.ResidentOn != s.m.Ref() {
		t.Errorf("control domain %+v, %v", dom0, err)
	}
	pools := 0
	for _, p := range db.All[api.Pool](s.DB.Snapshot()) {
		pools++
		if p.Master != s.m.Ref() {
			t.Errorf("pool %+v", p)
		}
	}
	if pools != 1 {
		t.Errorf("%d pools", pools)
	}
}

// TestSyncIsIdempotent: looking again writes nothing, a change is written once.
func TestSyncIsIdempotent(t *testing.T) {
	s := newStack(t)
	before := s.DB.Snapshot().Generation()
	if err := s.m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := s.DB.Snapshot().Generation(); now != before {
		t.Errorf("generation went from %d to %d for nothing", before, now)
	}
	s.hostd.Set(func(h *hosttest.Hostd) { h.Address = "192.0.2.8/24"; h.Hardware.CPU.Count = 1 })
	if err := s.m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h := s.row(); h.Address != "192.0.2.8" || len(h.HostCPUs) != 1 {
		t.Errorf("after a change: %s, %d cpus", h.Address, len(h.HostCPUs))
	}
}

func TestKind(t *testing.T) {
	s := newStack(t)
	tests := []struct {
		name   string
		usable bool
		policy config.Emulation
		want   hypervisor.Kind
		text   string
	}{
		{"kvm", true, config.EmulationAllowed, hypervisor.Accelerated, "usable"},
		{"none", false, config.EmulationNone, "", "no svm"},
		{"emulation", false, config.EmulationAllowed, hypervisor.Emulated, "no svm"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.hostd.Set(func(h *hosttest.Hostd) {
				h.Hardware.KVM = client.KVM{Usable: tt.usable, Reason: "no svm"}
				h.Document.Emulation = tt.policy
			})
			if err := s.m.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if kind, ok := s.m.Kind(); kind != tt.want || ok != (tt.want != "") {
				t.Errorf("kind %q %t", kind, ok)
			}
			if h := s.row(); h.OtherConfig["kvm"] != tt.text || h.OtherConfig["emulation"] != string(tt.policy) ||
				(len(h.Capabilities) > 0) != tt.usable {
				t.Errorf("host says %v, capabilities %v", h.OtherConfig, h.Capabilities)
			}
		})
	}
}

func TestPower(t *testing.T) {
	s := newStack(t)
	ref := string(s.m.Ref())
	s.Refused(api.ErrHostNotDisabled(), "host.reboot", ref)
	s.Must(nil, "host.disable", ref)
	s.Must(nil, "host.reboot", ref)
	s.Must(nil, "host.shutdown", ref)
	if got := s.hostd.Asked(); !slices.Equal(got, []client.PowerAction{client.Reboot, client.Poweroff}) {
		t.Errorf("hostd was asked for %v", got)
	}
	s.Must(nil, "host.enable", ref)
	if !s.row().Enabled {
		t.Error("not enabled")
	}
	s.Covers("host.disable", "host.enable", "host.reboot", "host.shutdown")
	s.Refused(api.ErrHandleInvalid("host", "OpaqueRef:x"), "host.reboot", "OpaqueRef:x")
}

func TestDisabledOverARestart(t *testing.T) {
	s := newStack(t)
	ref := string(s.m.Ref())
	for _, tt := range []struct{ auto, enabled bool }{{true, true}, {false, false}} {
		s.Must(nil, "host.disable", ref, tt.auto)
		if err := s.m.EnableAtStart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.row().Enabled != tt.enabled {
			t.Errorf("auto_enable %t: enabled %t", tt.auto, s.row().Enabled)
		}
	}
}

func TestCallPlugin(t *testing.T) {
	s := newStack(t)
	ref := string(s.m.Ref())
	spec := hypervisor.Spec{
		UUID: api.NewUUID(), Kind: hypervisor.Accelerated, Machine: hypervisor.DefaultMachine,
		MemoryBytes: 64 << 20, VCPUs: 1, VCPUsMax: 1, Boot: hypervisor.DirectBoot{Kernel: "/k"},
	}
	vm := api.NewVM()
	vm.UUID = spec.UUID
	if err := s.DB.Update(t.Context(), func(tx *db.Tx) error { db.Insert(tx, vm); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.hv.Start(t.Context(), spec, false); err != nil {
		t.Fatal(err)
	}
	var answer string
	s.Must(&answer, "host.call_plugin", ref, "hypervisor", "query-kvm", map[string]string{"uuid": vm.UUID})
	if answer != `{"enabled":true,"present":true}` {
		t.Errorf("query-kvm: %s", answer)
	}
	s.Covers("host.call_plugin")
	s.Refused(api.ErrXenapiMissingPlugin("evil"), "host.call_plugin", ref, "evil", "f", map[string]string{})
	s.Refused(api.ErrXenapiPluginFailure("unknown function", "", "f"), "host.call_plugin", ref, "hypervisor", "f", map[string]string{})
	s.Refused(api.ErrUUIDInvalid("VM", "nope"), "host.call_plugin", ref, "hypervisor", "query-kvm", map[string]string{"uuid": "nope"})
}

func TestFreeMemory(t *testing.T) {
	s := newStack(t)
	metrics := wiretest.Get(s.Server, wiretest.Get(s.Server, s.m.Ref()).Metrics)
	if free := metrics.MemoryFree; free != s.m.GuestMemory() || free < 3<<30 || free >= metrics.MemoryTotal {
		t.Errorf("free %d of %d", free, s.m.GuestMemory())
	}
}

// TestAwaitKind: right after a boot nobody knows yet whether there is KVM, and a
// start must neither fail for that nor guess.
func TestAwaitKind(t *testing.T) {
	s := newStack(t, func(h *hosttest.Hostd) { h.Hardware.KVM = client.KVM{Pending: true} })
	if kind, ok := s.m.Kind(); ok {
		t.Fatalf("kind %q before the verdict", kind)
	}
	done := make(chan error, 1)
	go func() { done <- s.m.AwaitKind(t.Context()) }()
	for !s.usable() { // the wait itself has the module loaded
		runtime.Gosched()
	}
	if err := errors.Join(s.m.Sync(t.Context()), <-done); err != nil {
		t.Fatal(err)
	}
	if kind, ok := s.m.Kind(); !ok || kind != hypervisor.Accelerated {
		t.Errorf("kind %q", kind)
	}
}

func (s *stack) usable() (is bool) {
	s.hostd.Set(func(h *hosttest.Hostd) { is = h.Hardware.KVM.Usable })
	return is
}
