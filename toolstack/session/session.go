// Package session knows who is logged in. A session is a record of the volatile
// class session, so event streams notice its end; the manager keeps beside it
// when it was last used, because each call is a use and none should be a write.
//
// Only root of the configuration document can log in so far. Passwords are
// checked one at a time, since argon2 is made to cost memory, and a wrong one
// costs its sender a delay. A Manager may be used by many goroutines.
package session

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"log/slog"
	"sync"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Limits on sessions, as clients of the API know them.
const (
	idleTimeout      = 24 * time.Hour
	maxPerOriginator = 500
	maxPerUser       = 500
	failureDelay     = 5 * time.Second
	// lastActiveStep is how stale a record's last_active may be.
	lastActiveStep = 5 * time.Minute
)

// Clock is the time, so that tests need not wait for it.
type Clock interface {
	Now() time.Time
	// Sleep waits, or returns early with the context's error.
	Sleep(ctx context.Context, d time.Duration) error
}

// Config is what a Manager is made of.
type Config struct {
	DB *db.DB
	// RootHash returns the argon2id hash of root's password; "" means that
	// nobody may log in.
	RootHash func(ctx context.Context) (string, error)
	// Verify compares a password with a hash.
	Verify func(hash, password string) bool
	// ThisHost is the host sessions belong to.
	ThisHost func() api.HostRef
	Clock    Clock // nil is the real one
	Log      *slog.Logger
}

// Manager opens, checks and closes sessions.
type Manager struct {
	cfg       Config
	verifying chan struct{} // cap 1: one password at a time
	key       [32]byte      // of this process, for verified

	mu       sync.Mutex
	sessions map[api.SessionRef]*state
	// verified is a keyed digest of the last hash and password that agreed.
	// A command line client logs in for every command; it need not wait for
	// argon2 each time. Guessing is not helped: a wrong password never
	// matches and takes the slow way.
	verified []byte
}

type state struct {
	user, originator string
	used             time.Time
	told             time.Time // the last_active in the record
}

// New returns a manager.
func New(c Config) *Manager {
	if c.Clock == nil {
		c.Clock = realClock{}
	}
	if c.Log == nil {
		c.Log = journal.Discard()
	}
	m := &Manager{cfg: c, verifying: make(chan struct{}, 1), sessions: map[api.SessionRef]*state{}}
	rand.Read(m.key[:])
	return m
}

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }

func (realClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Register binds the messages of class session.
func (m *Manager) Register(r *api.Registry) {
	api.HandleSessionLoginWithPassword(r, func(c *api.Call, user, password, _, originator string) (api.SessionRef, error) {
		return m.Login(c, user, password, originator, c.Remote)
	})
	api.HandleSessionLogout(r, func(c *api.Call) error {
		m.Logout(c.Session)
		return nil
	})
	api.HandleSessionGetAllSubjectIdentifiers(r, func(*api.Call) ([]string, error) { return nil, nil })
}

// Login opens a session for a user who knows the password. A wrong password is
// answered late.
func (m *Manager) Login(ctx context.Context, user, password, originator, remote string) (api.SessionRef, error) {
	ok, err := m.verify(ctx, user, password)
	if err != nil {
		return "", err
	}
	if !ok {
		m.cfg.Log.Warn("login-failed", "user", user, "originator", originator, "remote", remote)
		if err := m.cfg.Clock.Sleep(ctx, failureDelay); err != nil {
			return "", err
		}
		return "", &api.Error{Code: api.CodeSessionAuthenticationFailed, Params: []string{user, "wrong user name or password"}}
	}
	return m.open(ctx, user, originator)
}

// verify checks the password against the hash in force now.
func (m *Manager) verify(ctx context.Context, user, password string) (bool, error) {
	if user != "root" {
		return false, nil
	}
	hash, err := m.cfg.RootHash(ctx)
	if err != nil || hash == "" {
		return false, err
	}
	digest := m.digest(hash, password)
	m.mu.Lock()
	known := hmac.Equal(digest, m.verified)
	m.mu.Unlock()
	if known {
		return true, nil
	}
	select {
	case m.verifying <- struct{}{}:
		defer func() { <-m.verifying }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if !m.cfg.Verify(hash, password) {
		return false, nil
	}
	m.mu.Lock()
	m.verified = digest
	m.mu.Unlock()
	return true, nil
}

func (m *Manager) digest(hash, password string) []byte {
	mac := hmac.New(sha256.New, m.key[:])
	mac.Write([]byte(hash))
	mac.Write([]byte{0})
	mac.Write([]byte(password))
	return mac.Sum(nil)
}

// open makes the session and closes those that must give way to it.
func (m *Manager) open(ctx context.Context, user, originator string) (api.SessionRef, error) {
	now := m.cfg.Clock.Now()
	r := api.NewSession()
	r.ThisHost = m.cfg.ThisHost()
	r.LastActive, r.ValidationTime = now, now
	r.IsLocalSuperuser = true
	r.AuthUserName, r.Originator = user, originator
	ref := api.NewRef[api.Session]()

	m.mu.Lock()
	closed := m.evict(user, originator, now)
	m.sessions[ref] = &state{user: user, originator: originator, used: now, told: now}
	m.mu.Unlock()

	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		for _, old := range closed {
			db.Delete(tx, old) // may be gone already
		}
		db.InsertAs(tx, ref, r)
		return nil
	})
	if err != nil {
		m.mu.Lock()
		delete(m.sessions, ref)
		m.mu.Unlock()
		return "", err
	}
	return ref, nil
}

