package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session/rbac"
)

// External is a directory of users outside the pool. Identifiers name users and
// groups for as long as they exist, whatever they are called. Methods may be
// called by many goroutines and bound their own time.
type External interface {
	// Authenticate answers the identifier of a user who knows the password,
	// or ErrCredentials.
	Authenticate(ctx context.Context, user, password string) (string, error)
	// Lookup answers the identifier of a user or group, or ErrNoSubject.
	Lookup(ctx context.Context, name string) (string, error)
	// Groups answers the identifiers of the groups a subject belongs to,
	// by way of other groups too.
	Groups(ctx context.Context, id string) ([]string, error)
	// Information describes a subject in the terms of the API:
	// "subject-name", "subject-is-group", "subject-account-disabled" …
	Information(ctx context.Context, id string) (map[string]string, error)
}

// OpenFunc opens a directory and makes sure that it answers. Settings are those
// of pool.enable_external_auth with secrets in clear.
type OpenFunc func(ctx context.Context, service string, settings map[string]string) (External, error)

// What a directory may answer; anything else means that it could not be asked.
var (
	ErrCredentials = errors.New("the directory refuses the credentials")
	ErrNoSubject   = errors.New("no such user or group")
	ErrSettings    = errors.New("wrong settings") // wrapped, with what is wrong
	ErrTrust       = errors.New("the directory's certificate is not trusted")
)

// DisabledKey and the others are what Information says of an account that may
// not log in: "true".
const (
	DisabledKey = "subject-account-disabled"
	LockedKey   = "subject-account-locked"
	ExpiredKey  = "subject-account-expired"
)

// Bounds on what the directory is asked.
const (
	maxAsking          = 8
	askTimeout         = 20 * time.Second
	revalidateInterval = 5 * time.Minute
	// maxUnseen is how long users stay logged in while the directory cannot
	// be asked about them.
	maxUnseen = 24 * time.Hour
)

// directory is the one in use, opened again when its configuration changes.
type directory struct {
	mu   sync.Mutex
	from settings
	open External
}

// settings is the configuration of external authentication in a host's row.
type settings struct {
	kind, service string
	config        map[string]string
}

func (s settings) equal(o settings) bool {
	if s.kind != o.kind || s.service != o.service || len(s.config) != len(o.config) {
		return false
	}
	for k, v := range s.config {
		if o.config[k] != v {
			return false
		}
	}
	return true
}

// settings reads this host's row.
func (m *Manager) settings() settings {
	h, err := db.Get(m.cfg.DB.Snapshot(), m.cfg.ThisHost())
	if err != nil {
		return settings{}
	}
	return settings{h.ExternalAuthType, h.ExternalAuthServiceName, h.ExternalAuthConfiguration}
}

// external is the directory in use, nil where there is none.
func (m *Manager) external(ctx context.Context) (External, error) {
	now := m.settings()
	if now.kind == "" {
		return nil, nil
	}
	m.directory.mu.Lock()
	defer m.directory.mu.Unlock()
	if m.directory.open != nil && m.directory.from.equal(now) {
		return m.directory.open, nil
	}
	open := m.cfg.Directories[now.kind]
	if open == nil {
		return nil, fmt.Errorf("nothing is known of external authentication by %s", now.kind)
	}
	plain, err := m.reveal(now.config)
	if err != nil {
		return nil, err
	}
	e, err := open(ctx, now.service, plain)
	if err != nil {
		return nil, err
	}
	m.directory.open, m.directory.from = e, now
	return e, nil
}

