package event_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/event"
	"cairn/toolstack/wire/wiretest"
)

type batch struct {
	Events []struct {
		ID        string
		Timestamp string
		Class     string
		Operation string
		Ref       string
		Snapshot  map[string]any
	}
	Counts map[string]int `json:"valid_ref_counts"`
	Token  string
}

func (b *batch) String() string {
	var parts []string
	for _, e := range b.Events {
		parts = append(parts, e.Operation+" "+e.Class+" "+e.Ref)
	}
	return strings.Join(parts, ", ")
}

func edit(t *testing.T, d *db.DB, f func(tx *db.Tx)) {
	t.Helper()
	if err := d.Update(t.Context(), func(tx *db.Tx) error { f(tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

func network(tx *db.Tx, ref api.NetworkRef) {
	n := api.NewNetwork()
	n.NameLabel = string(ref)
	db.InsertAs(tx, ref, n)
}

func TestFromTellsEachObjectOnce(t *testing.T) {
	s := wiretest.New(t, nil)
	edit(t, s.DB, func(tx *db.Tx) { network(tx, "OpaqueRef:a"); network(tx, "OpaqueRef:b") })
	var first, second, none batch
	s.Must(&first, "event.from", []string{"Network"}, "", 10.0)
	if len(first.Events) != 2 || first.Events[0].Operation != "add" || first.Events[0].Timestamp != "0.0" || first.Counts["network"] != 2 {
		t.Errorf("first: %+v", first)
	}
	edit(t, s.DB, func(tx *db.Tx) { network(tx, "OpaqueRef:c"); db.Delete(tx, api.NetworkRef("OpaqueRef:b")) })
	edit(t, s.DB, func(tx *db.Tx) { n, _ := db.Edit(tx, api.NetworkRef("OpaqueRef:a")); n.MTU = 9000 })
	edit(t, s.DB, func(tx *db.Tx) { n, _ := db.Edit(tx, api.NetworkRef("OpaqueRef:c")); n.MTU = 9001 })
	s.Must(&second, "event.from", []string{"*"}, first.Token, 10.0)
	if got := second.String(); got != "add network OpaqueRef:c, mod network OpaqueRef:a, del network OpaqueRef:b" {
		t.Errorf("second: %s", got)
	}
	if second.Events[0].Snapshot["MTU"] != 9001.0 || second.Events[2].Snapshot != nil {
		t.Errorf("snapshots: %v, %v", second.Events[0].Snapshot["MTU"], second.Events[2].Snapshot)
	}
	s.Must(&none, "event.from", []string{"network", "vm"}, second.Token, 0)
	if len(none.Events) != 0 || none.Token != second.Token {
		t.Errorf("after everything: %+v", none)
	}
	s.Covers("event.from")
}

func TestFromWaits(t *testing.T) {
	s := wiretest.New(t, nil)
	edit(t, s.DB, func(tx *db.Tx) { network(tx, "OpaqueRef:a"); network(tx, "OpaqueRef:b") })
	var token string
	s.Must(&token, "event.inject", "network", "OpaqueRef:a")
	var injected, waited batch
	s.Must(&injected, "event.from", []string{"network/OpaqueRef:a"}, token, 10.0)
	if injected.String() != "mod network OpaqueRef:a" {
		t.Errorf("injected: %s", &injected)
	}
	got := make(chan struct{})
	go func() {
		defer close(got)
		s.Must(&waited, "event.from", []string{"network/OpaqueRef:b", "pool"}, injected.Token, 60.0)
	}()
	edit(t, s.DB, func(tx *db.Tx) { n, _ := db.Edit(tx, api.NetworkRef("OpaqueRef:a")); n.MTU = 9 })
	edit(t, s.DB, func(tx *db.Tx) { n, _ := db.Edit(tx, api.NetworkRef("OpaqueRef:b")); n.MTU = 9 })
	select {
	case <-got:
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
	}
	if waited.String() != "mod network OpaqueRef:b" {
		t.Errorf("waited: %s", &waited)
	}
	s.Covers("event.inject")
}

func TestCurrentID(t *testing.T) {
	s := wiretest.New(t, nil)
	var before, after int64
	s.Must(&before, "event.get_current_id")
	edit(t, s.DB, func(tx *db.Tx) { network(tx, "OpaqueRef:a") })
	s.Must(&after, "event.get_current_id")
	if before <= 0 || after <= before {
		t.Errorf("%d, and after a change %d", before, after)
	}
	s.Covers("event.get_current_id")
}

func TestLogoutEndsTheStream(t *testing.T) {
	s := wiretest.New(t, nil)
	var current batch
	s.Must(&current, "event.from", []string{"vm"}, "", 0)
	done := make(chan error)
	go func() {
		_, err := s.Call("event.from", []string{"vm"}, current.Token, 60.0)
		done <- err
	}()
	s.Must(nil, "session.logout")
	select {
	case err := <-done:
		var known *api.Error
		if !errors.As(err, &known) || known.Code != "SESSION_INVALID" {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the stream outlives its session")
	}
}

func TestClassesWithoutEventsNeverAppear(t *testing.T) {
	s := wiretest.New(t, nil)
	var all batch
	s.Must(&all, "event.from", []string{"*", "session"}, "", 0)
	if len(all.Events) != 0 {
		t.Errorf("events: %s", &all)
	}
	if _, ok := all.Counts["session"]; ok || len(all.Counts) < 50 {
		t.Errorf("counts: %v", all.Counts)
	}
}

func TestBadRequests(t *testing.T) {
	s := wiretest.New(t, nil)
	for _, c := range []struct {
		want, token string
		classes     []string
	}{
		{"EVENT_FROM_TOKEN_PARSE_FAILURE", "yesterday", nil},
		{"EVENT_FROM_TOKEN_PARSE_FAILURE", "1", nil},
		{"EVENT_SUBSCRIPTION_PARSE_FAILURE", "", []string{"vm", "a/b/c"}},
		{"EVENT_SUBSCRIPTION_PARSE_FAILURE", "", []string{""}},
		{"EVENTS_LOST", event.Token{Generation: 1 << 62}.String(), []string{"*"}},
	} {
		if c.classes == nil {
			c.classes = []string{"*"}
		}
		_, err := s.Call("event.from", c.classes, c.token, 0)
		var known *api.Error
		if !errors.As(err, &known) || known.Code != c.want {
			t.Errorf("%v, %q: %v, want %s", c.classes, c.token, err, c.want)
		}
	}
	var known *api.Error
	if _, err := s.Call("event.inject", "VM", "OpaqueRef:x"); !errors.As(err, &known) || !slices.Equal(known.Params, []string{"VM", "OpaqueRef:x"}) {
		t.Error(err)
	}
}

func vm(tx *db.Tx, ref api.VMRef) {
	r := api.NewVM()
	r.NameLabel = string(ref)
	db.InsertAs(tx, ref, r)
}

func code(err error) string {
	var known *api.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return ""
}

func TestRegisteredEvents(t *testing.T) {
	s := wiretest.New(t, nil)
	if _, err := s.Call("event.next"); code(err) != "SESSION_NOT_REGISTERED" {
		t.Errorf("before: %v", err)
	}
	if _, err := s.Call("event.register", []string{"a/b/c"}); code(err) != "EVENT_SUBSCRIPTION_PARSE_FAILURE" {
		t.Errorf("nonsense: %v", err)
	}
	edit(t, s.DB, func(tx *db.Tx) { vm(tx, "OpaqueRef:vm1"); network(tx, "OpaqueRef:network1") })
	s.Must(nil, "event.register", []string{"VM"})
	s.Must(nil, "event.register", []string{"Network/OpaqueRef:network1"})
	edit(t, s.DB, func(tx *db.Tx) {
		vm(tx, "OpaqueRef:vm2")
		network(tx, "OpaqueRef:network2")
		db.Edit(tx, api.NetworkRef("OpaqueRef:network1"))
		db.Delete(tx, api.VMRef("OpaqueRef:vm1"))
	})
	var events []struct {
		Operation, Class, Ref string
		Snapshot              map[string]any
	}
	s.Must(&events, "event.next")
	var told []string
	for _, e := range events {
		told = append(told, e.Operation+" "+e.Class+" "+e.Ref)
	}
	if got := strings.Join(told, ", "); got != "add vm OpaqueRef:vm2, mod network OpaqueRef:network1, del vm OpaqueRef:vm1" {
		t.Errorf("told %s", got)
	}
	if events[0].Snapshot["name_label"] != "OpaqueRef:vm2" {
		t.Errorf("record is %v", events[0].Snapshot)
	}
	s.Must(nil, "event.unregister", []string{"vm"})
	edit(t, s.DB, func(tx *db.Tx) {
		db.Edit(tx, api.VMRef("OpaqueRef:vm2"))
		db.Edit(tx, api.NetworkRef("OpaqueRef:network1"))
	})
	s.Must(&events, "event.next")
	if len(events) != 1 || events[0].Class != "network" {
		t.Errorf("without VMs: %v", events)
	}
	s.Must(nil, "event.unregister", []string{"network/OpaqueRef:network1"})
	if _, err := s.Call("event.next"); code(err) != "SESSION_NOT_REGISTERED" {
		t.Errorf("after: %v", err)
	}
	s.Covers("event.register", "event.unregister", "event.next")
}
