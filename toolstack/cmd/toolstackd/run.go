package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	hostconfig "cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/toolstack/alert"
	"cairn/toolstack/alert/mail"
	"cairn/toolstack/api"
	"cairn/toolstack/blob"
	"cairn/toolstack/console"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/event"
	"cairn/toolstack/guest"
	"cairn/toolstack/host"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/memory"
	"cairn/toolstack/metrics"
	"cairn/toolstack/metrics/proc"
	"cairn/toolstack/network"
	"cairn/toolstack/operation"
	cairnpool "cairn/toolstack/pool"
	"cairn/toolstack/secret"
	"cairn/toolstack/session"
	"cairn/toolstack/session/audit"
	"cairn/toolstack/session/external/ldap"
	"cairn/toolstack/session/identity"
	"cairn/toolstack/storage"
	"cairn/toolstack/task"
	"cairn/toolstack/transfer/machine"
	"cairn/toolstack/transfer/share"
	"cairn/toolstack/transfer/volume"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire"
)

// config is what run needs; the zero fields of hypervisor are a host's defaults.
type config struct {
	listen, disks, state, engine, hostd, guests string
	hypervisor                                  hypervisor.Config
	log                                         *slog.Logger

	// pool is further hosts to speak for, simulated ones; nil for the own host only.
	pool pool
	// Stand-ins for tests; nil for the real ones.
	fakeHypervisor hypervisor.Hypervisor
	fakeHostd      hostd
}

// hostd is all that is asked of hostd.
type hostd interface {
	host.Hostd
	network.Hostd
	storage.Hostd
	vm.Hostd
}

// pool is hosts of which this process speaks for all.
type pool interface {
	vm.Consoles
	console.Dialer
	// Open readies the hosts beside the own one.
	Open(ctx context.Context, d *db.DB, own api.HostRef) ([]vm.Site, error)
	// Run keeps those hosts' rows true until the context ends.
	Run(ctx context.Context, d *db.DB) error
}

// stopTimeout bounds what a stop waits for: less than the grace PID 1 gives.
const stopTimeout = 10 * time.Second

// toolstack is everything that runs.
type toolstack struct {
	cfg      config
	db       *db.DB
	hv       hypervisor.Hypervisor
	hostd    hostd
	nvram    vm.NVRAM // nil on a stand-in, whose guests remember nothing
	host     *host.Manager
	pool     *cairnpool.Manager
	sessions *session.Manager
	audit    *audit.Log
	others   []vm.Site // beside the own host
	networks *network.Manager
	memory   *memory.Manager
	alerts   *alert.Manager
	mail     *mail.Mailer
	figures  *metrics.Manager
	guests   *guest.Manager // the agents in them
	disks    *storage.Manager
	shared   *share.Manager
	devices  *device.Manager
	vms      *vm.Manager
	consoles *console.Manager
	server   *wire.Server
	tasks    *task.Manager
	ready    chan struct{} // closed when libvirt has answered and rows are true
	stop     func()        // ends run; PID 1 starts it again
}

