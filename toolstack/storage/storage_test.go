package storage_test

import (
	"slices"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
	"cairn/toolstack/wire/wiretest"
)

type stack struct{ *wiretest.Server }

func newStack(t *testing.T) stack {
	t.Helper()
	return stack{wiretest.New(t, func(r *api.Registry, d *db.DB) { storage.New(storage.Config{DB: d}).Register(r) })}
}

func TestSR(t *testing.T) {
	s := newStack(t)
	ref := wiretest.Insert(s.Server, api.NewSR())
	for _, tt := range []struct {
		method string
		value  any
		holds  func(*api.SR) bool
	}{
		{"SR.set_name_label", "fast", func(r *api.SR) bool { return r.NameLabel == "fast" }},
		{"SR.set_name_description", "d", func(r *api.SR) bool { return r.NameDescription == "d" }},
		{"SR.set_shared", true, func(r *api.SR) bool { return r.Shared }},
		{"SR.set_physical_size", 1 << 40, func(r *api.SR) bool { return r.PhysicalSize == 1<<40 }},
		{"SR.set_physical_utilisation", 5, func(r *api.SR) bool { return r.PhysicalUtilisation == 5 }},
		{"SR.set_virtual_allocation", 6, func(r *api.SR) bool { return r.VirtualAllocation == 6 }},
	} {
		s.Must(nil, tt.method, ref, tt.value)
		if r := wiretest.Get(s.Server, ref); !tt.holds(r) {
			t.Errorf("%s(%v) has no effect: %+v", tt.method, tt.value, r)
		}
		s.Covers(tt.method)
	}
	before := wiretest.Get(s.Server, ref)
	for _, field := range []string{"physical_size", "physical_utilisation", "virtual_allocation"} {
		s.Refused(api.ErrInvalidValue(field, "-1"), "SR.set_"+field, ref, -1)
	}
	if wiretest.Get(s.Server, ref) != before {
		t.Error("a refused call has written")
	}
}

func TestSharedByPBDs(t *testing.T) {
	s := newStack(t)
	metrics := api.NewHostMetrics()
	metrics.Live = true
	h := api.NewHost()
	h.Metrics, h.Enabled = wiretest.Insert(s.Server, metrics), true
	host, dead := wiretest.Insert(s.Server, h), wiretest.Insert(s.Server, api.NewHost())
	ref := wiretest.Insert(s.Server, api.NewSR())
	var pbds []api.PBDRef
	for _, on := range []api.HostRef{host, dead} {
		p := api.NewPBD()
		p.SR, p.Host, p.CurrentlyAttached = ref, on, true
		pbds = append(pbds, wiretest.Insert(s.Server, p))
	}
	s.Must(nil, "SR.set_shared", ref, true)
	s.Refused(api.ErrSRHasMultiplePbds(wiretest.Get(s.Server, ref).PBDs[0].String()), "SR.set_shared", ref, false)
	var live []api.HostRef
	if s.Must(&live, "SR.get_live_hosts", ref); !slices.Equal(live, []api.HostRef{host}) {
		t.Errorf("live hosts %v, want %v", live, host)
	}
	s.Refused(api.ErrOperationNotAllowed("the PBD is attached"), "PBD.set_device_config", pbds[0], map[string]string{})
	loose := wiretest.Insert(s.Server, api.NewPBD())
	s.Must(nil, "PBD.set_device_config", loose, map[string]string{"server": "x"})
	if c := wiretest.Get(s.Server, loose).DeviceConfig; c["server"] != "x" {
		t.Errorf("device_config %v", c)
	}
	s.Covers("SR.get_live_hosts", "PBD.set_device_config")
}

func TestSupportedTypes(t *testing.T) {
	s := newStack(t)
	var types []string
	if s.Must(&types, "SR.get_supported_types"); len(types) != 0 {
		t.Errorf("without drivers: %v", types)
	}
	for _, kind := range []string{"nfs", "ext", "nfs"} {
		d := api.NewSM()
		d.Type = kind
		wiretest.Insert(s.Server, d)
	}
	if s.Must(&types, "SR.get_supported_types"); !slices.Equal(types, []string{"ext", "nfs"}) {
		t.Errorf("types %v", types)
	}
	s.Covers("SR.get_supported_types")
}

