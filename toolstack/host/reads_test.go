package host_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/certificate/certificatetest"
	"cairn/toolstack/db"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/wire/wiretest"
)

func TestClock(t *testing.T) {
	s := newStack(t)
	s.now.Store(time.Date(2026, 7, 1, 12, 30, 0, 0, time.UTC).Unix())
	var utc, local string
	var zones []string
	s.Must(&utc, "host.get_servertime", s.m.Ref())
	s.Must(&local, "host.get_server_localtime", s.m.Ref())
	if utc != "20260701T12:30:00Z" || local != utc {
		t.Errorf("UTC %s, local %s", utc, local)
	}
	s.Must(&zones, "host.list_timezones", s.m.Ref())
	if len(zones) < 400 || !slices.IsSorted(zones) {
		t.Errorf("%d zones, sorted: %t", len(zones), slices.IsSorted(zones))
	}
	for _, z := range zones {
		if _, err := time.LoadLocation(z); err != nil {
			t.Errorf("zone %s: %v", z, err)
		}
	}
	s.Must(nil, "host.set_timezone", s.m.Ref(), "Europe/Berlin")
	if s.Must(&local, "host.get_server_localtime", s.m.Ref()); local != "20260701T14:30:00Z" {
		t.Errorf("in Berlin it is %s", local)
	}
	s.Covers("host.get_servertime", "host.get_server_localtime", "host.list_timezones")
}

func TestLogs(t *testing.T) {
	s := newStack(t, func(h *hosttest.Hostd) { h.Kernel = "<6>[    0.1] one\n<30>[    0.2] two > one\nthree\n" })
	var text string
	if s.Must(&text, "host.get_log", s.m.Ref()); text != "" {
		t.Errorf("before anything was logged: %q", text)
	}
	s.hostd.Set(func(h *hosttest.Hostd) { h.ServiceLog = []string{"a", "b"} })
	if s.Must(&text, "host.get_log", s.m.Ref()); text != "a\nb\n" {
		t.Errorf("log %q", text)
	}
	const messages = "[    0.1] one\n[    0.2] two > one\nthree\n"
	if s.Must(&text, "host.dmesg", s.m.Ref()); text != messages {
		t.Errorf("kernel's messages %q", text)
	}
	if s.Must(&text, "host.dmesg_clear", s.m.Ref()); text != messages {
		t.Errorf("kernel's messages %q", text)
	}
	if s.Must(&text, "host.dmesg", s.m.Ref()); text != "" {
		t.Errorf("after they were cleared: %q", text)
	}
	s.Refused(api.ErrHandleInvalid("host", "OpaqueRef:x"), "host.get_log", "OpaqueRef:x")
	s.Covers("host.get_log", "host.dmesg", "host.dmesg_clear")
}

func TestDiagnostics(t *testing.T) {
	s := newStack(t)
	var text string
	if s.Must(&text, "host.get_thread_diagnostics", s.m.Ref()); !strings.Contains(text, "goroutine profile") || !strings.Contains(text, "threads") {
		t.Errorf("threads: %.200s", text)
	}
	var methods []string
	s.Must(&methods, "host.list_methods")
	if !slices.Contains(methods, "VM.start") || slices.Contains(methods, "host.tickle_heartbeat") {
		t.Errorf("%d methods", len(methods))
	}
	var stats map[string]string
	if s.Must(&stats, "Diagnostics.gc_stats", s.m.Ref()); stats["heap_bytes"] == "" || stats["goroutines"] == "0" {
		t.Errorf("memory %v", stats)
	}
	before := stats["collections"]
	s.Must(nil, "Diagnostics.gc_compact", s.m.Ref())
	if s.Must(&stats, "Diagnostics.gc_stats", s.m.Ref()); stats["collections"] == before {
		t.Error("nothing was collected")
	}
	if s.Must(&stats, "Diagnostics.db_stats"); stats["objects:host"] != "1" || stats["objects:host_cpu"] != "2" {
		t.Errorf("database %v", stats)
	}
	s.Covers("host.get_thread_diagnostics", "host.list_methods", "Diagnostics.gc_stats", "Diagnostics.gc_compact", "Diagnostics.db_stats")
}