// run serves until the context ends.
func run(ctx context.Context, cfg config) error {
	listener, err := listen(cfg.listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	t := &toolstack{cfg: cfg, ready: make(chan struct{}), stop: stop}
	t.hv = cfg.fakeHypervisor
	if t.hv == nil { // connects in the background from here on
		cfg.hypervisor.Log = cfg.log
		t.hv = hypervisor.Connect(cfg.hypervisor)
	}
	defer t.hv.Close()
	go t.askForTime(ctx)
	if err := t.open(ctx); err != nil {
		return err
	}
	defer t.db.Close()
	if cfg.pool != nil {
		if t.others, err = cfg.pool.Open(ctx, t.db, t.host.Ref()); err != nil {
			return err
		}
	}
	tlsConfig, id, err := identity.Load(cfg.state, identity.Options{Names: names(t.host)})
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if err := t.host.Present(ctx, id.HostPEM); err != nil {
		return err
	}
	if err := t.build(tlsConfig, id); err != nil {
		return err
	}
	defer t.audit.Close()
	defer t.server.Close()
	if err := errors.Join(t.vms.Recover(ctx), t.disks.Lost(ctx)); err != nil { // before the first request
		return err
	}
	server := wire.NewHTTPServer(t.server, tlsConfig, cfg.log)
	return t.serve(ctx, server, listener)
}

// open opens the database and asks hostd about the host, side by side.
func (t *toolstack) open(ctx context.Context) error {
	var engine db.Engine
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		engine, err = openEngine(gctx, t.cfg)
		return err
	})
	t.hostd = t.cfg.fakeHostd
	if t.hostd == nil {
		c := client.New(t.cfg.hostd)
		t.hostd, t.nvram = c, c
	}
	group.Go(func() error {
		return waitFor(gctx, t.cfg.log, "hostd", func() error { _, err := t.hostd.Version(gctx); return err })
	})
	if err := group.Wait(); err != nil {
		return err
	}
	var err error
	if t.db, err = db.Open(ctx, engine, db.Options{Log: t.cfg.log}); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	t.host, err = host.New(host.Config{
		DB: t.db, Hypervisor: t.hv, Hostd: t.hostd, StateDir: t.cfg.state, Restart: t.stop, Log: t.cfg.log,
	})
	if err == nil {
		err = t.host.Sync(ctx)
	}
	if err == nil {
		err = t.host.EnableAtStart(ctx)
	}
	if err == nil {
		err = operation.Recover(ctx, t.db, t.cfg.log.With("component", "operation"))
	}
	if err == nil {
		t.pool, err = cairnpool.New(cairnpool.Config{
			DB: t.db, ThisHost: t.host.Ref, Dir: filepath.Join(t.cfg.state, "trusted"), Log: t.cfg.log.With("component", "pool"),
		})
	}
	if err != nil {
		t.db.Close()
		return err
	}
	return nil
}