// authenticateExternal asks the directory, and then the subjects, about a user.
func (m *Manager) authenticateExternal(ctx context.Context, user, password string) (principal, error) {
	if m.settings().kind == "" || password == "" {
		return principal{}, errCredentials
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	select {
	case m.asking <- struct{}{}:
		defer func() { <-m.asking }()
	case <-ctx.Done():
		return principal{}, authenticationFailed(user, errors.New("the directory is slow to answer"))
	}
	p, err := m.askAbout(ctx, user, password)
	var known *api.Error
	switch {
	case err == nil, errors.As(err, &known):
		return p, err
	case errors.Is(err, ErrCredentials), errors.Is(err, ErrNoSubject):
		return p, errCredentials
	}
	m.cfg.Log.Error("directory-unreachable", "err", err)
	return p, authenticationFailed(user, errors.New("the directory cannot be asked"))
}

func (m *Manager) askAbout(ctx context.Context, user, password string) (principal, error) {
	e, err := m.external(ctx)
	if err != nil {
		return principal{}, err
	}
	if e == nil {
		return principal{}, ErrCredentials
	}
	sid, err := e.Authenticate(ctx, user, password)
	if err != nil {
		return principal{}, err
	}
	return m.admit(ctx, e, user, sid)
}

// admit finds out what an authentic user may do.
func (m *Manager) admit(ctx context.Context, e External, user, sid string) (principal, error) {
	p := principal{name: user, sid: sid}
	about, err := e.Information(ctx, sid)
	if err != nil {
		return p, err
	}
	for _, key := range []string{DisabledKey, LockedKey, ExpiredKey} {
		if about[key] == "true" {
			return p, api.ErrSessionAuthorizationFailed(user, key)
		}
	}
	groups, err := e.Groups(ctx, sid)
	if err != nil {
		return p, err
	}
	snap := m.cfg.DB.Snapshot()
	p.subject, p.subjects = subjectsOf(snap, sid, groups)
	p.role = union(snap, p.subjects)
	switch {
	case p.subject == "":
		return p, api.ErrSessionAuthorizationFailed(user, "neither the user nor a group of his is a subject of this pool")
	case p.role == rbac.None:
		return p, api.ErrSessionAuthorizationFailed(user, "the user has no role in this pool")
	}
	return p, nil
}

// subjectsOf finds the subjects a user is admitted by: his own first, or else
// the first of those of his groups, and all.
func subjectsOf(r db.Reader, sid string, groups []string) (api.SubjectRef, []api.SubjectRef) {
	var own api.SubjectRef
	var all []api.SubjectRef
	for ref, s := range db.All[api.Subject](r) {
		if s.SubjectIdentifier == sid {
			own = ref
		}
		if s.SubjectIdentifier == sid || slices.Contains(groups, s.SubjectIdentifier) {
			all = append(all, ref)
		}
	}
	slices.Sort(all)
	if own == "" && len(all) > 0 {
		own = all[0]
	}
	return own, all
}

// Revalidate asks the directory again about everybody it let in: users who are
// gone, disabled or without a role are logged out, the others get what they may
// do now. A directory that cannot be asked changes nothing for a day.
func (m *Manager) Revalidate(ctx context.Context) {
	users := map[string]string{}
	m.mu.Lock()
	for _, s := range m.sessions {
		if s.sid != "" {
			users[s.sid] = s.name
		}
	}
	m.mu.Unlock()
	for sid, name := range users {
		m.revalidate(ctx, sid, name)
	}
}

func (m *Manager) revalidate(ctx context.Context, sid, name string) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	e, err := m.external(ctx)
	var p principal
	switch {
	case err != nil:
	case e == nil:
		err = ErrNoSubject // external authentication has been turned off
	default:
		p, err = m.admit(ctx, e, name, sid)
	}
	var refused *api.Error
	switch {
	case err == nil:
		m.confirm(sid, p)
	case errors.As(err, &refused), errors.Is(err, ErrNoSubject):
		n := m.closeWhere(func(_ api.SessionRef, s *state) bool { return s.sid == sid })
		m.cfg.Log.Info("sessions-closed", "user", name, "sid", sid, "count", n, "reason", err)
	default:
		m.cfg.Log.Warn("revalidation-failed", "user", name, "sid", sid, "err", err)
		limit := m.cfg.Clock.Now().Add(-maxUnseen)
		m.closeWhere(func(_ api.SessionRef, s *state) bool { return s.sid == sid && s.validated.Before(limit) })
	}
}

// confirm gives a user's sessions what they may do now.
func (m *Manager) confirm(sid string, p principal) {
	now := m.cfg.Clock.Now()
	var refs []api.SessionRef
	m.mu.Lock()
	for ref, s := range m.sessions {
		if s.sid == sid {
			s.role, s.subject, s.subjects, s.validated = p.role, p.subject, p.subjects, now
			refs = append(refs, ref)
		}
	}
	m.mu.Unlock()
	for _, ref := range refs {
		m.tell(ref, func(r *api.Session) { r.ValidationTime, r.Subject = now, p.subject })
	}
}
