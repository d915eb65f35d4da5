package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"cairn/ci/lab/qmp"
)

// record keeps an event of QEMU and wakes those who wait for one.
func (h *Host) record(e qmp.Event) {
	if e.Name == "RESET" && h.debug != nil {
		h.debug.reset()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
	close(h.changed)
	h.changed = make(chan struct{})
}

// Events is what QEMU reported so far.
func (h *Host) Events() []qmp.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]qmp.Event(nil), h.events...)
}

// WaitEvent waits until QEMU has reported the named event and returns its
// first occurrence.
func (h *Host) WaitEvent(ctx context.Context, name string) (qmp.Event, error) {
	for {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		if e, ok := h.event(name); ok {
			return e, nil
		}
		select {
		case <-changed:
		case <-h.exited:
			if e, ok := h.event(name); ok {
				return e, nil
			}
			return qmp.Event{}, fmt.Errorf("%s: waiting for %s: qemu ended", h.cfg.Name, name)
		case <-ctx.Done():
			return qmp.Event{}, fmt.Errorf("%s: no %s event: %w", h.cfg.Name, name, ctx.Err())
		}
	}
}

func (h *Host) event(name string) (qmp.Event, bool) {
	for _, e := range h.Events() {
		if e.Name == name {
			return e, true
		}
	}
	return qmp.Event{}, false
}

// PowerButton presses the ACPI power button.
func (h *Host) PowerButton(ctx context.Context) error {
	return h.qmp.Execute(ctx, "system_powerdown", nil, nil)
}

// Reset is the reset button.
func (h *Host) Reset(ctx context.Context) error {
	return h.qmp.Execute(ctx, "system_reset", nil, nil)
}

// PowerCut takes the power away: what the host had not flushed is lost.
func (h *Host) PowerCut() {
	if h.pid > 0 {
		_ = syscall.Kill(h.pid, syscall.SIGKILL)
		<-h.exited
	}
}

// Exit is why QEMU ended, in its own words: guest-shutdown is a host that
// powered itself off, guest-reset one that reset itself under NoReboot.
type Exit struct {
	Reason string
	Guest  bool
}

// WaitExit waits for QEMU to end.
func (h *Host) WaitExit(ctx context.Context) (Exit, error) {
	select {
	case <-h.exited:
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("%s: still on: %w", h.cfg.Name, ctx.Err())
	}
	<-h.qmp.Done() // all events are in
	var e Exit
	if shutdown, ok := h.event("SHUTDOWN"); ok {
		e.Reason, _ = shutdown.Data["reason"].(string)
		e.Guest, _ = shutdown.Data["guest"].(bool)
	}
	return e, h.exitErr
}

// Exited is closed when QEMU is gone.
func (h *Host) Exited() <-chan struct{} { return h.exited }

// PowerOff presses the power button and waits until the host has powered
// itself off.
func (h *Host) PowerOff(ctx context.Context) error {
	if err := h.PowerButton(ctx); err != nil && !errors.Is(err, qmp.ErrClosed) {
		return err
	}
	e, err := h.WaitExit(ctx)
	if err == nil && e.Reason != "guest-shutdown" {
		err = fmt.Errorf("%s: ended by %q instead of powering off", h.cfg.Name, e.Reason)
	}
	return err
}

// drained is how long the console's reader may take after QEMU is gone.
const drained = 5 * time.Second

// Close kills the host if it still runs and removes its files, unless the
// directory was given. It is idempotent.
func (h *Host) Close() error {
	h.PowerCut()
	if h.qmp != nil {
		_ = h.qmp.Close()
	}
	if h.debug != nil {
		_ = h.debug.conn.Close()
	}
	if h.Console != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drained)
		defer cancel()
		_, _ = h.wait(ctx, "the end", func(Line) bool { return false })
	}
	if h.temp {
		return os.RemoveAll(h.cfg.Dir)
	}
	return nil
}
