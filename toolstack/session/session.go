// Package session knows who is logged in and what they may do. A session is a
// record of the volatile class session, so event streams notice its end; the
// manager keeps beside it what each call needs to know, because each call is a
// use of its session and none should be a write.
//
// Root is the account of the configuration document and may do everything. Others
// are users of an external directory: a user may do what the roles of his own
// subject and of those of his groups add up to, and one without a role is refused.
// What a role may do is package rbac's matter. Local sessions serve what is
// needed while the pool cannot be reached; they are no records.
//
// Passwords are checked one at a time, since argon2 is made to cost memory. What
// a wrong one costs its sender is described at door. A Manager may be used by many
// goroutines.
package session

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session/rbac"
)

// Limits on sessions, as clients of the API know them. The last one only bounds
// memory.
const (
	idleTimeout      = 24 * time.Hour
	maxPerOriginator = 500
	maxPerUser       = 500
	maxSessions      = 5000
	// lastActiveStep is how stale a record's last_active may be.
	lastActiveStep = 5 * time.Minute
	// maxName bounds names a client gives itself.
	maxName = 256
)

// rootUser is the one local account.
const rootUser = "root"

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
	// root may not log in.
	RootHash func(ctx context.Context) (string, error)
	// Verify compares a password with a hash.
	Verify func(hash, password string) bool
	// SetRootPassword makes a password root's; nil where nobody can.
	SetRootPassword func(ctx context.Context, password string) error
	// ThisHost is the host sessions belong to.
	ThisHost func() api.HostRef
	// Directories open external directories, by the auth_type clients ask
	// for ("LDAP").
	Directories map[string]OpenFunc
	Clock       Clock // nil is the real one
	Log         *slog.Logger
}

// Manager opens, checks and closes sessions.
type Manager struct {
	cfg       Config
	verifying chan struct{} // cap 1: one password at a time
	asking    chan struct{} // cap maxAsking: questions to the directory by logins
	key       [32]byte      // of this process, for verified
	door      *door
	directory directory

	mu       sync.Mutex
	sessions map[api.SessionRef]*state
	counts   map[group]int // of sessions
	ended    [64]ended     // the last to go, for the audit log
	endedAt  int
	// verified is a keyed digest of the last hash and password that agreed.
	// A command line client logs in for every command; it need not wait for
	// argon2 each time. Guessing is not helped: a wrong password never
	// matches and takes the slow way.
	verified []byte
}

// principal is who a session is opened for.
type principal struct {
	name     string
	sid      string           // in the directory; "" for root
	role     rbac.Role        // the union of what the subjects may do
	subject  api.SubjectRef   // his own, else the first of his groups'
	subjects []api.SubjectRef // all that give him roles
}

type state struct {
	principal
	uuid, originator string
	local            bool
	used, validated  time.Time
	told             time.Time // the last_active in the record
}

type ended struct {
	ref api.SessionRef
	who Identity
}

// New returns a manager.
func New(c Config) *Manager {
	if c.Clock == nil {
		c.Clock = realClock{}
	}
	if c.Log == nil {
		c.Log = journal.Discard()
	}
	m := &Manager{
		cfg: c, verifying: make(chan struct{}, 1), asking: make(chan struct{}, maxAsking),
		door: newDoor(c.Clock.Now), sessions: map[api.SessionRef]*state{}, counts: map[group]int{},
	}
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

// Register binds the messages of the classes session, role, subject, auth and
// user, and those of pool and host that are about external authentication.
func (m *Manager) Register(r *api.Registry) {
	m.registerSessions(r)
	registerRoles(r, m.cfg.DB)
	m.registerSubjects(r)
	m.registerDirectory(r)
	m.registerUsers(r)
}

// open makes the session and closes those that must give way to it.
func (m *Manager) open(ctx context.Context, p principal, originator string) (api.SessionRef, error) {
	now := m.cfg.Clock.Now()
	r := api.NewSession()
	r.UUID = api.NewUUID()
	r.ThisHost = m.cfg.ThisHost()
	r.LastActive, r.ValidationTime = now, now
	r.IsLocalSuperuser = p.role == rbac.LocalRoot
	r.AuthUserName, r.AuthUserSID, r.Subject = p.name, p.sid, p.subject
	r.Originator = originator
	ref := api.NewRef[api.Session]()
	closed := m.add(ref, &state{principal: p, uuid: r.UUID, originator: originator, used: now, told: now, validated: now})
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		for _, old := range closed {
			db.Delete(tx, old) // may be gone already
		}
		db.InsertAs(tx, ref, r)
		return nil
	})
	if err != nil {
		m.mu.Lock()
		m.drop(ref)
		m.mu.Unlock()
		return "", err
	}
	for _, subject := range p.subjects {
		m.rolesChanged(subject) // perhaps since the user was looked up
	}
	return ref, nil
}

