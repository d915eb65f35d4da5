//go:build lab

package clienttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/console"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/session/identity"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire"
	"cairn/toolstack/wire/wiretest"
)

// onlyHost is the one host of the pool.
type onlyHost struct{ ref api.HostRef }

func (h onlyHost) Ref() api.HostRef                { return h.ref }
func (h onlyHost) AwaitKind(context.Context) error { return nil }
func (h onlyHost) Kind() (hypervisor.Kind, bool)   { return hypervisor.Accelerated, true }
func (h onlyHost) GuestMemory() int64              { return 4 << 30 }
func (h onlyHost) Address() string                 { return "127.0.0.1" }

// serve runs the API over TLS with the behaviour of VMs on a fake hypervisor, and
// answers its URL.
func serve(t *testing.T) string {
	t.Helper()
	guests := t.TempDir()
	for _, f := range []string{"vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(guests, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	hv := hypervisor.NewFake()
	host := onlyHost{api.NewRef[api.Host]()}
	var vms *vm.Manager
	s := wiretest.New(t, func(r *api.Registry, d *db.DB) {
		if err := d.Update(t.Context(), func(tx *db.Tx) error { return populate(tx, host.ref) }); err != nil {
			t.Fatal(err)
		}
		vms = vm.New(vm.Config{DB: d, Hypervisor: hv, Consoles: console.New(d, hv, journal.Discard()), Host: host, GuestDir: guests, ShutdownTimeout: time.Second})
		vms.Register(r)
	})
	runVMs(t, vms)
	addTransfers(s.Wire)
	return listen(t, s.Wire)
}

func populate(tx *db.Tx, host api.HostRef) error {
	h := api.NewHost()
	h.NameLabel, h.Hostname, h.Address, h.Enabled = "host", "host", "127.0.0.1", true
	h.SoftwareVersion = map[string]string{"product_brand": "Cairn"}
	db.InsertAs(tx, host, h)
	sr := api.NewSR()
	sr.NameLabel, sr.Type = "local", "ext"
	network := api.NewNetwork()
	network.NameLabel, network.Bridge = "Pool-wide network", "xenbr0"
	db.Insert(tx, network)
	pool := api.NewPool()
	pool.NameLabel, pool.Master, pool.DefaultSR = "pool", host, db.Insert(tx, sr)
	db.Insert(tx, pool)
	return nil
}

func runVMs(t *testing.T, vms *vm.Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); vms.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() { cancel(); <-done })
	<-ready
}

// addTransfers adds an upload and a download, as imports and exports are.
func addTransfers(s *wire.Server) {
	s.Transfer("PUT", "/import", func(w http.ResponseWriter, r *wire.Request) error {
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, r.Body)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil // a client that did not know how much it sends hangs up
		}
		r.Result = api.StringResult(fmt.Sprint(n))
		return err
	})
	s.Transfer("GET", "/export", func(w http.ResponseWriter, r *wire.Request) error {
		const pieces = 3
		for i := range pieces {
			r.Task.Set(float64(i) / pieces)
			if _, err := w.Write(make([]byte, 100000)); err != nil {
				return err
			}
		}
		return nil
	})
}

func listen(t *testing.T, h http.Handler) string {
	t.Helper()
	cfg, _, err := identity.Load(t.TempDir(), identity.Options{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := wire.NewHTTPServer(h, cfg, journal.Discard())
	go server.ServeTLS(l, "", "")
	t.Cleanup(func() { server.Close() })
	return "https://" + l.Addr().String()
}
