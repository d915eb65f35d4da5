package storage_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
	"cairn/toolstack/wire/wiretest"
)

var sdb = client.RepositoryConfig{Type: "ext", Config: map[string]string{"device": "/dev/sdb"}}

// begin starts another process, which is told of a medium.
func (r *rig) begin(ctx context.Context, c client.RepositoryConfig) {
	r.T.Helper()
	r.m = storage.New(r.config)
	if err := r.m.Recover(r.T.Context()); err != nil {
		r.T.Fatal(err)
	}
	r.m.BeginWith(r.host, c)
	r.m.Begin(ctx)
}

// locals are the repositories there are.
func (r *rig) locals() map[api.SRRef]*api.SR { return maps.Collect(db.All[api.SR](r.DB.Snapshot())) }

// local is the one repository, attached.
func (r *rig) local() (ref api.SRRef, sr *api.SR) {
	r.T.Helper()
	if all := r.locals(); len(all) != 1 {
		r.T.Fatalf("%d repositories: %v", len(all), all)
	}
	for ref, sr = range r.locals() {
		if sr.NameLabel != "Local storage" || sr.Type != "ext" || sr.ContentType != "user" || sr.Shared || len(sr.PBDs) != 1 {
			r.T.Errorf("local storage is %+v", sr)
		}
		if pbd := wiretest.Get(r.Server, sr.PBDs[0]); !pbd.CurrentlyAttached || pbd.Host != r.host || pbd.DeviceConfig["device"] != "/dev/sdb" {
			r.T.Errorf("its PBD is %+v", pbd)
		}
	}
	return ref, sr
}

// A host that is given a blank disk begins with a repository on it, once: it is the
// pool's choice where there was none, and once forgotten it stays away.
func TestLocalStorageOfANewHost(t *testing.T) {
	r := newRig(t)
	pool := wiretest.Insert(r.Server, api.NewPool())
	for range 2 {
		r.begin(t.Context(), sdb)
	}
	ref, sr := r.local()
	if p := wiretest.Get(r.Server, pool); p.DefaultSR != ref || p.SuspendImageSR != ref || p.CrashDumpSR != ref {
		t.Errorf("pool's choices are %v, %v, %v", p.DefaultSR, p.SuspendImageSR, p.CrashDumpSR)
	}
	if sr.PhysicalSize == 0 {
		t.Error("its size is not known")
	}
	r.disk(ref, "root", mib)
	r.Must(nil, "PBD.unplug", sr.PBDs[0])
	r.Must(nil, "SR.forget", ref)
	r.begin(t.Context(), sdb)
	if all := r.locals(); len(all) != 0 {
		t.Errorf("a forgotten repository came back: %v", all)
	}
}

func TestLocalStorageLeavesChoicesAlone(t *testing.T) {
	r := newRig(t)
	chosen := r.sr("file", "/srv/chosen")
	p := api.NewPool()
	p.DefaultSR = chosen
	pool := wiretest.Insert(r.Server, p)
	r.begin(t.Context(), sdb)
	now := wiretest.Get(r.Server, pool)
	if now.DefaultSR != chosen || now.SuspendImageSR.IsNull() || now.SuspendImageSR == chosen {
		t.Errorf("pool's choices are %v and %v", now.DefaultSR, now.SuspendImageSR)
	}
}

// On a host that was installed anew the disk has a repository already: it is
// attached with its disks, and nothing is formatted.
func TestLocalStorageOfAHostInstalledAnew(t *testing.T) {
	r := newRig(t)
	before := r.sr("ext", "/dev/sdb")
	root := r.disk(before, "root", mib)
	r.write(root, 3, 33)
	was, disk := wiretest.Get(r.Server, before), r.vdi(root)
	r.Must(nil, "PBD.unplug", was.PBDs[0])
	r.Must(nil, "SR.forget", before)
	r.hostd.Verbs()
	r.begin(t.Context(), sdb)
	ref, sr := r.local()
	if sr.UUID != was.UUID || slices.Contains(r.hostd.Verbs(), "format ") {
		t.Errorf("repository %s became %s", was.UUID, sr.UUID)
	}
	back, err := db.ByUUID[api.VDI](r.DB.Snapshot(), disk.UUID)
	if err != nil || r.vdi(back).NameLabel != "root" || r.vdi(back).SR != ref {
		t.Fatalf("the disk is not back: %v", err)
	}
	r.reads("the disk", back, map[int64]uint64{3: 33})
}