func TestVDI(t *testing.T) {
	s := newStack(t)
	sr := api.NewSR()
	sr.Type = "ext"
	disk := api.NewVDI()
	disk.SR = wiretest.Insert(s.Server, sr)
	ref, other := wiretest.Insert(s.Server, disk), wiretest.Insert(s.Server, api.NewVDI())
	pool := api.NewRef[api.Pool]()
	driver := api.NewSM()
	driver.Type, driver.Features = "ext", map[string]int64{"VDI_RESET_ON_BOOT": 2}
	s.Refused(api.ErrSROperationNotSupported(disk.SR.String()), "VDI.set_on_boot", ref, "reset")
	wiretest.Insert(s.Server, driver)
	for _, tt := range []struct {
		method string
		value  any
		holds  func(*api.VDI) bool
	}{
		{"VDI.set_name_label", "root", func(r *api.VDI) bool { return r.NameLabel == "root" }},
		{"VDI.set_name_description", "d", func(r *api.VDI) bool { return r.NameDescription == "d" }},
		{"VDI.set_read_only", true, func(r *api.VDI) bool { return r.ReadOnly }},
		{"VDI.set_sharable", true, func(r *api.VDI) bool { return r.Sharable }},
		{"VDI.set_sharable", false, func(r *api.VDI) bool { return !r.Sharable }},
		{"VDI.set_allow_caching", true, func(r *api.VDI) bool { return r.AllowCaching }},
		{"VDI.set_on_boot", "reset", func(r *api.VDI) bool { return r.OnBoot == api.OnBootReset }},
		{"VDI.set_missing", true, func(r *api.VDI) bool { return r.Missing }},
		{"VDI.set_managed", true, func(r *api.VDI) bool { return r.Managed }},
		{"VDI.set_virtual_size", 7, func(r *api.VDI) bool { return r.VirtualSize == 7 }},
		{"VDI.set_physical_utilisation", 8, func(r *api.VDI) bool { return r.PhysicalUtilisation == 8 }},
		{"VDI.set_is_a_snapshot", true, func(r *api.VDI) bool { return r.IsASnapshot }},
		{"VDI.set_snapshot_of", other, func(r *api.VDI) bool { return r.SnapshotOf == other }},
		{"VDI.set_snapshot_time", "20260102T03:04:05Z", func(r *api.VDI) bool { return r.SnapshotTime.Year() == 2026 }},
		{"VDI.set_metadata_of_pool", pool, func(r *api.VDI) bool { return r.MetadataOfPool == pool }},
		{"VDI.set_cbt_enabled", true, func(r *api.VDI) bool { return r.CBTEnabled }},
	} {
		s.Must(nil, tt.method, ref, tt.value)
		if r := wiretest.Get(s.Server, ref); !tt.holds(r) {
			t.Errorf("%s(%v) has no effect: %+v", tt.method, tt.value, r)
		}
		s.Covers(tt.method)
	}
	if o := wiretest.Get(s.Server, other); !slices.Equal(o.Snapshots, []api.VDIRef{ref}) {
		t.Errorf("snapshots of the other disk: %v", o.Snapshots)
	}
}

func TestVDIRefused(t *testing.T) {
	s := newStack(t)
	disk := api.NewVDI()
	disk.SR = wiretest.Insert(s.Server, api.NewSR())
	ref := wiretest.Insert(s.Server, disk)
	vbd := api.NewVBD()
	vbd.VDI, vbd.CurrentlyAttached = ref, true
	wiretest.Insert(s.Server, vbd)
	before := wiretest.Get(s.Server, ref)
	for _, name := range []string{"set_read_only", "set_sharable", "set_allow_caching"} {
		s.Refused(api.ErrVDIInUse(ref.String(), name), "VDI."+name, ref, true)
	}
	s.Refused(api.ErrVDIInUse(ref.String(), "set_on_boot"), "VDI.set_on_boot", ref, "persist")
	s.Refused(api.ErrInvalidValue("virtual_size", "-1"), "VDI.set_virtual_size", ref, -1)
	s.Refused(api.ErrInvalidValue("physical_utilisation", "-1"), "VDI.set_physical_utilisation", ref, -1)
	s.Refused(api.ErrHandleInvalid("VDI", "OpaqueRef:x"), "VDI.set_snapshot_of", ref, "OpaqueRef:x")
	if wiretest.Get(s.Server, ref) != before {
		t.Error("a refused call has written")
	}
}
