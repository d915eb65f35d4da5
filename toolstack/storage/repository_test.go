package storage_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
	"cairn/toolstack/wire/wiretest"
)

func refused(number, text string) *api.Error {
	return &api.Error{Code: "SR_BACKEND_FAILURE_" + number, Params: []string{"", text, ""}}
}

func TestDriversSayWhatTheyCan(t *testing.T) {
	r := newRig(t)
	var types []string
	r.Must(&types, "SR.get_supported_types")
	if want := []string{"dummy", "ext", "file", "iso", "lvm", "udev"}; !slices.Equal(types, want) {
		t.Errorf("types %v, want %v", types, want)
	}
	stale := api.NewSM()
	stale.Type = "nfs"
	ref := wiretest.Insert(r.Server, stale)
	if err := r.m.EnsureDrivers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Get(r.DB.Snapshot(), ref); err == nil {
		t.Error("the row of a type nobody knows is still there")
	}
	for _, sm := range db.All[api.SM](r.DB.Snapshot()) {
		if len(sm.Capabilities) != len(sm.Features) || sm.Features["SR_SCAN"] == 0 {
			t.Errorf("%s has capabilities %v and features %v", sm.Type, sm.Capabilities, sm.Features)
		}
		if _, can := sm.Features["VDI_CREATE"]; can != (sm.Type != "iso" && sm.Type != "udev") {
			t.Errorf("%s: can create: %v", sm.Type, can)
		}
	}
}

func TestCreateRepository(t *testing.T) {
	r := newRig(t)
	r.hostd.SetSize("/dev/sdb", 1<<30)
	ref := r.sr("ext", "/dev/sdb")
	s := wiretest.Get(r.Server, ref)
	if s.PhysicalSize != 1<<30 || s.Type != "ext" || s.ContentType != "user" || len(s.PBDs) != 1 {
		t.Errorf("created %+v", s)
	}
	if p := wiretest.Get(r.Server, s.PBDs[0]); !p.CurrentlyAttached || p.Host != r.host || p.DeviceConfig["device"] != "/dev/sdb" {
		t.Errorf("with PBD %+v", p)
	}
	create := func(kind string, device map[string]string, shared bool) []any {
		return []any{r.host, device, 0, "x", "", kind, "", shared, noMap}
	}
	device := map[string]string{"device": "/dev/sdb"}
	for _, tt := range []struct {
		want *api.Error
		args []any
	}{
		{api.ErrSRUnknownDriver("nfs"), create("nfs", device, false)},
		{refused("90", "The request is missing the device parameter"), create("ext", noMap, false)},
		{refused("94", "The request is missing the location parameter"), create("file", noMap, false)},
		{refused("220", "'Location' parameter must be specified in Device Configuration"), create("iso", noMap, false)},
		{api.ErrInvalidValue("shared", "true"), create("ext", map[string]string{"device": "/dev/sdc"}, true)},
		{refused("16", "The SR device is currently in use [opterr=/dev/sdb holds repository "+s.UUID+"]"), create("ext", device, false)},
	} {
		r.Refused(tt.want, "SR.create", tt.args...)
	}
	elsewhere := wiretest.Insert(r.Server, api.NewHost())
	args := create("ext", device, false)
	args[0] = elsewhere
	r.Refused(api.ErrHostOffline(elsewhere.String()), "SR.create", args...)
	if n := r.DB.Snapshot().Count(api.ClassOf[api.SR]()); n != 1 {
		t.Errorf("%d repositories, want 1", n)
	}
	var dummy api.SRRef
	r.Must(&dummy, "SR.create", create("dummy", map[string]string{}, true)...)
	if n := len(wiretest.Get(r.Server, dummy).PBDs); n != 2 {
		t.Errorf("a shared repository has %d PBDs, want one a host", n)
	}
	r.Covers("SR.create")
}

// A repository that cannot be attached leaves nothing behind.
func TestCreateUndone(t *testing.T) {
	r := newRig(t)
	r.hostd.Fail(func(verb, _, _ string) error {
		if verb == "attach" {
			return &api.Error{Code: "X"}
		}
		return nil
	})
	if _, err := r.Call("SR.create", r.host, map[string]string{"device": "/dev/sdb"}, 0, "x", "", "ext", "", false, noMap); err == nil {
		t.Fatal("it was made")
	}
	r.hostd.Fail(nil)
	if n := r.DB.Snapshot().Count(api.ClassOf[api.SR]()); n != 0 {
		t.Errorf("%d repositories are left", n)
	}
	r.sr("ext", "/dev/sdb") // the medium is blank again
}