// evict forgets sessions that idled too long, and the least recently used ones
// where a new session would exceed a cap. It returns what it forgot.
func (m *Manager) evict(user, originator string, now time.Time) []api.SessionRef {
	var closed []api.SessionRef
	drop := func(ref api.SessionRef) {
		delete(m.sessions, ref)
		closed = append(closed, ref)
	}
	for ref, s := range m.sessions {
		if now.Sub(s.used) > idleTimeout {
			drop(ref)
		}
	}
	sameOriginator := func(s *state) bool { return s.originator == originator }
	sameUser := func(s *state) bool { return s.user == user }
	for ref := m.oldest(sameOriginator, maxPerOriginator); ref != ""; ref = m.oldest(sameOriginator, maxPerOriginator) {
		drop(ref)
	}
	for ref := m.oldest(sameUser, maxPerUser); ref != ""; ref = m.oldest(sameUser, maxPerUser) {
		drop(ref)
	}
	return closed
}

// oldest returns the least recently used session of a kind when there are limit
// of them or more, else "".
func (m *Manager) oldest(kind func(*state) bool, limit int) api.SessionRef {
	n := 0
	var oldest api.SessionRef
	for ref, s := range m.sessions {
		if !kind(s) {
			continue
		}
		n++
		if oldest == "" || s.used.Before(m.sessions[oldest].used) {
			oldest = ref
		}
	}
	if n < limit {
		return ""
	}
	return oldest
}

// Check answers SESSION_INVALID unless the session is alive, and counts as a
// use of it.
func (m *Manager) Check(ref api.SessionRef) error {
	now := m.cfg.Clock.Now()
	m.mu.Lock()
	s := m.sessions[ref]
	if s == nil {
		m.mu.Unlock()
		return api.ErrSessionInvalid(ref.String())
	}
	if now.Sub(s.used) > idleTimeout {
		m.mu.Unlock()
		m.Logout(ref)
		return api.ErrSessionInvalid(ref.String())
	}
	s.used = now
	tell := now.Sub(s.told) > lastActiveStep
	if tell {
		s.told = now
	}
	m.mu.Unlock()
	if tell {
		m.tell(ref, now)
	}
	return nil
}

// tell writes last_active; a session that has just ended needs none.
func (m *Manager) tell(ref api.SessionRef, now time.Time) {
	m.cfg.DB.Update(context.Background(), func(tx *db.Tx) error {
		r, err := db.Edit(tx, ref)
		if err == nil {
			r.LastActive = now
		}
		return err
	})
}

// Logout closes a session; closing one twice is no mistake.
func (m *Manager) Logout(ref api.SessionRef) {
	m.mu.Lock()
	delete(m.sessions, ref)
	m.mu.Unlock()
	m.cfg.DB.Update(context.Background(), func(tx *db.Tx) error { return db.Delete(tx, ref) })
}