// add remembers a session and returns those that give way to it.
func (m *Manager) add(ref api.SessionRef, s *state) []api.SessionRef {
	m.mu.Lock()
	defer m.mu.Unlock()
	closed := m.evict(s)
	m.sessions[ref] = s
	for _, g := range s.groups() {
		m.counts[g]++
	}
	return closed
}

// group is what sessions are counted by, for the caps.
type group struct{ kind, name string }

func (s *state) groups() [2]group {
	return [2]group{{"originator", s.originator}, {"user", s.name + "\x00" + s.sid}}
}

// drop forgets a session, if there is one. The lock is held.
func (m *Manager) drop(ref api.SessionRef) {
	s := m.sessions[ref]
	if s == nil {
		return
	}
	delete(m.sessions, ref)
	for _, g := range s.groups() {
		if m.counts[g]--; m.counts[g] == 0 {
			delete(m.counts, g)
		}
	}
	m.ended[m.endedAt] = ended{ref, s.identity()}
	m.endedAt = (m.endedAt + 1) % len(m.ended)
}

// evict drops the least recently used sessions where a new one would exceed a
// cap, and returns them. The lock is held.
func (m *Manager) evict(next *state) []api.SessionRef {
	var closed []api.SessionRef
	give := func(in func(*state) bool) {
		if ref := m.oldest(in); ref != "" {
			m.drop(ref)
			closed = append(closed, ref)
		}
	}
	for i, g := range next.groups() {
		if m.counts[g] >= [...]int{maxPerOriginator, maxPerUser}[i] {
			give(func(s *state) bool { return s.groups()[i] == g })
		}
	}
	if len(m.sessions) >= maxSessions {
		give(func(*state) bool { return true })
	}
	return closed
}

// oldest returns the least recently used session of a kind, or "".
func (m *Manager) oldest(in func(*state) bool) api.SessionRef {
	var oldest api.SessionRef
	for ref, s := range m.sessions {
		if in(s) && (oldest == "" || s.used.Before(m.sessions[oldest].used)) {
			oldest = ref
		}
	}
	return oldest
}

// dropIdle drops what has idled too long. The lock is held.
func (m *Manager) dropIdle(now time.Time) []api.SessionRef {
	var closed []api.SessionRef
	for ref, s := range m.sessions {
		if now.Sub(s.used) > idleTimeout {
			m.drop(ref)
			closed = append(closed, ref)
		}
	}
	return closed
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
	tell := !s.local && now.Sub(s.told) > lastActiveStep
	if tell {
		s.told = now
	}
	m.mu.Unlock()
	if tell {
		m.tell(ref, func(r *api.Session) { r.LastActive = now })
	}
	return nil
}

// tell changes a session's record; one that has just ended needs none.
func (m *Manager) tell(ref api.SessionRef, change func(*api.Session)) {
	db.Modify(context.Background(), m.cfg.DB, ref, func(_ *db.Tx, r *api.Session) error {
		change(r)
		return nil
	})
}

// Logout closes a session; closing one twice is no mistake.
func (m *Manager) Logout(ref api.SessionRef) { m.close(ref) }

// close ends sessions and deletes their records.
func (m *Manager) close(refs ...api.SessionRef) {
	m.mu.Lock()
	for _, ref := range refs {
		m.drop(ref)
	}
	m.mu.Unlock()
	m.forget(refs)
}

// forget deletes the records of sessions that have ended.
func (m *Manager) forget(refs []api.SessionRef) {
	if len(refs) == 0 {
		return
	}
	m.cfg.DB.Update(context.Background(), func(tx *db.Tx) error {
		for _, ref := range refs {
			db.Delete(tx, ref) // a local session has none
		}
		return nil
	})
}

// closeWhere ends all sessions of a kind and returns how many there were.
func (m *Manager) closeWhere(kind func(api.SessionRef, *state) bool) int {
	m.mu.Lock()
	var closed []api.SessionRef
	for ref, s := range m.sessions {
		if kind(ref, s) {
			m.drop(ref)
			closed = append(closed, ref)
		}
	}
	m.mu.Unlock()
	m.forget(closed)
	return len(closed)
}

// Run ends idle sessions and asks the directory from time to time whether those
// logged in still may be, until the context ends.
func (m *Manager) Run(ctx context.Context) error {
	for {
		if err := m.cfg.Clock.Sleep(ctx, revalidateInterval); err != nil {
			return err
		}
		m.Sweep()
		m.Revalidate(ctx)
	}
}

// Sweep ends the sessions nobody has used for too long.
func (m *Manager) Sweep() {
	m.mu.Lock()
	closed := m.dropIdle(m.cfg.Clock.Now())
	m.mu.Unlock()
	if len(closed) > 0 {
		m.cfg.Log.Info("sessions-expired", "count", len(closed))
	}
	m.forget(closed)
}
