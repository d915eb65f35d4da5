package session

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session/rbac"
)

// fakeDirectory knows users by name; the identifier is the name after "id-".
type fakeDirectory struct {
	groups map[string][]string // of users and of nobody else
	about  map[string]map[string]string
	err    error
	opened int
	asked  int
}

func (d *fakeDirectory) open(_ context.Context, _ string, settings map[string]string) (External, error) {
	d.opened++
	if settings["bind_password"] != "secret" {
		return nil, ErrCredentials
	}
	return d, d.err
}

func (d *fakeDirectory) Authenticate(_ context.Context, user, password string) (string, error) {
	d.asked++
	switch _, ok := d.groups[user]; {
	case d.err != nil:
		return "", d.err
	case !ok:
		return "", ErrNoSubject
	case password != "pw of "+user:
		return "", ErrCredentials
	}
	return "id-" + user, nil
}

func (d *fakeDirectory) Lookup(_ context.Context, name string) (string, error) {
	return "id-" + name, d.err
}

func (d *fakeDirectory) Groups(_ context.Context, id string) ([]string, error) {
	g, ok := d.groups[id[len("id-"):]]
	if !ok && d.err == nil {
		return nil, ErrNoSubject
	}
	return g, d.err
}

func (d *fakeDirectory) Information(_ context.Context, id string) (map[string]string, error) {
	return d.about[id], d.err
}

// external is a fixture whose host asks a directory.
func newExternal(t *testing.T) (*fixture, *fakeDirectory) {
	f := newFixture(t)
	d := &fakeDirectory{groups: map[string][]string{}, about: map[string]map[string]string{}}
	f.Manager.cfg.Directories = map[string]OpenFunc{"TEST": d.open}
	f.update(t, func(tx *db.Tx) error {
		h := api.NewHost()
		h.ExternalAuthType, h.ExternalAuthServiceName = "TEST", "example.com"
		h.ExternalAuthConfiguration = conceal(tx, map[string]string{"bind_password": "secret"})
		db.InsertAs(tx, f.cfg.ThisHost(), h)
		return nil
	})
	return f, d
}

func (f *fixture) update(t *testing.T, change func(*db.Tx) error) {
	t.Helper()
	if err := f.db.Update(t.Context(), change); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) subject(t *testing.T, id string, roles ...rbac.Role) (ref api.SubjectRef) {
	t.Helper()
	f.update(t, func(tx *db.Tx) error {
		s := api.NewSubject()
		s.SubjectIdentifier, s.Roles = id, nil
		for _, r := range roles {
			s.Roles = append(s.Roles, r.Ref())
		}
		ref = db.Insert(tx, s)
		return nil
	})
	return ref
}

func (f *fixture) loginAs(user, password string) (api.SessionRef, error) {
	return f.Login(context.Background(), user, password, "test", "")
}

