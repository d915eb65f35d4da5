package session

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// at is a door whose time is moved by hand.
func newTestDoor() (*door, *time.Time) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return newDoor(func() time.Time { return now }), &now
}

// try lets one attempt in and out, and answers how long it had to wait and how
// late the answer is.
func (d *door) try(t *testing.T, user, remote string, right bool) (wait, delay time.Duration) {
	t.Helper()
	a, err := d.enter(user, remote)
	if err != nil {
		t.Fatalf("%s from %s: %v", user, remote, err)
	}
	defer a.leave()
	if right {
		a.succeeded()
		return a.wait, 0
	}
	delay, _ = a.failed()
	return a.wait, delay
}

func TestDelaysGrow(t *testing.T) {
	d, now := newTestDoor()
	const remote = "192.0.2.1:1000"
	for n, want := range []time.Duration{5, 5, 5, 10, 20, 30, 30, 30} {
		if _, delay := d.try(t, "root", remote, false); delay != want*time.Second {
			t.Errorf("answer %d is %v late, want %v", n+1, delay, want*time.Second)
		}
		*now = now.Add(time.Minute)
	}
	*now = now.Add(memory)
	if _, delay := d.try(t, "root", remote, false); delay != failureDelay {
		t.Errorf("after a pause the delay is %v", delay)
	}
	*now = now.Add(time.Minute)
	d.try(t, "root", remote, true)
	if _, delay := d.try(t, "root", remote, false); delay != failureDelay {
		t.Errorf("after a success the delay is %v", delay)
	}
}

// An attacker makes nobody wait but himself.
func TestOthersDoNotWait(t *testing.T) {
	d, now := newTestDoor()
	for range 10 {
		d.try(t, "root", "192.0.2.1:1000", false)
		*now = now.Add(time.Minute)
	}
	d.try(t, "root", "192.0.2.1:1000", false)
	for _, c := range []struct {
		user, remote string
		waits        bool
	}{
		{"root", "192.0.2.1:2000", true}, // another connection of his
		{"root", "192.0.2.2:1000", false},
		{"root", "127.0.0.1:1000", false},
		{"root", "[::1]:1000", false},
		{"alice", "192.0.2.1:1000", false},
	} {
		wait, _ := d.try(t, c.user, c.remote, true)
		if (wait > 0) != c.waits || wait > maxDelay {
			t.Errorf("%s from %s waits %v", c.user, c.remote, wait)
		}
	}
}

// Guessing on many connections at once gets no more answers than on one.
func TestParallelGuessesWaitForTheirTurn(t *testing.T) {
	d, _ := newTestDoor()
	d.try(t, "root", "192.0.2.1:1", false)
	var waits []time.Duration
	for n := range maxWaitingPair {
		a, err := d.enter("root", fmt.Sprintf("192.0.2.1:%d", n))
		if err != nil {
			t.Fatal(err)
		}
		defer a.leave()
		waits = append(waits, a.wait)
	}
	for n, w := range waits {
		if want := time.Duration(n+1) * failureDelay; w != want {
			t.Errorf("attempt %d waits %v, want %v", n, w, want)
		}
	}
	if _, err := d.enter("root", "192.0.2.1:9"); err != errBusy {
		t.Errorf("one too many: %v", err)
	}
}

func TestWaitingIsBounded(t *testing.T) {
	d, _ := newTestDoor()
	let := func(user, remote string) int {
		n := 0
		for range 10 * maxWaiting {
			if _, err := d.enter(user, remote); err != nil {
				break
			}
			n++
		}
		return n
	}
	if n := let("root", "192.0.2.1:1"); n != maxWaitingPair {
		t.Errorf("%d of one pair", n)
	}
	for n := range 20 {
		d.enter(fmt.Sprint(n), "192.0.2.1:1")
	}
	if n := d.hosts["192.0.2.1"].waiting; n != maxWaitingHost {
		t.Errorf("%d of one host", n)
	}
	for n := range 3 * maxWaiting {
		d.enter("root", fmt.Sprintf("10.0.%d.%d:1", n/256, n%256))
	}
	if d.waiting != 2*maxWaiting {
		t.Errorf("%d in all", d.waiting)
	}
	if n := let("root", "127.0.0.1:1"); n != 10*maxWaiting {
		t.Errorf("on this host %d are let in", n)
	}
}

// What is remembered is bounded, and who waits is not forgotten.
func TestMemoryIsBounded(t *testing.T) {
	d, now := newTestDoor()
	waiting, err := d.enter("root", "192.0.2.1:1")
	if err != nil {
		t.Fatal(err)
	}
	for n := range maxRememberedKey + 100 {
		*now = now.Add(time.Second)
		d.try(t, fmt.Sprint("user", n), fmt.Sprintf("10.%d.%d.%d:1", n>>16, n>>8&255, n&255), false)
	}
	if len(d.pairs) > maxRememberedKey || len(d.hosts) > maxRememberedKey {
		t.Errorf("%d pairs and %d hosts are remembered", len(d.pairs), len(d.hosts))
	}
	waiting.failed()
	waiting.leave()
	if d.waiting != 0 {
		t.Errorf("%d wait", d.waiting)
	}
}

func TestHostOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:5000": "192.0.2.1", "192.0.2.1": "192.0.2.1", "[::ffff:192.0.2.1]:1": "192.0.2.1",
		"[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64", "[2001:db8:1:2:ffff::]:81": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1": "fe80::/64", "127.0.0.1:1": "", "[::1]:1": "", "@": "", "": "",
	} {
		if got := hostOf(remote); got != want {
			t.Errorf("%s is %q, want %q", remote, got, want)
		}
	}
}

// A directory may take all of these for one user, so the door does.
func TestOneSpelling(t *testing.T) {
	for _, name := range []string{"Bob", "BOB", " bob", "bob\t", "bob"} {
		if got := oneSpelling(name); got != "bob" {
			t.Errorf("%q is %q", name, got)
		}
	}
	if oneSpelling("Jane  Doe ") != "jane doe" {
		t.Error("spaces within a name count")
	}
}

// Names and passwords of any size cost nothing that stays.
func TestLongNames(t *testing.T) {
	f := newFixture(t)
	long := strings.Repeat("x", 300<<10)
	for _, c := range [][2]string{{long, "right"}, {"root", long}, {"", ""}} {
		if _, err := f.Login(t.Context(), c[0], c[1], long, "192.0.2.1:1"); codeOf(err) != "SESSION_AUTHENTICATION_FAILED" {
			t.Errorf("%.10s with %.10s: %v", c[0], c[1], err)
		}
	}
	if f.verified != 0 {
		t.Errorf("%d passwords were looked at", f.verified)
	}
	for p := range f.door.pairs {
		if len(p.user) > maxName {
			t.Errorf("a name of %d bytes is remembered", len(p.user))
		}
	}
	ref, err := f.Login(t.Context(), "root", "right", long, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := f.sessions[ref].originator; len(got) != maxName {
		t.Errorf("an originator of %d bytes is kept", len(got))
	}
}

// The log hears of a flood, but is not flooded.
func TestRefusalsAreTold(t *testing.T) {
	d, now := newTestDoor()
	if n, tell := d.refusals(); n != 1 || !tell {
		t.Errorf("the first: %d, %v", n, tell)
	}
	for range 100 {
		if n, tell := d.refusals(); tell {
			t.Fatalf("%d told at once", n)
		}
	}
	*now = now.Add(refusalsTold)
	if n, tell := d.refusals(); n != 101 || !tell {
		t.Errorf("later: %d, %v", n, tell)
	}
}
