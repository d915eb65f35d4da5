package session

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// fakeClock moves only when told, and remembers what it was asked to wait for.
type fakeClock struct {
	mu    sync.Mutex
	now   time.Time
	slept time.Duration
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.slept = c.now.Add(d), c.slept+d
	return ctx.Err()
}

type fixture struct {
	*Manager
	clock    *fakeClock
	db       *db.DB
	hash     string
	verified int
}

func newFixture(t *testing.T) *fixture {
	d, err := db.Open(t.Context(), db.NewMemory(), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	f := &fixture{clock: &fakeClock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, db: d, hash: "hash of right"}
	f.Manager = New(Config{
		DB:       d,
		RootHash: func(context.Context) (string, error) { return f.hash, nil },
		Verify: func(hash, password string) bool {
			f.verified++
			return hash == "hash of "+password
		},
		ThisHost: func() api.HostRef { return "OpaqueRef:host" },
		Clock:    f.clock,
	})
	return f
}

func (f *fixture) login(t *testing.T, originator string) api.SessionRef {
	t.Helper()
	ref, err := f.Login(t.Context(), "root", "right", originator, "")
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func codeOf(err error) string {
	var known *api.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return ""
}

func TestLogin(t *testing.T) {
	f := newFixture(t)
	ref := f.login(t, "xe")
	if err := f.Check(ref); err != nil {
		t.Error(err)
	}
	r, err := db.Get(f.db.Snapshot(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if r.ThisHost != "OpaqueRef:host" || !r.IsLocalSuperuser || r.AuthUserName != "root" || r.Originator != "xe" || r.UUID == "" {
		t.Errorf("record is %s", api.AppendRecord(nil, api.JSON, r))
	}
	f.Logout(ref)
	if codeOf(f.Check(ref)) != "SESSION_INVALID" {
		t.Error("the session outlives its logout")
	}
	if _, err := db.Get(f.db.Snapshot(), ref); err == nil {
		t.Error("the record outlives the logout")
	}
	f.Logout(ref)
}

func TestWrongPasswordIsSlow(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct{ user, password string }{{"root", "wrong"}, {"root", ""}, {"admin", "right"}} {
		f.clock.slept = 0
		_, err := f.Login(t.Context(), c.user, c.password, "", "")
		if codeOf(err) != "SESSION_AUTHENTICATION_FAILED" || f.clock.slept != failureDelay {
			t.Errorf("%s/%s: %v after %v", c.user, c.password, err, f.clock.slept)
		}
	}
	f.hash = ""
	if _, err := f.Login(t.Context(), "root", "right", "", ""); codeOf(err) != "SESSION_AUTHENTICATION_FAILED" {
		t.Errorf("login without a password set: %v", err)
	}
}

// argon2 is slow by design; the same password need not pay twice, a changed one
// must.
func TestRightPasswordIsVerifiedOnce(t *testing.T) {
	f := newFixture(t)
	f.login(t, "a")
	f.login(t, "b")
	if f.verified != 1 {
		t.Errorf("verified %d times", f.verified)
	}
	f.hash = "hash of other"
	if _, err := f.Login(t.Context(), "root", "right", "", ""); codeOf(err) != "SESSION_AUTHENTICATION_FAILED" {
		t.Errorf("old password after a change: %v", err)
	}
}

func TestIdleSessionsExpire(t *testing.T) {
	f := newFixture(t)
	idle, used := f.login(t, ""), f.login(t, "")
	for range 30 {
		f.clock.Sleep(t.Context(), time.Hour)
		if err := f.Check(used); err != nil {
			t.Fatal(err)
		}
	}
	if codeOf(f.Check(idle)) != "SESSION_INVALID" {
		t.Error("a session lives after a day without use")
	}
	r, err := db.Get(f.db.Snapshot(), used)
	if err != nil || f.clock.now.Sub(r.LastActive) > lastActiveStep {
		t.Errorf("last active %v, now %v, %v", r.LastActive, f.clock.now, err)
	}
}

func TestCapClosesTheLeastRecentlyUsed(t *testing.T) {
	f := newFixture(t)
	first := f.login(t, "many")
	second := f.login(t, "many")
	f.clock.Sleep(t.Context(), time.Second)
	f.Check(first)
	for range maxPerOriginator - 1 {
		f.clock.Sleep(t.Context(), time.Second)
		f.login(t, "many")
	}
	if err := f.Check(first); err != nil {
		t.Errorf("a session in use was closed: %v", err)
	}
	if codeOf(f.Check(second)) != "SESSION_INVALID" {
		t.Error("the least recently used session was kept over the cap")
	}
	if n := f.db.Snapshot().Count(api.ClassOf[api.Session]()); n != maxPerOriginator {
		t.Errorf("%d session records", n)
	}
}