func TestEvacuation(t *testing.T) {
	s := newStack(t)
	var found map[string][]string
	if s.Must(&found, "host.get_vms_which_prevent_evacuation", s.m.Ref()); len(found) != 0 {
		t.Errorf("on an empty host: %v", found)
	}
	s.Must(nil, "host.assert_can_evacuate", s.m.Ref())
	s.Must(nil, "host.evacuate", s.m.Ref())
	vm := api.NewVM()
	vm.ResidentOn, vm.PowerState = s.m.Ref(), api.VMPowerStateRunning
	ref := wiretest.Insert(s.Server, vm)
	s.Must(&found, "host.get_vms_which_prevent_evacuation", s.m.Ref())
	if len(found) != 1 || !slices.Equal(found[ref.String()], []string{"NO_HOSTS_AVAILABLE"}) {
		t.Errorf("with a VM: %v", found)
	}
	cannot := api.ErrCannotEvacuateHost("NO_HOSTS_AVAILABLE")
	s.Refused(cannot, "host.assert_can_evacuate", s.m.Ref())
	s.Refused(cannot, "host.evacuate", s.m.Ref())
	other := api.NewHost()
	other.Enabled = true
	wiretest.Insert(s.Server, other)
	s.Refused(api.ErrCannotEvacuateHost("NOT_IMPLEMENTED,VM.pool_migrate"), "host.assert_can_evacuate", s.m.Ref())
	s.Covers("host.get_vms_which_prevent_evacuation", "host.assert_can_evacuate", "host.evacuate")
}

func TestManagementInterface(t *testing.T) {
	s := newStack(t)
	var ref string
	s.Must(&ref, "host.get_management_interface", s.m.Ref())
	p, err := db.Get(s.DB.Snapshot(), api.PIFRef(ref))
	if err != nil {
		t.Fatal(err)
	}
	if p.Device != "eth0" || p.MAC != "52:54:00:00:00:01" || p.IP != "192.0.2.7" || p.Netmask != "255.255.255.0" ||
		p.Gateway != "192.0.2.1" || p.DNS != "192.0.2.53" || p.IPConfigurationMode != api.IPConfigurationModeDHCP ||
		p.VLAN != -1 || !p.Physical || !p.Management || !p.CurrentlyAttached || p.Host != s.m.Ref() {
		t.Errorf("PIF %+v", p)
	}
	n, err := db.Get(s.DB.Snapshot(), p.Network)
	if err != nil || n.Bridge != "xenbr0" || len(n.PIFs) != 1 || n.UUID == "" {
		t.Errorf("network %+v, %v", n, err)
	}
	if r, err := db.Get(s.DB.Snapshot(), p.Metrics); err != nil || !r.Carrier || r.Speed != 1000 || r.PCIBusPath != "0000:00:02.0" {
		t.Errorf("metrics %+v, %v", r, err)
	}
	s.Must(nil, "network.set_name_label", p.Network, "mine")
	s.hostd.Set(func(h *hosttest.Hostd) { h.Address = "198.51.100.9/20" })
	if err := s.m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err = db.Get(s.DB.Snapshot(), api.PIFRef(ref))
	if err != nil || p.IP != "198.51.100.9" || p.Netmask != "255.255.240.0" {
		t.Errorf("after a move: %+v, %v", p, err)
	}
	if n, err := db.Get(s.DB.Snapshot(), p.Network); err != nil || n.NameLabel != "mine" {
		t.Errorf("the network's name is undone: %+v, %v", n, err)
	}
	bare := wiretest.Insert(s.Server, api.NewHost())
	s.Refused(api.ErrHostHasNoManagementIP(), "host.get_management_interface", bare)
	s.Covers("host.get_management_interface")
}