// waitFor retries what another service may not be ready for, and says so once.
func waitFor(ctx context.Context, log *slog.Logger, what string, try func() error) error {
	const pause = 100 * time.Millisecond
	for told := false; ; told = true {
		err := try()
		if err == nil {
			return nil
		}
		if !told {
			log.Info("waiting", "for", what, "err", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// names are what the certificate speaks for.
func names(h *host.Manager) []string {
	all := []string{"localhost", "127.0.0.1", "::1"}
	for _, n := range []string{h.Hostname(), h.Address()} {
		if n != "" {
			all = append(all, n)
		}
	}
	return all
}

// build binds all behaviour.
func (t *toolstack) build(tlsConfig *tls.Config, id *identity.Identity) error {
	log := t.cfg.log
	registry := api.NewRegistry()
	sessions := session.New(session.Config{
		DB: t.db, RootHash: t.host.RootHash, Verify: hostconfig.VerifyPassword, ThisHost: t.host.Ref,
		SetRootPassword: t.host.SetRootPassword, Directories: map[string]session.OpenFunc{ldap.Type: ldap.Open},
		Log: log.With("component", "session"),
	})
	audited, err := audit.New(audit.Config{DB: t.db, Dir: t.cfg.state, Who: sessions.Who, Log: log})
	if err != nil {
		return err
	}
	t.sessions, t.audit = sessions, audited
	t.tasks = task.New(task.Config{
		DB: t.db, ThisHost: t.host.Ref, Who: sessions.Owner, Log: log.With("component", "task"),
	})
	t.networks = network.New(network.Config{DB: t.db, Hostd: t.hostdOf, Log: log.With("component", "network")})
	consoles := t.ttys(log.With("component", "console"))
	t.memory = memory.New(memory.Config{DB: t.db, Sites: t.memories(), Log: log.With("component", "memory")})
	t.alerts = alert.New(t.db)
	t.mail = mail.New(mail.Config{DB: t.db, Hostname: t.host.Hostname, Log: log.With("component", "mail")})
	t.alerts.Notify(t.mail.Notify)
	t.disks = storage.New(storage.Config{
		DB: t.db, Hostd: t.storageOf, Domains: t.domainsOf, Alerts: t.alerts, Tasks: t.tasks, Log: log.With("component", "storage"),
	})
	t.devices = device.New(device.Config{
		DB: t.db, Storage: t.disks, Network: t.networks, Hypervisor: t.hypervisorOf, True: t.ready, Log: log.With("component", "device"),
	})
	t.guests = guest.New(guest.Config{DB: t.db, Ports: t.portsOf, Log: log.With("component", "guest")})
	t.vms = vm.New(vm.Config{
		Guests: t.guests, Memory: t.memory, Devices: t.devices, Disks: t.disks, NVRAM: t.nvram, Alerts: t.alerts, Hostd: t.hostd,
		DB: t.db, Hypervisor: t.hv, Consoles: consoles, Host: t.host, Others: t.others, GuestDir: t.cfg.guests,
		Log: log.With("component", "vm"),
	})
	t.figures = metrics.New(metrics.Config{
		DB: t.db, ThisHost: t.host.Ref, Guests: t.hv, Alerts: t.alerts, Kernel: proc.Root{FS: os.DirFS("/proc")},
		FileSystems: map[string]string{"fs_usage": t.cfg.state, "log_fs_usage": "/var/log"},
		Dir:         filepath.Join(t.cfg.state, "metrics"), Log: log.With("component", "metrics"),
	})
	sessions.Register(registry)
	t.tasks.Register(registry)
	event.New(t.db, sessions.Check).Register(registry)
	t.alerts.Register(registry)
	t.figures.Register(registry)
	secret.Register(registry, t.db)
	blobs, err := blob.New(t.db, filepath.Join(t.cfg.state, "blobs"))
	if err != nil {
		return err
	}
	blobs.Register(registry)
	t.host.Register(registry)
	t.pool.Register(registry)
	t.networks.Register(registry)
	t.disks.Register(registry)
	t.shared = share.New(share.Config{
		DB: t.db, Disks: t.disks, Authorize: sessions.Authorize, Check: sessions.Check, ThisHost: t.host.Ref,
		TLS: tlsConfig, Cert: string(id.HostPEM), Subject: names(t.host)[0], Log: log.With("component", "share"),
	})
	t.shared.Register(registry)
	t.devices.Register(registry)
	t.memory.Register(registry)
	t.vms.Register(registry)
	machines := machine.New(machine.Config{DB: t.db, VMs: t.vms, Disks: t.disks, ThisHost: t.host.Ref, Log: log.With("component", "transfer")})
	machines.Register(registry)
	t.server = wire.NewServer(wire.Config{
		DB: t.db, Registry: registry, Sessions: sessions, Tasks: t.tasks, Log: log.With("component", "api"),
		Authorize: sessions.Authorize, AuthorizeHTTP: audited.Authorize(sessions.AuthorizeHTTP), Observe: audited.Observe,
	})
	audited.Handle(t.server)
	blobs.Handle(t.server)
	machines.Handle(t.server)
	t.consoles.Handle(t.server)
	t.figures.Handle(t.server)
	volume.New(volume.Config{DB: t.db, Disks: t.disks, Log: log.With("component", "transfer")}).Handle(t.server)
	return nil
}

// hostdOf is the hostd of a host; a simulated pool has one for all.
func (t *toolstack) hostdOf(ref api.HostRef) network.Hostd {
	if ref == t.host.Ref() || t.cfg.pool != nil {
		return t.hostd
	}
	return nil
}

// storageOf is the storage of a host this process speaks for.
func (t *toolstack) storageOf(ref api.HostRef) storage.Hostd {
	if h := t.hostdOf(ref); h != nil {
		return t.hostd
	}
	return nil
}

func (t *toolstack) domainsOf(ref api.HostRef) storage.Domains {
	if h := t.hypervisorOf(ref); h != nil {
		return h
	}
	return nil
}

// ttys opens the consoles' manager. Those of a simulated pool are dialled on demand.
func (t *toolstack) ttys(log *slog.Logger) vm.Consoles {
	if t.cfg.pool == nil {
		t.consoles = console.New(t.db, t.hv, log)
		t.consoles.ServeOnly(func(ref api.HostRef) bool { return ref == t.host.Ref() })
		return t.consoles
	}
	t.consoles = console.New(t.db, t.cfg.pool, log)
	return t.cfg.pool
}

// hypervisorOf is that of a host this process speaks for, nil for any other.
func (t *toolstack) hypervisorOf(ref api.HostRef) hypervisor.Hypervisor {
	if ref == t.host.Ref() {
		return t.hv
	}
	for _, s := range t.others {
		if s.Host.Ref() == ref {
			return s.Hypervisor
		}
	}
	return nil
}

// portsOf are the ports of agents in guests. Simulated guests have none, and rows that
// say what they would tell.
func (t *toolstack) portsOf(ref api.HostRef) guest.Ports {
	if ref == t.host.Ref() && t.cfg.pool == nil {
		return t.hv
	}
	return nil
}

// memories are the hosts whose memory this process accounts for.
func (t *toolstack) memories() []memory.Site {
	sites := []memory.Site{{Host: t.host, Balloons: t.hv}}
	for _, s := range t.others {
		sites = append(sites, memory.Site{Host: s.Host, Balloons: s.Hypervisor})
	}
	return sites
}

// runDisks serves storage. A simulated host has the drives its pool gives it.
func (t *toolstack) runDisks(ctx context.Context) error {
	if t.cfg.pool == nil {
		if err := t.disks.EnsureDrives(ctx, t.host.Ref()); err != nil {
			return err
		}
		t.beginWith(t.host.LocalStorage())
	}
	return t.disks.Run(ctx)
}

// beginWith names the medium of the host's first repository, if it has one.
func (t *toolstack) beginWith(l hostconfig.Local) {
	if l == (hostconfig.Local{}) {
		return
	}
	config := map[string]string{"device": l.Device}
	if l.Type == hostconfig.LocalFile {
		config = map[string]string{"location": l.Location}
	}
	t.disks.BeginWith(t.host.Ref(), client.RepositoryConfig{Type: string(l.Type), Config: config})
}

// shareDisks serves disks to those who read them over the network. A port that is taken
// keeps nothing else from running.
func (t *toolstack) shareDisks(ctx context.Context) error {
	if t.cfg.disks == "" {
		return nil
	}
	l, err := net.Listen("tcp", t.cfg.disks)
	if err != nil {
		t.cfg.log.Error("disks-not-served", "address", t.cfg.disks, "err", err)
		return nil
	}
	return t.shared.Serve(ctx, l)
}

// serve runs all parts; the first that fails ends the others.
func (t *toolstack) serve(ctx context.Context, server *http.Server, l net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		t.server.Close()
		if server.Shutdown(stop) != nil {
			return server.Close() // long polls end hard
		}
		return nil
	})
	group.Go(func() error { return t.vms.Run(ctx, func() { close(t.ready) }) })
	group.Go(func() error { return t.networks.Run(ctx, t.ready, t.host.Ref()) })
	group.Go(func() error { return t.consoles.Run(ctx) })
	group.Go(func() error { return t.memory.Run(ctx) })
	group.Go(func() error { return t.figures.Run(ctx) })
	group.Go(func() error { return t.mail.Run(ctx) })
	group.Go(func() error { return t.guests.Run(ctx) })
	group.Go(func() error { return t.runDisks(ctx) })
	group.Go(func() error { return t.shareDisks(ctx) })
	if t.cfg.pool != nil {
		group.Go(func() error { return t.cfg.pool.Run(ctx, t.db) })
	}
	group.Go(func() error { return operation.NewKeeper(t.db).Run(ctx) })
	group.Go(func() error { return t.tasks.Run(ctx) })
	group.Go(func() error { return t.host.Run(ctx) })
	group.Go(func() error { return t.sessions.Run(ctx) })
	group.Go(func() error { return t.announce(ctx, l.Addr()) })
	group.Go(func() error { return t.watchdog(ctx) })
	err := group.Wait()
	t.cfg.log.Info("stopped", "err", err)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