// What was on a medium is there again after it was forgotten, layers included.
func TestForgetIntroduceScan(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	r.write(ref, 0, 1)
	var snap, clone api.VDIRef
	r.Must(&snap, "VDI.snapshot", ref, noMap)
	r.Must(&clone, "VDI.clone", ref, noMap)
	r.write(ref, 0, 2)
	was, wasSnap := r.vdi(ref).UUID, r.vdi(snap).UUID
	s := wiretest.Get(r.Server, sr)
	pbd := s.PBDs[0]
	r.Refused(api.ErrSRHasPBD(sr.String()), "SR.forget", sr)
	r.Must(nil, "PBD.unplug", pbd)
	pool := api.NewPool()
	pool.DefaultSR = sr
	poolRef := wiretest.Insert(r.Server, pool)
	r.Must(nil, "SR.forget", sr)
	if n := r.DB.Snapshot().Count(api.ClassOf[api.VDI]()) + r.DB.Snapshot().Count(api.ClassOf[api.PBD]()); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if p := wiretest.Get(r.Server, poolRef); !p.DefaultSR.IsNull() {
		t.Error("it is still the default repository")
	}
	introduce := []any{s.UUID, "again", "", "ext", "user", false, noMap}
	r.Must(&sr, "SR.introduce", introduce...)
	r.Refused(api.ErrSRUUIDExists(s.UUID), "SR.introduce", introduce...)
	r.Refused(api.ErrUUIDInvalid("SR", "x"), "SR.introduce", "x", "", "", "ext", "", false, noMap)
	config := map[string]any{"host": r.host, "SR": sr, "device_config": map[string]string{"device": "/dev/sdb"}, "other_config": noMap}
	r.Must(&pbd, "PBD.create", config)
	r.Refused(api.ErrPBDExists(sr.String(), r.host.String(), pbd.String()), "PBD.create", config)
	r.Must(nil, "PBD.plug", pbd)
	r.Must(nil, "PBD.plug", pbd)
	r.Must(nil, "SR.scan", sr)
	if n := r.names(sr); !slices.Equal(n, []string{"root", "root", "root"}) {
		t.Errorf("found %v", n)
	}
	r.sound(sr)
	again, err := db.ByUUID[api.VDI](r.DB.Snapshot(), was)
	if err != nil {
		t.Fatal(err)
	}
	r.reads("the disk", again, map[int64]uint64{0: 2})
	againSnap, err := db.ByUUID[api.VDI](r.DB.Snapshot(), wasSnap)
	if err != nil || r.vdi(againSnap).SnapshotOf != again || !r.vdi(againSnap).IsASnapshot {
		t.Errorf("the snapshot is %v", err)
	}
	r.Covers("SR.forget", "SR.introduce", "SR.scan", "PBD.create", "PBD.plug", "PBD.unplug")
}

func TestDestroyRepository(t *testing.T) {
	r := newRig(t)
	sr := r.sr("file", "/srv")
	pbd := wiretest.Get(r.Server, sr).PBDs[0]
	ref := r.disk(sr, "root", mib)
	r.Refused(api.ErrSRHasPBD(sr.String()), "SR.destroy", sr)
	vm, vbd := r.vm(ref)
	r.Refused(api.ErrVDIInUse(ref.String(), "detach"), "PBD.unplug", pbd)
	r.halt(vm, vbd)
	r.Refused(api.ErrOperationNotAllowed("the PBD is attached"), "PBD.destroy", pbd)
	r.Must(nil, "PBD.unplug", pbd)
	r.Refused(api.ErrSRNotEmpty(), "SR.destroy", sr)
	r.Must(nil, "PBD.plug", pbd)
	r.Must(nil, "VDI.destroy", ref)
	r.Must(nil, "PBD.unplug", pbd)
	r.Must(nil, "SR.destroy", sr)
	if n := r.DB.Snapshot().Count(api.ClassOf[api.SR]()) + r.DB.Snapshot().Count(api.ClassOf[api.PBD]()); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if !slices.Contains(r.hostd.Verbs(), "erase ") {
		t.Error("the medium was not erased")
	}
	sr = r.sr("file", "/srv")
	pbd = wiretest.Get(r.Server, sr).PBDs[0]
	r.Must(nil, "PBD.unplug", pbd)
	r.Must(nil, "PBD.destroy", pbd)
	r.Refused(api.ErrSRHasNoPbds(sr.String()), "SR.destroy", sr)
	r.Covers("SR.destroy", "PBD.destroy")
}