func (f *fixture) mustLogin(t *testing.T, user string) api.SessionRef {
	t.Helper()
	ref, err := f.loginAs(user, "pw of "+user)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestExternalLogin(t *testing.T) {
	f, d := newExternal(t)
	f.subject(t, "id-alice", rbac.ReadOnly)
	f.subject(t, "operators", rbac.VMOperator)
	f.subject(t, "admins", rbac.ReadOnly, rbac.PoolOperator)
	f.subject(t, "id-powerless")
	f.subject(t, "guests")
	for user, groups := range map[string][]string{
		"alice": nil, "bob": {"operators", "else"}, "carol": {"operators", "admins"}, "alice2": {"admins"},
		"stranger": {"else"}, "powerless": {"guests"}, "gone": {"admins"}, "locked": {"admins"}, "expired": {"admins"}, "root": {"admins"},
	} {
		d.groups[user] = groups
	}
	d.about["id-gone"] = map[string]string{DisabledKey: "true"}
	d.about["id-locked"] = map[string]string{LockedKey: "true"}
	d.about["id-expired"] = map[string]string{ExpiredKey: "true"}
	for _, c := range []struct {
		user, password string
		role           rbac.Role
		code           string
	}{
		{"alice", "pw of alice", rbac.ReadOnly, ""},
		{"bob", "pw of bob", rbac.VMOperator, ""},
		{"carol", "pw of carol", rbac.PoolOperator, ""},
		{"alice", "wrong", 0, "SESSION_AUTHENTICATION_FAILED"},
		{"alice", "", 0, "SESSION_AUTHENTICATION_FAILED"},
		{"nobody", "x", 0, "SESSION_AUTHENTICATION_FAILED"},
		{"stranger", "pw of stranger", 0, "SESSION_AUTHORIZATION_FAILED"},
		{"powerless", "pw of powerless", 0, "SESSION_AUTHORIZATION_FAILED"},
		{"gone", "pw of gone", 0, "SESSION_AUTHORIZATION_FAILED"},
		{"locked", "pw of locked", 0, "SESSION_AUTHORIZATION_FAILED"},
		{"expired", "pw of expired", 0, "SESSION_AUTHORIZATION_FAILED"},
		{"root", "pw of root", 0, "SESSION_AUTHENTICATION_FAILED"}, // the directory has no say in root
	} {
		f.clock.slept = 0
		ref, err := f.loginAs(c.user, c.password)
		if codeOf(err) != c.code {
			t.Errorf("%s with %q: %v, want %q", c.user, c.password, err, c.code)
			continue
		}
		if late := f.clock.slept >= failureDelay; late != (c.code == "SESSION_AUTHENTICATION_FAILED") {
			t.Errorf("%s with %q is answered after %v", c.user, c.password, f.clock.slept)
		}
		if err != nil {
			continue
		}
		r, err := db.Get(f.db.Snapshot(), ref)
		if err != nil || r.IsLocalSuperuser || r.AuthUserSID != "id-"+c.user || r.AuthUserName != c.user || r.Subject == "" {
			t.Errorf("%s: %v, the record is %s", c.user, err, api.AppendRecord(nil, api.JSON, r))
		}
		if got := f.sessions[ref].role; got != c.role {
			t.Errorf("%s is %v, want %v", c.user, got, c.role)
		}
	}
	if d.opened != 1 {
		t.Errorf("the directory was opened %d times", d.opened)
	}
}

// A directory that cannot be asked is no wrong password, and root does without.
func TestDirectoryOutage(t *testing.T) {
	f, d := newExternal(t)
	d.groups["alice"] = nil
	d.err = errors.New("connection refused")
	for range 20 {
		f.clock.slept = 0
		if _, err := f.loginAs("alice", "pw of alice"); codeOf(err) != "SESSION_AUTHENTICATION_FAILED" || f.clock.slept != 0 {
			t.Fatalf("%v after %v", err, f.clock.slept)
		}
	}
	f.login(t, "")
	d.err = nil
	f.subject(t, "id-alice", rbac.VMAdmin)
	f.mustLogin(t, "alice")
}

func TestRevalidation(t *testing.T) {
	f, d := newExternal(t)
	f.subject(t, "admins", rbac.PoolAdmin)
	f.subject(t, "readers", rbac.ReadOnly)
	for _, user := range []string{"kept", "disabled", "deleted", "demoted", "stripped"} {
		d.groups[user] = []string{"admins"}
	}
	sessions := map[string]api.SessionRef{}
	for user := range d.groups {
		sessions[user] = f.mustLogin(t, user)
	}
	root := f.login(t, "")
	d.about["id-disabled"] = map[string]string{DisabledKey: "true"}
	delete(d.groups, "deleted")
	d.groups["demoted"] = []string{"readers"}
	d.groups["stripped"] = nil
	f.clock.Sleep(t.Context(), time.Hour)
	f.Revalidate(t.Context())
	for user, role := range map[string]rbac.Role{"kept": rbac.PoolAdmin, "demoted": rbac.ReadOnly, "disabled": 0, "deleted": 0, "stripped": 0} {
		err := f.Check(sessions[user])
		if (err == nil) != (role != 0) || err == nil && f.sessions[sessions[user]].role != role {
			t.Errorf("%s: %v, want %v", user, err, role)
		}
	}
	if r, err := db.Get(f.db.Snapshot(), sessions["kept"]); err != nil || !r.ValidationTime.Equal(f.clock.now) {
		t.Errorf("validated at %v, %v", r.ValidationTime, err)
	}
	if err := f.Check(root); err != nil {
		t.Errorf("root: %v", err)
	}

	d.err = errors.New("connection refused")
	for hour := range 30 {
		f.clock.Sleep(t.Context(), time.Hour)
		f.Revalidate(t.Context())
		if err := f.Check(sessions["kept"]); (err == nil) != (hour < 24) {
			t.Fatalf("after %d hours without the directory: %v", hour+1, err)
		}
	}
}

// When external authentication is turned off in the row, by whomever, nobody
// stays logged in by it.
func TestRevalidationWithoutDirectory(t *testing.T) {
	f, d := newExternal(t)
	d.groups["alice"] = nil
	f.subject(t, "id-alice", rbac.VMAdmin)
	alice := f.mustLogin(t, "alice")
	f.update(t, func(tx *db.Tx) error {
		h, err := db.Edit(tx, f.cfg.ThisHost())
		h.ExternalAuthType = ""
		return err
	})
	f.Revalidate(t.Context())
	if codeOf(f.Check(alice)) != "SESSION_INVALID" {
		t.Error("a session outlives the directory")
	}
	if _, err := f.loginAs("alice", "pw of alice"); codeOf(err) != "SESSION_AUTHENTICATION_FAILED" {
		t.Errorf("login: %v", err)
	}
}

// A change of the configuration opens the directory anew.
func TestDirectoryFollowsItsConfiguration(t *testing.T) {
	f, d := newExternal(t)
	d.groups["alice"] = nil
	f.subject(t, "id-alice", rbac.VMAdmin)
	for range 3 {
		f.mustLogin(t, "alice")
	}
	f.update(t, func(tx *db.Tx) error {
		h, err := db.Edit(tx, f.cfg.ThisHost())
		h.ExternalAuthConfiguration = conceal(tx, map[string]string{"bind_password": "secret", "new": "setting"})
		return err
	})
	f.mustLogin(t, "alice")
	if d.opened != 2 {
		t.Errorf("opened %d times", d.opened)
	}
}

func TestRunSweeps(t *testing.T) {
	f := newFixture(t)
	idle := f.login(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Manager.cfg.Clock = &limitedClock{f.clock, cancel, f.clock.now.Add(idleTimeout + time.Hour)}
	if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
	if _, err := db.Get(f.db.Snapshot(), idle); err == nil {
		t.Error("nobody ended an idle session")
	}
	if len(f.sessions) != 0 {
		t.Errorf("%d sessions are left", len(f.sessions))
	}
}

// limitedClock ends the run at a time.
type limitedClock struct {
	*fakeClock
	cancel context.CancelFunc
	end    time.Time
}

func (c *limitedClock) Sleep(ctx context.Context, d time.Duration) error {
	c.fakeClock.Sleep(ctx, d)
	if c.Now().After(c.end) {
		c.cancel()
	}
	return ctx.Err()
}

// The cap on all sessions bounds memory when each has an originator of its own.
func TestCapOnAllSessions(t *testing.T) {
	f := newFixture(t)
	for n := range maxSessions + 10 {
		p := principal{name: fmt.Sprint(n), sid: fmt.Sprint(n), role: rbac.ReadOnly}
		f.Manager.add(api.SessionRef(fmt.Sprint(n)), &state{principal: p, originator: fmt.Sprint(n), used: f.clock.now.Add(time.Duration(n))})
	}
	if len(f.counts) != 2*maxSessions {
		t.Errorf("%d counts", len(f.counts))
	}
	if len(f.sessions) != maxSessions || f.sessions["0"] != nil {
		t.Errorf("%d sessions, the first is %v", len(f.sessions), f.sessions["0"])
	}
}

func TestOwner(t *testing.T) {
	f, d := newExternal(t)
	d.groups["alice"], d.groups["operator"] = nil, nil
	f.subject(t, "id-alice", rbac.VMAdmin)
	f.subject(t, "id-operator", rbac.PoolOperator)
	for _, c := range []struct {
		session api.SessionRef
		user    string
		others  bool
	}{
		{f.login(t, ""), "root", true},
		{f.mustLogin(t, "alice"), "sid:id-alice", false},
		{f.mustLogin(t, "operator"), "sid:id-operator", true},
		{"OpaqueRef:x", "", false},
	} {
		if user, others := f.Owner(c.session); user != c.user || others != c.others {
			t.Errorf("%v is %q, %v, want %q, %v", c.session, user, others, c.user, c.others)
		}
	}
}
