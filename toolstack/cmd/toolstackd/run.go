package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"cairn/init/hostd/client"
	"cairn/toolstack/alert"
	"cairn/toolstack/alert/mail"
	"cairn/toolstack/api"
	"cairn/toolstack/console"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/guest"
	"cairn/toolstack/host"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/memory"
	"cairn/toolstack/metrics"
	"cairn/toolstack/network"
	"cairn/toolstack/operation"
	cairnpool "cairn/toolstack/pool"
	"cairn/toolstack/session"
	"cairn/toolstack/session/audit"
	"cairn/toolstack/session/identity"
	"cairn/toolstack/storage"
	"cairn/toolstack/task"
	"cairn/toolstack/transfer/share"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire"
)

// config is what run needs; the zero fields of hypervisor are a host's defaults.
type config struct {
	listen, local, disks, state, engine, hostd, guests string
	hypervisor                                         hypervisor.Config
	log                                                *slog.Logger

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
	sockets, err := listen(cfg.listen, cfg.local)
	if err != nil {
		return err
	}
	defer sockets.Close()
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
	return t.serve(ctx, tlsConfig, sockets)
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