func TestCertificate(t *testing.T) {
	s := newStack(t)
	s.Refused(api.ErrCertificateDoesNotExist("host"), "host.get_server_certificate", s.m.Ref())
	for n := range 2 {
		a := certificatetest.New(t, certificatetest.Options{Name: "host", Leaf: true})
		for range 2 { // the second time there is nothing to write
			if err := s.m.Present(t.Context(), []byte(a.PEM)); err != nil {
				t.Fatal(err)
			}
		}
		var pem string
		if s.Must(&pem, "host.get_server_certificate", s.m.Ref()); pem != a.PEM {
			t.Errorf("certificate %d is another one", n)
		}
		if c := s.row().Certificates; len(c) != 1 {
			t.Errorf("rows %v", c)
		}
	}
	if err := s.m.Present(t.Context(), []byte("no")); err == nil {
		t.Error("nonsense was presented")
	}
	s.Covers("host.get_server_certificate")
}

func TestSmallAnswers(t *testing.T) {
	s := newStack(t)
	for _, tt := range []struct {
		method string
		args   []any
		want   string
	}{
		{"host.has_extension", []any{s.m.Ref(), "x"}, "false"},
		{"host.is_in_emergency_mode", nil, "false"},
		{"host.ha_xapi_healthcheck", nil, "true"},
		{"host.get_sched_gran", []any{s.m.Ref()}, `"cpu"`},
		{"host.compute_memory_overhead", []any{s.m.Ref()}, "0"},
	} {
		if got, err := s.Call(tt.method, tt.args...); err != nil || string(got) != tt.want {
			t.Errorf("%s: got %s, %v; want %s", tt.method, got, err, tt.want)
		}
		s.Covers(tt.method)
	}
	if err := s.DB.Update(t.Context(), func(tx *db.Tx) error {
		h, err := db.Edit(tx, s.m.Ref())
		h.PendingGuidances = []api.UpdateGuidances{api.UpdateGuidancesRebootHost}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s.Must(nil, "host.emergency_clear_mandatory_guidance")
	if g := s.row().PendingGuidances; len(g) != 0 {
		t.Errorf("guidance %v", g)
	}
	s.Covers("host.emergency_clear_mandatory_guidance")
}

func TestRestartAgent(t *testing.T) {
	s := newStack(t)
	s.Refused(api.ErrHandleInvalid("host", "OpaqueRef:x"), "host.restart_agent", "OpaqueRef:x")
	if n := s.restarts.Load(); n != 0 {
		t.Errorf("%d restarts", n)
	}
	s.Must(nil, "host.restart_agent", s.m.Ref())
	if n := s.restarts.Load(); n != 1 {
		t.Errorf("%d restarts", n)
	}
	s.Covers("host.restart_agent")
}

func TestDestroy(t *testing.T) {
	s := newStack(t)
	metrics := wiretest.Insert(s.Server, api.NewHostMetrics())
	dead := api.NewHost()
	dead.Metrics = metrics
	ref := wiretest.Insert(s.Server, dead)
	cpu, pif, pbd := api.NewHostCPU(), api.NewPIF(), api.NewPBD()
	cpu.Host, pif.Host, pbd.Host = ref, ref, ref
	wiretest.Insert(s.Server, cpu)
	wiretest.Insert(s.Server, pif)
	wiretest.Insert(s.Server, pbd)
	vm := api.NewVM()
	vm.ResidentOn = ref
	resident := wiretest.Insert(s.Server, vm)
	s.Refused(api.ErrHostHasResidentVMs(ref.String()), "host.destroy", ref)
	if err := s.DB.Update(t.Context(), func(tx *db.Tx) error { return db.Delete(tx, resident) }); err != nil {
		t.Fatal(err)
	}
	s.Must(nil, "host.destroy", ref)
	snap := s.DB.Snapshot()
	if _, err := db.Get(snap, ref); err == nil {
		t.Error("the host is still there")
	}
	if _, err := db.Get(snap, metrics); err == nil {
		t.Error("its metrics are still there")
	}
	for range db.All[api.PBD](snap) {
		t.Error("its PBD is still there")
	}
	if n := len(s.row().HostCPUs) + len(s.row().PIFs); n != 3 {
		t.Errorf("the living host has lost rows: %d are left", n)
	}
	s.Covers("host.destroy")
}
