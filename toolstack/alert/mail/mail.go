// Package mail sends messages (alerts) to people by SMTP, as the pool's other_config says:
// to mail-destination, through ssmtp-mailhub, those of a priority of at least
// mail-min-priority.
//
// A Mailer never holds anybody up: Notify puts a message into a queue of bounded length,
// where the oldest give way, and one goroutine sends, in order. A server that hangs costs a
// limit of time for an attempt; one that fails, or has nothing to do with this host, makes
// the queue as a whole wait, ever longer up to a bound. What a server says of a message or
// of who is to get it is about that alone: "later" makes the message wait for those it has
// not reached, by itself, and "never" is not asked again. Nobody gets a message twice
// because others have not got it. Other settings are tried at once, whatever is going on:
// they interrupt an attempt and a wait.
//
// What cannot be sent for an hour, or is refused for good, is dropped with a line in the
// log, the server's words in it; the message itself is still in the database. Methods may
// be called by many goroutines.
package mail

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Config is what a Mailer is made of. All but DB and Hostname may be nil.
type Config struct {
	DB       *db.DB
	Hostname func() string // whose mail it is
	Log      *slog.Logger
	// Dial connects to a server; nil for the real network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Mailer sends messages.
type Mailer struct {
	cfg  Config
	wake chan struct{} // capacity 1: the queue has something

	mu      sync.Mutex
	queue   []*queued
	dropped int    // since something was sent
	refused int    // receivers, for good, since the beginning
	wrong   string // with the settings, as was told
}

const (
	// maxQueue is how many messages wait at most.
	maxQueue = 100
	// sendLimit bounds one attempt.
	sendLimit = 30 * time.Second
	// After a failure the queue waits for firstPause, then ever twice as long up to
	// maxPause.
	firstPause = 30 * time.Second
	maxPause   = 5 * time.Minute
	// lifetime is how long a message is kept while attempts fail.
	lifetime = time.Hour
)

// backOff is how long to wait after so many failures in a row, at least one.
func backOff(failures int) time.Duration {
	return min(firstPause<<min(failures-1, 8), maxPause)
}

// errChanged ends an attempt, and a wait, because of other settings.
var errChanged = errors.New("the settings have changed")

// New returns a Mailer; Run makes it send.
func New(cfg Config) *Mailer {
	if cfg.Log == nil {
		cfg.Log = journal.Discard()
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	return &Mailer{cfg: cfg, wake: make(chan struct{}, 1)}
}

// Notify sends a message some time soon, if it is one to be sent. It returns at once.
func (m *Mailer) Notify(x *api.Message) {
	s, err := m.settings()
	m.complain(err)
	if err != nil || !s.wants(x) {
		return
	}
	m.mu.Lock()
	if len(m.queue) == maxQueue {
		m.queue = slices.Delete(m.queue, 0, 1)
		m.dropped++
		if m.dropped == 1 {
			m.cfg.Log.Warn("mail-dropped", "reason", "too many wait", "server", s.hub)
		}
	}
	m.queue = append(m.queue, newQueued(x, time.Now()))
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// complain says what is wrong with the settings, once.
func (m *Mailer) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	m.mu.Lock()
	same := text == m.wrong
	m.wrong = text
	m.mu.Unlock()
	if err != nil && !same {
		m.cfg.Log.Warn("mail-settings", "err", err)
	}
}

func (m *Mailer) settings() (settings, error) { return parseSettings(m.keys()) }

// keys are the settings as they were written.
func (m *Mailer) keys() keys {
	for _, p := range db.All[api.Pool](m.cfg.DB.Snapshot()) {
		return keysOf(p.OtherConfig)
	}
	return keys{}
}

// Run sends what is in the queue until the context ends.
func (m *Mailer) Run(ctx context.Context) error {
	pools := m.cfg.DB.WatchSince(m.cfg.DB.Snapshot().Generation(), func(c *db.Change) bool {
		return c.Class == api.ClassOf[api.Pool]()
	})
	defer pools.Close()
	failures, tried := 0, keys{}
	for ctx.Err() == nil {
		said := m.keys()
		if said != tried {
			m.hasten()
			tried = said
		}
		x, wait := m.next(time.Now())
		if x == nil {
			m.idle(ctx, pools, wait)
			continue
		}
		pools.Next() // what comes from here on is news
		switch err := m.deliver(ctx, pools, said, x); {
		case err == nil || errors.Is(err, errChanged):
			failures = 0
		case ctx.Err() == nil:
			failures = m.failed(ctx, pools, said, failures+1, err)
		}
	}
	return ctx.Err()
}

// idle waits until there may be something to do: so long, if that is not 0.
func (m *Mailer) idle(ctx context.Context, pools *db.Watch, wait time.Duration) {
	var due <-chan time.Time
	if wait > 0 {
		due = time.After(wait)
	}
	select {
	case <-m.wake:
	case <-due:
	case <-pools.C():
		pools.Next()
	case <-ctx.Done():
	}
}

// deliver makes an attempt. An error is one of the way to the server; what that says of
// the message, or of who is to get it, is none.
func (m *Mailer) deliver(ctx context.Context, pools *db.Watch, said keys, x *queued) error {
	s, err := parseSettings(said)
	if err != nil {
		return err
	}
	if !s.wants(x.Message) {
		m.remove(x) // nobody wants it any more
		return nil
	}
	var a answer
	err = m.attempt(ctx, pools, said, func(ctx context.Context) (err error) {
		a, err = m.send(ctx, s, x)
		return err
	})
	if refused := m.count(len(a.refused)); len(a.refused) > 0 && (err != nil || a.later != nil || len(x.had) > 0) {
		m.cfg.Log.Warn("mail-refused", "message", x.UUID, "name", x.Name, "to", a.refused, "err", a.never, "refused", refused)
	}
	if err == nil {
		m.settle(s, x, a)
	}
	return err
}

// settle decides what becomes of a message of which a server has said something.
func (m *Mailer) settle(s settings, x *queued, a answer) {
	switch {
	case a.later != nil && time.Since(x.since) < lifetime:
		m.postpone(x, time.Now())
		if x.tries == 1 {
			m.cfg.Log.Warn("mail-delayed", "server", s.hub, "message", x.UUID, "name", x.Name, "err", a.later)
		}
		return
	case a.later != nil:
		m.lost(x, a.later)
	case len(x.had) == 0:
		m.lost(x, a.never)
	default:
		m.sent(x)
	}
	m.remove(x)
}

// attempt does something until it is done or the settings are no longer those that were
// said.
func (m *Mailer) attempt(ctx context.Context, pools *db.Watch, said keys, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case <-pools.C():
			pools.Next()
			if m.keys() == said {
				continue
			}
			cancel()
			if <-done == nil { // it was quicker
				return nil
			}
			return errChanged
		}
	}
}

