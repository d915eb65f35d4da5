package share

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session/identity"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/disk/disktest"
	"cairn/toolstack/transfer/nbd"
	"cairn/toolstack/wire/wiretest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a host at 127.0.0.1 with one disk, that serves disks.
type rig struct {
	*wiretest.Server
	m       *Manager
	vdi     api.VDIRef
	network api.NetworkRef
	disk    *disktest.Memory
	address string
	refuse  error
}

// Open is what storage does.
func (r *rig) Open(_ context.Context, vdi api.VDIRef, write bool) (disk.Device, error) {
	if write || vdi != r.vdi {
		r.T.Errorf("opened %s, to write: %v", vdi, write)
	}
	return r.disk, r.refuse
}

func newRig(t *testing.T, purpose ...api.NetworkPurpose) *rig {
	t.Helper()
	r := &rig{disk: disktest.Of(bytes.Repeat([]byte("cairn"), 1<<16))}
	config, id, err := identity.Load(t.TempDir(), identity.Options{Names: []string{"localhost"}})
	must(t, err)
	r.Server = wiretest.New(t, func(reg *api.Registry, d *db.DB) {
		r.m = New(Config{
			DB: d, Disks: r, ThisHost: func() api.HostRef { return r.Host }, TLS: config, Cert: string(id.HostPEM), Subject: "localhost",
			Authorize: func(ref api.SessionRef, msg *api.MessageInfo, args []api.Value) error {
				return r.Sessions.Authorize(ref, msg, args)
			},
			Check: func(ref api.SessionRef) error { return r.Sessions.Check(ref) },
		})
		r.m.Register(reg)
	})
	n := api.NewNetwork()
	n.Purpose = purpose
	r.network = wiretest.Insert(r.Server, n)
	p := api.NewPIF()
	p.Network, p.Host, p.CurrentlyAttached, p.IP, p.IPv6 = r.network, r.Host, true, "127.0.0.1", []string{"fe80::1/64", "2001:db8::1/64"}
	wiretest.Insert(r.Server, p)
	sr := wiretest.Insert(r.Server, api.NewSR())
	b := api.NewPBD()
	b.SR, b.Host, b.CurrentlyAttached = sr, r.Host, true
	wiretest.Insert(r.Server, b)
	v := api.NewVDI()
	v.SR, v.Managed, v.Type = sr, true, api.VDITypeUser
	r.vdi = wiretest.Insert(r.Server, v)
	r.serve()
	return r
}

func (r *rig) serve() {
	r.T.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(r.T, err)
	r.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.m.Serve(ctx, l) }()
	r.T.Cleanup(func() { cancel(); <-ended })
}

func (r *rig) info() (all []map[string]any) {
	r.T.Helper()
	r.Must(&all, "VDI.get_nbd_info", r.vdi)
	return all
}

func (r *rig) connect(name string) (*nbd.Client, error) {
	conn, err := net.Dial("tcp", r.address)
	must(r.T, err)
	return nbd.New(r.T.Context(), conn, name)
}

func (r *rig) name() string {
	return exportName(wiretest.Get(r.Server, r.vdi).UUID, api.SessionRef(r.Session))
}

func TestInfo(t *testing.T) {
	r := newRig(t, api.NetworkPurposeNBD)
	all := r.info()
	if len(all) != 2 {
		t.Fatalf("%d places, want two", len(all))
	}
	for i, address := range []string{"127.0.0.1", "2001:db8::1"} {
		got := all[i]
		if got["exportname"] != r.name() || got["address"] != address || got["port"] != float64(Port) || got["subject"] != "localhost" || !strings.Contains(got["cert"].(string), "BEGIN CERTIFICATE") {
			t.Errorf("%v", got)
		}
	}
	change := func(f func(*api.VDI)) {
		t.Helper()
		must(t, db.Modify(t.Context(), r.DB, r.vdi, func(_ *db.Tx, v *api.VDI) error { f(v); return nil }))
	}
	change(func(v *api.VDI) { v.Type = api.VDITypeCBTMetadata })
	r.Refused(api.ErrVDIIncompatibleType(r.vdi.String(), "cbt_metadata"), "VDI.get_nbd_info", r.vdi)
	elsewhere := wiretest.Insert(r.Server, api.NewSR())
	change(func(v *api.VDI) { v.Type, v.SR = api.VDITypeUser, elsewhere })
	if all := r.info(); len(all) != 0 {
		t.Errorf("a disk that no host reaches is at %v", all)
	}
	if all := newRig(t).info(); len(all) != 0 {
		t.Errorf("without a network for it a disk is at %v", all)
	}
	r.Covers("VDI.get_nbd_info")
}

func TestServeInClear(t *testing.T) {
	r := newRig(t, api.NetworkPurposeInsecureNBD)
	c, err := r.connect(r.name())
	must(t, err)
	got := make([]byte, r.disk.Size())
	_, err = c.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, r.disk.Bytes()) {
		t.Error("the disk reads as something else")
	}
	must(t, c.Close())
	uuid := wiretest.Get(r.Server, r.vdi).UUID
	for what, name := range map[string]string{
		"no session": "/" + uuid, "another": "/" + uuid + "?session_id=OpaqueRef:x", "no disk": "/x?session_id=" + r.Session, "nothing": "",
		"a directory": "/a/" + uuid + "?session_id=" + r.Session, "two sessions": r.name() + "&session_id=" + r.Session,
	} {
		if _, err := r.connect(name); err == nil {
			t.Errorf("%s: it is served", what)
		}
	}
	reader := r.As("read-only")
	if _, err := r.connect(exportName(uuid, api.SessionRef(reader.Session))); err == nil {
		t.Error("a session that may not is served")
	}
	r.refuse = errors.New("in use")
	if _, err := r.connect(r.name()); err == nil {
		t.Error("a disk that cannot be opened is served")
	}
}

// Where TLS is asked for nothing comes in clear, and where no network is for disks
// nothing comes at all.
func TestServeNothing(t *testing.T) {
	r := newRig(t, api.NetworkPurposeNBD)
	if _, err := r.connect(r.name()); err == nil || !strings.Contains(err.Error(), "TLS is required") {
		t.Errorf("in clear: %v", err)
	}
	r.m.cfg.TLS = nil
	if _, err := r.connect(r.name()); err == nil {
		t.Error("served in clear for want of a certificate")
	}
	r = newRig(t)
	r.m.cfg.TLS = &tls.Config{}
	if _, err := r.connect(r.name()); err == nil {
		t.Error("served on a network that is not for it")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("/uuid?session_id=OpaqueRef:x")
	f.Add("/?session_id=&session_id=")
	f.Fuzz(func(t *testing.T, name string) {
		uuid, _, err := parse(name)
		if err == nil && (uuid == "" || strings.ContainsAny(uuid, "/?")) {
			t.Errorf("%q names %q", name, uuid)
		}
	})
}
