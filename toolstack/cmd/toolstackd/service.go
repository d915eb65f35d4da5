package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"cairn/toolstack/db"
)

// socketName is what PID 1 calls the socket of the API.
const socketName = "https"

// listen takes the socket PID 1 hands over, else opens one.
func listen(address string) (net.Listener, error) {
	if address != "" {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
		return l, nil
	}
	named, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if len(named[socketName]) != 1 {
		return nil, fmt.Errorf("listen: no socket %q was handed over, and -listen is not given", socketName)
	}
	return named[socketName][0], nil
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