// failed gives up what is too old, and lets the queue wait. It returns how many failures
// there have been in a row: none, as soon as the settings are others.
func (m *Mailer) failed(ctx context.Context, pools *db.Watch, said keys, failures int, cause error) int {
	if failures == 1 {
		m.cfg.Log.Warn("mail-delayed", "server", said[hubAt], "err", cause)
	}
	m.giveUp(cause)
	err := m.attempt(ctx, pools, said, func(ctx context.Context) error {
		select {
		case <-time.After(backOff(failures)):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if errors.Is(err, errChanged) {
		return 0
	}
	return failures
}

func (m *Mailer) lost(x *queued, err error) {
	m.cfg.Log.Warn("mail-lost", "message", x.UUID, "name", x.Name, "err", err)
}

// count adds to how many receivers were refused, and returns that.
func (m *Mailer) count(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused += n
	return m.refused
}

func (m *Mailer) sent(x *queued) {
	m.mu.Lock()
	dropped := m.dropped
	m.dropped = 0
	refused := m.refused
	m.mu.Unlock()
	m.cfg.Log.Info("mail-sent", "message", x.UUID, "name", x.Name, "dropped", dropped, "refused", refused)
}

// dial connects for one attempt: everything on the connection ends by a time, and with
// the context.
func (m *Mailer) dial(ctx context.Context, hub string) (net.Conn, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, sendLimit)
	conn, err := m.cfg.Dial(ctx, "tcp", hub)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { stop(); cancel(); conn.Close() }, nil
}