func TestLibrary(t *testing.T) {
	r := newRig(t)
	r.hostd.AddFile("/isos", "debian.iso", 4*mib)
	sr := r.sr("iso", "/isos")
	if n := r.names(sr); !slices.Equal(n, []string{"debian.iso"}) || wiretest.Get(r.Server, sr).ContentType != "iso" {
		t.Errorf("found %v", n)
	}
	uuid := ""
	for _, v := range db.All[api.VDI](r.DB.Snapshot()) {
		if uuid = v.UUID; !v.ReadOnly || v.VirtualSize != 4*mib || v.Location != "debian.iso" {
			t.Errorf("found %+v", v)
		}
	}
	r.hostd.AddFile("/isos", "other.iso", mib)
	r.hostd.RemoveFile("/isos", "debian.iso")
	r.Must(nil, "SR.scan", sr)
	if n := r.names(sr); !slices.Equal(n, []string{"other.iso"}) {
		t.Errorf("found %v", n)
	}
	r.hostd.AddFile("/isos", "debian.iso", 4*mib)
	r.Must(nil, "SR.scan", sr)
	if _, err := db.ByUUID[api.VDI](r.DB.Snapshot(), uuid); err != nil {
		t.Error("the same file is another disk")
	}
}

func TestDevices(t *testing.T) {
	r := newRig(t)
	r.hostd.AddFile("/dev/xapi/cd", "sr0", mib)
	sr := r.sr("udev", "/dev/xapi/cd")
	var refs []api.VDIRef
	for ref := range db.All[api.VDI](r.DB.Snapshot()) {
		refs = append(refs, ref)
	}
	if n := r.names(sr); !slices.Equal(n, []string{"sr0"}) || len(refs) != 1 {
		t.Fatalf("found %v", n)
	}
	want := api.ErrVDIIsAPhysicalDevice(refs[0].String())
	r.Refused(want, "VDI.destroy", refs[0])
	r.Refused(want, "VDI.snapshot", refs[0], noMap)
	r.Refused(want, "VDI.clone", refs[0], noMap)
}

func TestProbe(t *testing.T) {
	r := newRig(t)
	r.hostd.SetSize("/dev/sdb", 1<<30)
	r.hostd.SetSize("/dev/sdc", 2<<30)
	sr := wiretest.Get(r.Server, r.sr("ext", "/dev/sdb"))
	var text string
	r.Must(&text, "SR.probe", r.host, map[string]string{"device": "/dev/sdb"}, "ext", noMap)
	want := "<?xml version=\"1.0\" ?>\n<SRlist>\n\t<SR>\n\t\t<UUID>" + sr.UUID + "</UUID>\n\t\t<Devlist>/dev/sdb</Devlist>\n\t\t<size>1073741824</size>\n\t</SR>\n</SRlist>\n"
	if text != want {
		t.Errorf("got %s, want %s", text, want)
	}
	_, err := r.Call("SR.probe", r.host, noMap, "ext", noMap)
	if err == nil || !strings.Contains(err.Error(), "SR_BACKEND_FAILURE_90") || !strings.Contains(err.Error(), "<path>/dev/sdc</path>") {
		t.Errorf("without a device: %v", err)
	}
	var results []struct {
		Configuration map[string]string `json:"configuration"`
		Complete      bool              `json:"complete"`
		SR            []struct {
			UUID  []string `json:"uuid"`
			Total int64    `json:"total_space"`
		} `json:"sr"`
	}
	r.Must(&results, "SR.probe_ext", r.host, map[string]string{"device": "/dev/sdb"}, "ext", noMap)
	if len(results) != 1 || !results[0].Complete || len(results[0].SR) != 1 || results[0].SR[0].UUID[0] != sr.UUID || results[0].SR[0].Total != 1<<30 {
		t.Errorf("results %+v", results)
	}
	r.Must(&results, "SR.probe_ext", r.host, noMap, "ext", noMap)
	if len(results) != 1 || results[0].Configuration["device"] != "/dev/sdc" {
		t.Errorf("to choose from: %+v", results)
	}
	r.Refused(api.ErrSRUnknownDriver("zfs"), "SR.probe", r.host, noMap, "zfs", noMap)
	r.Refused(api.ErrSRUnknownDriver("zfs"), "SR.probe_ext", r.host, noMap, "zfs", noMap)
	r.Covers("SR.probe", "SR.probe_ext")
}

func TestUpdateRepository(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "root", 8*mib)
	was := wiretest.Get(r.Server, sr).PhysicalUtilisation
	r.write(ref, 0, 1)
	r.Must(nil, "SR.update", sr)
	if now := wiretest.Get(r.Server, sr).PhysicalUtilisation; now != was+64<<10 {
		t.Errorf("takes %d bytes, %d before one cluster was written", now, was)
	}
	if v := r.vdi(ref); v.PhysicalUtilisation != wiretest.Get(r.Server, sr).PhysicalUtilisation {
		t.Errorf("the only disk takes %d bytes", v.PhysicalUtilisation)
	}
	r.Covers("SR.update")
}

