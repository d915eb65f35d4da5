package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/sync/errgroup"

	hostconfig "cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/toolstack/operation"
	"cairn/toolstack/wire"
)

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

// serveAPI serves the API on one socket until the context ends.
func (t *toolstack) serveAPI(ctx context.Context, server *http.Server, serve func() error) error {
	stopped := make(chan error, 1)
	defer context.AfterFunc(ctx, func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		t.server.Close()
		err := server.Shutdown(stop)
		if err != nil {
			err = server.Close() // long polls end hard
		}
		stopped <- err
	})()
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-stopped
}

// serve runs all parts; the first that fails ends the others.
func (t *toolstack) serve(ctx context.Context, c *tls.Config, s sockets) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		server := wire.NewHTTPServer(t.server, c, t.cfg.log)
		return t.serveAPI(ctx, server, func() error { return server.ServeTLS(s.network, "", "") })
	})
	if s.local != nil {
		group.Go(func() error {
			server := wire.NewLocalServer(t.server, t.cfg.log)
			return t.serveAPI(ctx, server, func() error { return server.Serve(wire.LocalListener{Listener: s.local, Log: t.cfg.log}) })
		})
	}
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
	group.Go(func() error { return t.announce(ctx, s.network.Addr()) })
	group.Go(func() error { return t.watchdog(ctx) })
	err := group.Wait()
	t.cfg.log.Info("stopped", "err", err)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
