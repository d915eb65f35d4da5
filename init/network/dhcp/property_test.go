package dhcp

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestNeverHoldsAnExpiredLease drives the machine with any events in any order.
func TestNeverHoldsAnExpiredLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim()
		s.did(s.m.Start(s.now))
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			held := s.m.Lease()
			actions := randomEvent(t, s)
			s.did(actions)
			check(t, s, held, actions)
		}
	})
}

func randomEvent(t *rapid.T, s *sim) []Action {
	switch rapid.IntRange(0, 4).Draw(t, "event") {
	case 0:
		return s.m.LinkUp(s.now)
	case 1, 2: // time passes, to the deadline at most: the manager's timer fires then
		step := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "time"))
		s.now = s.now.Add(step)
		if d := s.m.Deadline(); !d.IsZero() && s.now.After(d) {
			s.now = d
		}
		return s.m.Tick(s.now)
	default:
		r := Reply{
			Type:     rapid.SampledFrom([]Type{Offer, Ack, Nak}).Draw(t, "type"),
			XID:      s.last.XID + uint32(rapid.IntRange(0, 8).Draw(t, "xid")/8),
			Address:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(1, 3).Draw(t, "addr"))}), 24),
			Server:   netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(1, 2).Draw(t, "server"))}),
			Duration: max(time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "lease")), minDuration),
			T1:       time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "t1")),
			T2:       time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "t2")),
		}
		return s.m.Receive(s.now, r)
	}
}

func check(t *rapid.T, s *sim, held *Lease, actions []Action) {
	l := s.m.Lease()
	if l != nil && !l.Expires.IsZero() && !s.now.Before(l.Expires) {
		t.Fatalf("holds a lease that expired at %s, now %s", s.rel(l.Expires), s.rel(s.now))
	}
	if d := s.m.Deadline(); d.IsZero() || d.Before(s.now) {
		t.Fatalf("in state %s the deadline is %s, now %s", s.m.State(), s.rel(d), s.rel(s.now))
	}
	if l != nil && s.m.Deadline().After(l.Expires) {
		t.Fatalf("would sleep past the expiry of its lease")
	}
	said := false
	for _, a := range actions {
		lost, ok := a.(Lost)
		said = said || ok && held != nil && lost.Address == held.Address
	}
	gone := held != nil && (l == nil || l.Address != held.Address)
	if gone != said {
		t.Fatalf("address gone: %v, said so: %v", gone, said)
	}
}