// cutOff is a hostd whose caller is gone when it has formatted.
type cutOff struct {
	storage.Hostd
	cut func()
}

func (h cutOff) FormatRepository(ctx context.Context, sr string, c client.RepositoryConfig) (client.Repository, error) {
	defer h.cut()
	return h.Hostd.FormatRepository(ctx, sr, c)
}

// A process that ends between formatting and the rows leaves a medium that the next
// one knows to be its own.
func TestLocalStorageCutOff(t *testing.T) {
	r := newRig(t)
	ctx, cut := context.WithCancel(t.Context())
	real := r.config.Hostd
	r.config.Hostd = func(h api.HostRef) storage.Hostd { return cutOff{real(h), cut} }
	r.begin(ctx, sdb)
	if all := r.locals(); len(all) != 0 {
		t.Fatalf("rows in spite of the end: %v", all)
	}
	found, err := r.hostd.Probe(t.Context(), sdb)
	if err != nil || found[0].UUID == "" {
		t.Fatalf("nothing is formatted: %v, %v", found, err)
	}
	r.config.Hostd = real
	r.begin(t.Context(), sdb)
	if _, sr := r.local(); sr.UUID != found[0].UUID {
		t.Errorf("the medium was formatted as %s and is %s", found[0].UUID, sr.UUID)
	}
}

// A medium that holds something else is left alone, which is said once.
func TestLocalStorageOnAMediumInUse(t *testing.T) {
	r := newRig(t)
	group := r.sr("lvm", "/dev/sdb")
	r.disk(group, "root", mib)
	r.begin(t.Context(), sdb)
	r.m.Begin(t.Context())
	if all := r.locals(); len(all) != 1 || all[group] == nil {
		t.Errorf("repositories %v", all)
	}
	alerts := 0
	for _, a := range db.All[api.Message](r.DB.Snapshot()) {
		if a.Cls == api.ClsHost && a.Name == "ALARM" {
			alerts++
		}
	}
	if alerts != 1 {
		t.Errorf("%d alerts, want one", alerts)
	}
}

// A disk that is found late in a boot is taken when it is there.
func TestLocalStorageOnALateDisk(t *testing.T) {
	r := newRig(t)
	r.hostd.Fail(func(verb, _, _ string) error {
		if verb == "probe" {
			return &client.Error{Status: 400, Code: client.CodeBadRequest, Message: "not a whole disk"}
		}
		return nil
	})
	r.begin(t.Context(), sdb)
	if all := r.locals(); len(all) != 0 {
		t.Fatalf("repositories %v", all)
	}
	r.hostd.Fail(nil)
	r.m.Begin(t.Context())
	r.local()
}

// A client that replaces a host's other_config takes the record away, and the
// repository stays the one there is.
func TestLocalStorageWithoutItsRecord(t *testing.T) {
	r := newRig(t)
	r.begin(t.Context(), sdb)
	before, sr := r.local()
	r.Must(nil, "PBD.unplug", sr.PBDs[0])
	if err := db.Modify(t.Context(), r.DB, r.host, func(_ *db.Tx, h *api.Host) error { h.OtherConfig = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	r.begin(t.Context(), sdb)
	if all := r.locals(); len(all) != 1 || all[before] == nil {
		t.Errorf("repositories %v", all)
	}
	if _, err := r.hostd.Repository(t.Context(), sr.UUID); err == nil || wiretest.Get(r.Server, sr.PBDs[0]).CurrentlyAttached {
		t.Errorf("it was unplugged and is attached again: %v", err)
	}
}
