package guest

import (
	"context"
	"fmt"
	"time"

	"cairn/toolstack/guest/qga"
)

const (
	// handover is how long a call waits for a watcher that is in the middle of a round.
	handover = 10 * time.Second
	// freezeWait is what a guest gets to write out what it has.
	freezeWait = 30 * time.Second
	// FreezeLimit is how long a guest stays frozen at most: services in it, and who uses
	// them, wait meanwhile.
	FreezeLimit = 20 * time.Second
)

// request is a call's question.
type request struct {
	ctx  context.Context
	do   func(context.Context, *watcher, *qga.Client) error
	done chan error // of capacity 1
}

// ask hands a question to a machine's watcher. It returns within the limits of the
// handover and of the question.
func (m *Manager) ask(ctx context.Context, uuid string, commands []string, do func(context.Context, *watcher, *qga.Client) error) error {
	w := m.watcherOf(uuid)
	if w == nil {
		return fmt.Errorf("vm %s: %w", uuid, ErrAbsent)
	}
	if err := w.can(commands...); err != nil {
		return fmt.Errorf("vm %s: %w", uuid, err)
	}
	r := &request{ctx: ctx, do: do, done: make(chan error, 1)}
	limit := time.NewTimer(handover)
	defer limit.Stop()
	select {
	case w.requests <- r:
	case <-limit.C:
		return fmt.Errorf("vm %s: %w", uuid, qga.ErrSilent)
	case <-w.done:
		return fmt.Errorf("vm %s: %w", uuid, ErrAbsent)
	case <-ctx.Done():
		return fmt.Errorf("vm %s: %w", uuid, context.Cause(ctx))
	}
	if err := <-r.done; err != nil {
		return fmt.Errorf("vm %s: %w", uuid, err)
	}
	return nil
}

// serve obeys calls until the next round is due, or the conversation is broken.
func (w *watcher) serve(ctx context.Context, c *qga.Client, until time.Duration) error {
	due := time.NewTimer(until)
	defer due.Stop()
	for {
		select {
		case r := <-w.requests:
			r.done <- w.obey(ctx, c, r)
			if err := c.Broken(); err != nil {
				return err
			}
			if !w.frozenUntil.IsZero() {
				due.Reset(time.Until(w.frozenUntil))
			}
		case <-due.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// obey asks for a caller, until the caller goes away, or the watcher ends.
func (w *watcher) obey(ctx context.Context, c *qga.Client, r *request) error {
	limited, cancel := context.WithCancel(r.ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	if err := syncWithin(limited, c, answerLimit); err != nil {
		return err
	}
	return r.do(limited, w, c)
}

// PowerOff asks a guest to end. Nil means that it was asked, not that it does.
func (m *Manager) PowerOff(ctx context.Context, uuid string) error {
	return m.ask(ctx, uuid, []string{qga.CmdShutdown}, func(ctx context.Context, _ *watcher, c *qga.Client) error {
		return c.PowerOff(ctx)
	})
}

// CanFreeze reports why a guest cannot be frozen.
func (m *Manager) CanFreeze(uuid string) error {
	w := m.watcherOf(uuid)
	if w == nil {
		return ErrAbsent
	}
	return w.can(qga.CmdFreeze, qga.CmdThaw, qga.CmdStatus)
}

// Freeze makes a guest write out what it has and hold still until Thaw, for FreezeLimit
// at most. After an error it is not frozen, or thawed as soon as it answers.
func (m *Manager) Freeze(ctx context.Context, uuid string) error {
	return m.ask(ctx, uuid, []string{qga.CmdFreeze, qga.CmdThaw, qga.CmdStatus}, func(ctx context.Context, w *watcher, c *qga.Client) error {
		ctx, cancel := context.WithTimeout(ctx, freezeWait)
		defer cancel()
		n, err := c.Freeze(ctx)
		if err == nil && n > 0 {
			w.frozenUntil = time.Now().Add(FreezeLimit)
			w.m.cfg.Log.Info("guest-frozen", "uuid", w.uuid, "filesystems", n)
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%w: it has frozen nothing", ErrUnsupported)
		}
		if c.Broken() == nil { // what it has frozen before it failed
			_, _ = within(ctx, c.Thaw)
		}
		return err
	})
}

// Thaw lets a guest go on. ErrThawed means that it has gone on before.
func (m *Manager) Thaw(ctx context.Context, uuid string) error {
	return m.ask(ctx, uuid, nil, func(ctx context.Context, w *watcher, c *qga.Client) error {
		if w.frozenUntil.IsZero() {
			return ErrThawed
		}
		return w.thaw(ctx, c)
	})
}

// thaw lets the guest go on, for whomever it was frozen.
func (w *watcher) thaw(ctx context.Context, c *qga.Client) error {
	n, err := within(ctx, c.Thaw)
	if err != nil {
		return err
	}
	w.frozenUntil = time.Time{}
	w.m.cfg.Log.Info("guest-thawed", "uuid", w.uuid, "filesystems", n)
	return nil
}

// parting lets no guest stay frozen behind a watcher that ends.
func (w *watcher) parting(ctx context.Context, c *qga.Client) {
	if w.frozenUntil.IsZero() || ctx.Err() == nil || c.Broken() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
	defer cancel()
	if err := c.Sync(ctx); err == nil {
		err = w.thaw(ctx, c)
		w.m.cfg.Log.Info("guest-thawed-at-end", "uuid", w.uuid, "err", err)
	}
}
