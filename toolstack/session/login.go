package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"

	"cairn/toolstack/api"
	"cairn/toolstack/session/rbac"
)

// maxPassword bounds what is looked at as a password.
const maxPassword = 1024

func (m *Manager) registerSessions(r *api.Registry) {
	api.HandleSessionLoginWithPassword(r, func(c *api.Call, user, password, _, originator string) (api.SessionRef, error) {
		if vouched(c, user) {
			return m.LoginRoot(c, originator)
		}
		return m.Login(c, user, password, originator, c.Remote)
	})
	api.HandleSessionSlaveLocalLoginWithPassword(r, func(c *api.Call, user, password string) (api.SessionRef, error) {
		if vouched(c, user) {
			return m.openLocal(root), nil
		}
		return m.LocalLogin(c, user, password, c.Remote)
	})
	api.HandleSessionLogout(r, func(c *api.Call) error {
		m.Logout(c.Session)
		return nil
	})
	api.HandleSessionLocalLogout(r, m.localLogout)
	api.HandleSessionGetAllSubjectIdentifiers(r, m.subjectIdentifiers)
	api.HandleSessionLogoutSubjectIdentifier(r, m.logoutSubject)
	if m.cfg.SetRootPassword != nil {
		api.HandleSessionChangePassword(r, m.changePassword)
	}
	m.overrideGetters(r)
}

// root may do everything.
var root = principal{name: rootUser, role: rbac.LocalRoot}

// vouched: the host says that a caller is root, and that is who he wants to be.
func vouched(c *api.Call, user string) bool { return c.Root && (user == "" || user == rootUser) }

// LoginRoot opens a session for root without a password. The caller knows who asks.
func (m *Manager) LoginRoot(ctx context.Context, originator string) (api.SessionRef, error) {
	return m.open(ctx, root, originator[:min(len(originator), maxName)])
}

// Login opens a session for a user who knows the password and may do something.
// A wrong password is answered late. Remote is the client's address.
func (m *Manager) Login(ctx context.Context, user, password, originator, remote string) (api.SessionRef, error) {
	p, err := m.identify(ctx, user, password, remote, m.authenticate)
	if err != nil {
		return "", err
	}
	return m.open(ctx, p, originator[:min(len(originator), maxName)])
}

// LocalLogin opens a session of this host alone, which works without the pool's
// database and only serves emergency messages. Only root has those.
func (m *Manager) LocalLogin(ctx context.Context, user, password, remote string) (api.SessionRef, error) {
	p, err := m.identify(ctx, user, password, remote, m.authenticateRoot)
	if err != nil {
		return "", err
	}
	return m.openLocal(p), nil
}

// openLocal makes a session of this host alone.
func (m *Manager) openLocal(p principal) api.SessionRef {
	ref, now := api.NewRef[api.Session](), m.cfg.Clock.Now()
	m.forget(m.add(ref, &state{principal: p, originator: "local", local: true, used: now}))
	return ref
}

// localLogout ends a session of this host alone, and no other.
func (m *Manager) localLogout(c *api.Call) error {
	s, err := m.find(c.Session)
	if err != nil {
		return err
	}
	if !s.local {
		return api.ErrSessionInvalid(c.Session.String())
	}
	m.Logout(c.Session)
	return nil
}

// errCredentials is all a client learns of a wrong user name or password.
var errCredentials = errors.New("wrong user name or password")

func authenticationFailed(user string, err error) error {
	return &api.Error{Code: api.CodeSessionAuthenticationFailed, Params: []string{user, err.Error()}}
}

// identify goes through the door and finds out who a user is.
func (m *Manager) identify(ctx context.Context, user, password, remote string,
	authenticate func(ctx context.Context, user, password string) (principal, error)) (principal, error) {
	user = user[:min(len(user), maxName)]
	a, err := m.door.enter(user, remote)
	if err != nil {
		if n, tell := m.door.refusals(); tell {
			m.cfg.Log.Warn("login-refused", "user", user, "remote", remote, "count", n, "err", err)
		}
		return principal{}, authenticationFailed(user, err)
	}
	defer a.leave()
	if a.wait > 0 {
		if err := m.cfg.Clock.Sleep(ctx, a.wait); err != nil {
			return principal{}, err
		}
	}
	p, err := authenticate(ctx, user, password)
	switch {
	case err == nil:
		a.succeeded()
		return p, nil
	case errors.Is(err, errCredentials):
		delay, failures := a.failed()
		m.cfg.Log.Warn("login-failed", "user", user, "remote", remote, "failures", failures, "delay", delay)
		if err := m.cfg.Clock.Sleep(ctx, delay); err != nil {
			return principal{}, err
		}
		return principal{}, authenticationFailed(user, errCredentials)
	}
	m.cfg.Log.Warn("login-failed", "user", user, "remote", remote, "err", err)
	return principal{}, err
}

// authenticate tries root, then the directory.
func (m *Manager) authenticate(ctx context.Context, user, password string) (principal, error) {
	if user == "" || len(password) > maxPassword {
		return principal{}, errCredentials
	}
	if user == rootUser {
		return m.authenticateRoot(ctx, user, password)
	}
	return m.authenticateExternal(ctx, user, password)
}

func (m *Manager) authenticateRoot(ctx context.Context, user, password string) (principal, error) {
	if user != rootUser || len(password) > maxPassword {
		return principal{}, errCredentials
	}
	ok, err := m.verify(ctx, password)
	if err == nil && !ok {
		err = errCredentials
	}
	return root, err
}

// verify checks root's password against the hash in force now.
func (m *Manager) verify(ctx context.Context, password string) (bool, error) {
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

// changePassword changes root's password, which only root may and knows the old
// one. Other users' passwords are the directory's.
func (m *Manager) changePassword(c *api.Call, old, replacement string) error {
	ok, err := m.verify(c, old)
	switch {
	case err != nil:
		return err
	case !ok:
		m.cfg.Log.Warn("password-change-refused", "remote", c.Remote)
		if err := m.cfg.Clock.Sleep(c, failureDelay); err != nil {
			return err
		}
		return authenticationFailed(rootUser, errCredentials)
	case replacement == "" || len(replacement) > maxPassword:
		return api.ErrChangePasswordRejected("a password has 1 to 1024 bytes")
	}
	if err := m.cfg.SetRootPassword(context.WithoutCancel(c), replacement); err != nil {
		return err
	}
	m.cfg.Log.Info("password-changed", "user", rootUser, "remote", c.Remote)
	return nil
}
