package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"cairn/toolstack/db"
)

// What PID 1 calls the sockets of the API: the network's, and root's own on this host.
const (
	socketName = "https"
	localName  = "local"
)

// sockets are where the API is served.
type sockets struct {
	network net.Listener
	local   net.Listener // nil where nobody asked for one
}

// listen takes the sockets PID 1 hands over, and opens those that have an address.
func listen(address, local string) (sockets, error) {
	named, err := activation.ListenersWithNames()
	if err != nil {
		return sockets{}, fmt.Errorf("listen: %w", err)
	}
	var s sockets
	if s.network, err = open(named[socketName], "tcp", address); err == nil && s.network == nil {
		err = fmt.Errorf("no socket %q was handed over, and -listen is not given", socketName)
	}
	if err == nil {
		s.local, err = open(named[localName], "unix", local)
	}
	if err != nil {
		return sockets{}, errors.Join(fmt.Errorf("listen: %w", err), s.Close())
	}
	return s, nil
}

// open opens an address, or takes the one socket that was handed over; nil is neither.
func open(given []net.Listener, network, address string) (net.Listener, error) {
	switch {
	case address == "" && len(given) == 1:
		return given[0], nil
	case address == "":
		return nil, nil
	case network != "unix":
		return net.Listen(network, address)
	}
	if err := os.Remove(address); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a process that was killed
		return nil, err
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(address, 0o600)
}

// Close closes them.
func (s sockets) Close() error {
	var errs []error
	for _, l := range []net.Listener{s.network, s.local} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// announce says when the API is worth calling: it answers since a while, but only
// now do rows speak of domains that are there. The hypervisor's version is asked
// for afterwards: for an answer libvirt probes QEMU, which takes seconds, and
// under emulation a minute.
func (t *toolstack) announce(ctx context.Context, addr net.Addr) error {
	for t.hv.Ready(ctx) != nil {
		if ctx.Err() != nil {
			return nil
		}
	}
	select {
	case <-t.ready:
	case <-ctx.Done():
		return nil
	}
	t.cfg.log.Info("api-ready", "addr", addr, "uptime", uptime())
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	t.host.Prepare(ctx)
	t.describe(ctx)
	<-ctx.Done()
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	return nil
}

// A start that is cut off begins again from nothing: a database after a power cut,
// or a libvirt that takes many guests over, may need minutes. The limit is for
// what never comes.
const (
	askEvery  = 20 * time.Second
	askAtMost = 15 * time.Minute
)

// askForTime tells PID 1, until the daemon is ready, that the start takes longer.
func (t *toolstack) askForTime(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askAtMost)
	defer cancel()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = daemon.SdNotify(false, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (3*askEvery).Microseconds()))
		case <-t.ready:
			return
		case <-ctx.Done():
			return
		}
	}
}

// describe writes the hypervisor's version into the host's record.
func (t *toolstack) describe(ctx context.Context) {
	_ = waitFor(ctx, t.cfg.log, "the hypervisor's version", func() error { // ends with ctx at the latest
		version, err := t.hv.Version(ctx)
		if err != nil {
			return err
		}
		return t.host.SetHypervisor(ctx, version)
	})
}

// uptime is the kernel's, in seconds with two decimals.
func uptime() string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return ""
	}
	return fmt.Sprintf("%.2f", time.Duration(ts.Nano()).Seconds())
}

// errProbe ends the watchdog's transaction, which writes nothing.
var errProbe = errors.New("probe")

// watchdog tells PID 1 that the database's writer still turns: everything that
// could hang hangs there sooner or later.
func (t *toolstack) watchdog(ctx context.Context) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return err
	}
	ticker := time.NewTicker(interval / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if err := t.db.Update(ctx, func(*db.Tx) error { return errProbe }); errors.Is(err, errProbe) {
			_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		}
	}
}
