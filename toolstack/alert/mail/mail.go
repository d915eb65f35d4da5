// Package mail sends messages (alerts) to people by SMTP, as the pool's other_config says:
// to mail-destination, through ssmtp-mailhub, those of a priority of at least
// mail-min-priority.
//
// A Mailer never holds anybody up: Notify puts a message into a queue of bounded length,
// where the oldest give way, and one goroutine sends. A server that hangs costs a limit of
// time for each attempt, of which there are few; what cannot be sent is dropped with a
// line in the log, and the message itself is still in the database. Methods may be called
// by many goroutines.
package mail

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/textproto"
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
	// Pause waits between attempts; nil for the real time.
	Pause func(ctx context.Context, d time.Duration) error
}

// Mailer sends messages.
type Mailer struct {
	cfg  Config
	wake chan struct{} // capacity 1: the queue has something

	mu      sync.Mutex
	queue   []*api.Message
	dropped int    // since something was sent
	wrong   string // with the settings, as was told
}

const (
	// maxQueue is how many messages wait at most.
	maxQueue = 100
	// sendLimit bounds one attempt.
	sendLimit = 30 * time.Second
)

// pauses are between the attempts for one message.
var pauses = []time.Duration{30 * time.Second, 5 * time.Minute}

// New returns a Mailer; Run makes it send.
func New(cfg Config) *Mailer {
	if cfg.Log == nil {
		cfg.Log = journal.Discard()
	}
	if cfg.Pause == nil {
		cfg.Pause = pause
	}
	return &Mailer{cfg: cfg, wake: make(chan struct{}, 1)}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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
		m.queue = append([]*api.Message(nil), m.queue[1:]...)
		m.dropped++
		if m.dropped == 1 {
			m.cfg.Log.Warn("mail-dropped", "reason", "too many wait", "server", s.hub)
		}
	}
	m.queue = append(m.queue, x)
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

func (m *Mailer) settings() (settings, error) {
	for _, p := range db.All[api.Pool](m.cfg.DB.Snapshot()) {
		return parseSettings(p.OtherConfig)
	}
	return settings{}, nil
}

// Run sends what is in the queue until the context ends.
func (m *Mailer) Run(ctx context.Context) error {
	for {
		x := m.next()
		if x == nil {
			select {
			case <-m.wake:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if err := m.deliver(ctx, x); err != nil && ctx.Err() == nil {
			m.cfg.Log.Warn("mail-lost", "message", x.UUID, "name", x.Name, "err", err)
		}
	}
}

func (m *Mailer) next() *api.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) == 0 {
		return nil
	}
	x := m.queue[0]
	m.queue = m.queue[1:]
	return x
}

// deliver tries a few times. What the server refuses for good is not tried again.
func (m *Mailer) deliver(ctx context.Context, x *api.Message) error {
	for n := 0; ; n++ {
		s, err := m.settings()
		if err == nil && !s.wants(x) {
			return nil // nobody wants it any more
		}
		if err == nil {
			err = m.send(ctx, s, x)
		}
		if err == nil {
			m.sent(x)
			return nil
		}
		var refusal *textproto.Error
		if n == len(pauses) || errors.As(err, &refusal) && refusal.Code >= 500 {
			return err
		}
		if err := m.cfg.Pause(ctx, pauses[n]); err != nil {
			return err
		}
	}
}

func (m *Mailer) sent(x *api.Message) {
	m.mu.Lock()
	dropped := m.dropped
	m.dropped = 0
	m.mu.Unlock()
	m.cfg.Log.Info("mail-sent", "message", x.UUID, "name", x.Name, "dropped", dropped)
}

// dial connects for one attempt: everything on the connection ends by a time, and with
// the context.
func dial(ctx context.Context, hub string) (net.Conn, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, sendLimit)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", hub)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { stop(); cancel(); conn.Close() }, nil
}
