package guest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/guest/qga"
)

const (
	// patience is how long one handshake waits for an agent to appear.
	patience = 20 * time.Second
	// answerLimit bounds a question.
	answerLimit = 5 * time.Second
	// roundLimit bounds all questions of a round.
	roundLimit = 20 * time.Second
	// Rounds come at the steady pace after a few hasty ones: a guest's agent is there
	// before its addresses are.
	pace = 30 * time.Second
	// rareRounds is every how many rounds that is asked which hardly ever changes.
	rareRounds = 20
	// lastWord is what an agent gets to thaw its guest when its watcher ends.
	lastWord = 2 * time.Second
)

var haste = []time.Duration{3 * time.Second, 7 * time.Second, 15 * time.Second}

// watcher is the only one who talks to a machine's agent.
type watcher struct {
	m        *Manager
	ref      api.VMRef
	uuid     string
	host     api.HostRef
	ports    Ports
	cancel   context.CancelFunc
	done     chan struct{}
	requests chan *request

	mu       sync.Mutex
	presence presence
	info     qga.Info

	// Only the watcher's goroutine touches these.
	facts       facts
	frozenUntil time.Time // zero: the guest is not frozen on anybody's behalf
}

func (m *Manager) watch(ctx context.Context, ref api.VMRef, vm *api.VM, ports Ports) *watcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{
		m: m, ref: ref, uuid: vm.UUID, host: vm.ResidentOn, ports: ports,
		cancel: cancel, done: make(chan struct{}), requests: make(chan *request),
	}
	go w.run(ctx)
	return w
}

// run talks to the agent until the context ends, in one conversation after another.
func (w *watcher) run(ctx context.Context) {
	defer close(w.done)
	for {
		err := w.converse(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case <-time.After(w.failed(ctx, err)):
		case <-ctx.Done():
		}
	}
}

// converse ends with the reason why the conversation did.
func (w *watcher) converse(ctx context.Context) error {
	port, err := w.ports.DialAgent(ctx, w.uuid)
	if err != nil {
		return err
	}
	c := qga.New(port)
	defer c.Close()
	defer func() { w.parting(ctx, c) }()
	if err := syncWithin(ctx, c, patience); err != nil {
		return err
	}
	for n := 0; ; n++ {
		if err := w.round(ctx, c, n); err != nil {
			return fmt.Errorf("%w: %w", errStalled, err)
		}
		next := pace
		if n < len(haste) {
			next = haste[n]
		}
		if err := w.serve(ctx, c, next); err != nil {
			return err
		}
		if err := syncWithin(ctx, c, answerLimit); err != nil {
			return err
		}
	}
}

func syncWithin(ctx context.Context, c *qga.Client, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return c.Sync(ctx)
}

// failed takes note, and says how long to wait.
func (w *watcher) failed(ctx context.Context, why error) time.Duration {
	w.mu.Lock()
	was := w.presence.Presence
	w.presence = w.presence.failed(time.Now())
	p := w.presence
	w.mu.Unlock()
	if p.Presence != was {
		w.m.cfg.Log.Info("guest-agent-"+p.String(), "uuid", w.uuid, "err", why)
	}
	w.record(ctx)
	if errors.Is(why, qga.ErrGarbage) {
		w.m.cfg.Log.Warn("guest-agent-nonsense", "uuid", w.uuid, "err", why, "pause", p.pause(why))
	}
	return p.pause(why)
}

func (w *watcher) now() Presence {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.presence.Presence
}

// can reports why the agent cannot be asked for commands.
func (w *watcher) can(commands ...string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.presence.Presence != Present {
		return ErrAbsent
	}
	for _, command := range commands {
		if !w.info.Has(command) {
			return ErrUnsupported
		}
	}
	return nil
}

// round asks for all that may have changed, and writes it down. The n-th round of a
// conversation decides what that is. A frozen guest answers nothing.
func (w *watcher) round(ctx context.Context, c *qga.Client, n int) error {
	select {
	case w.m.rounds <- struct{}{}:
		defer func() { <-w.m.rounds }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	if n == 0 { // whoever wanted it frozen, the conversation with them is over
		w.frozenUntil = time.Time{}
	}
	if time.Now().Before(w.frozenUntil) {
		return nil
	}
	if err := w.meet(ctx, c, n); err != nil {
		return err
	}
	if err := w.gather(ctx, c, n); err != nil {
		return err
	}
	fresh := w.present()
	w.record(ctx)
	if fresh {
		w.m.cfg.Log.Info("guest-agent-present", "uuid", w.uuid, "version", w.facts.info.Version)
	}
	return nil
}

// meet asks who is there, and lets a guest go on that is frozen for nobody.
func (w *watcher) meet(ctx context.Context, c *qga.Client, n int) (err error) {
	if n == 0 {
		if w.facts.info, err = within(ctx, c.Info); err != nil {
			return err
		}
	}
	if !w.facts.info.Has(qga.CmdStatus) {
		return nil
	}
	frozen, err := within(ctx, c.Frozen)
	if err = unlessRefused(err); err != nil || !frozen {
		return err
	}
	w.m.cfg.Log.Warn("guest-found-frozen", "uuid", w.uuid, "overdue", !w.frozenUntil.IsZero())
	if err := w.thaw(ctx, c); err != nil {
		return err
	}
	w.facts.info, err = within(ctx, c.Info) // a frozen agent has most commands disabled
	return err
}

// gather asks about the guest. What the agent does not know stays empty.
func (w *watcher) gather(ctx context.Context, c *qga.Client, n int) (err error) {
	nics, err := within(ctx, c.Interfaces)
	if unlessRefused(err) != nil {
		return err
	}
	w.facts.networks = networks(nics, devices(w.m.cfg.DB.Snapshot(), w.ref))
	if n%rareRounds != 0 {
		return nil
	}
	if w.facts.os, err = within(ctx, c.OS); unlessRefused(err) != nil {
		return err
	}
	if w.facts.host, err = within(ctx, c.HostName); unlessRefused(err) != nil {
		return err
	}
	w.facts.disks, err = within(ctx, c.Filesystems)
	return unlessRefused(err)
}

// present reports whether it was not known that an agent answers.
func (w *watcher) present() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.presence.Presence
	w.presence, w.info = w.presence.answered(), w.facts.info
	return was != Present
}

// within puts one question.
func within[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	return ask(ctx)
}

func unlessRefused(err error) error {
	var refusal *qga.Refusal
	if errors.As(err, &refusal) {
		return nil
	}
	return err
}