func TestStatefile(t *testing.T) {
	r := newRig(t)
	local := r.sr("ext", "/dev/sdb")
	r.Refused(api.ErrHAConstraintViolationSRNotShared(local.String()), "SR.assert_can_host_ha_statefile", local)
	var sr api.SRRef
	r.Must(&sr, "SR.create", r.host, noMap, 0, "x", "", "dummy", "", true, noMap)
	r.Refused(api.ErrSROperationNotSupported(sr.String()), "SR.assert_can_host_ha_statefile", sr)
	able := api.NewSM()
	able.Type, able.Features = "dummy", map[string]int64{"VDI_GENERATE_CONFIG": 1}
	wiretest.Insert(r.Server, able)
	r.Must(nil, "SR.assert_can_host_ha_statefile", sr)
	wiretest.Insert(r.Server, api.NewHost())
	r.Refused(api.ErrSRNotAttached(sr.String()), "SR.assert_can_host_ha_statefile", sr)
	r.Covers("SR.assert_can_host_ha_statefile")
}

// A host that starts finds its repositories as it left them.
func TestAttachedAgain(t *testing.T) {
	r := newRig(t)
	sr, other := r.sr("ext", "/dev/sdb"), r.sr("ext", "/dev/sdc")
	ref := r.disk(sr, "root", mib)
	r.Must(nil, "PBD.unplug", wiretest.Get(r.Server, other).PBDs[0])
	attached := func() bool { return wiretest.Get(r.Server, wiretest.Get(r.Server, sr).PBDs[0]).CurrentlyAttached }
	if err := r.m.Lost(t.Context()); err != nil || !attached() {
		t.Error("a toolstack that starts anew forgets what is attached")
	}
	r.hostd.Forget()
	if err := r.m.Lost(t.Context()); err != nil || attached() {
		t.Error("a host that starts anew is said to have its repository attached")
	}
	r.Refused(api.ErrSRNotAttached(sr.String()), "SR.scan", sr)
	if r.run(); !attached() {
		t.Error("it is not attached again")
	}
	r.Must(nil, "SR.scan", sr)
	r.Must(nil, "VDI.destroy", ref)
	r.Refused(api.ErrSRNotAttached(other.String()), "SR.scan", other)
}

// One that cannot be reached says so, and is attached when it can be.
func TestOutOfReach(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	pbd := wiretest.Get(r.Server, sr).PBDs[0]
	r.hostd.Forget()
	r.hostd.Fail(func(verb, _, _ string) error {
		if verb == "attach" {
			return &api.Error{Code: "X"}
		}
		return nil
	})
	r.run()
	if p := wiretest.Get(r.Server, pbd); p.CurrentlyAttached {
		t.Error("it is said to be attached")
	}
	r.hostd.Fail(nil)
	r.Must(nil, "PBD.plug", pbd)
	r.Must(nil, "SR.scan", sr)
}

// A machine that starts with its host waits for the host's repositories, and one
// whose repository is out of reach can give its disk back all the same.
func TestDisksOfAStart(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref, stale := r.disk(sr, "root", mib), r.disk(sr, "other", mib)
	if _, err := r.m.Attach(t.Context(), r.host, stale, true); err != nil {
		t.Fatal(err)
	}
	r.hostd.Forget()
	r.m = storage.New(r.config)
	hold, held := make(chan struct{}), make(chan struct{})
	first := true
	r.hostd.Fail(func(verb, _, _ string) error {
		if verb == "attach" && first {
			first = false
			close(held)
			<-hold
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.m.Run(ctx) }()
	<-held
	attached := make(chan error)
	go func() { _, err := r.m.Attach(ctx, r.host, ref, true); attached <- err }()
	close(hold)
	if err := <-attached; err != nil {
		t.Error(err)
	}
	cancel()
	<-ended
	if err := r.DB.Update(t.Context(), func(tx *db.Tx) error {
		p, err := db.Edit(tx, wiretest.Get(r.Server, sr).PBDs[0])
		p.CurrentlyAttached = false
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.m.Detach(t.Context(), r.host, stale); err != nil {
		t.Error(err)
	}
	if mode := r.vdi(stale).SMConfig["host_"+string(r.host)]; mode != "" {
		t.Errorf("the host still has it: %s", mode)
	}
}
