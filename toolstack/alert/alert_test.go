package alert

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

type record struct {
	UUID, Name, Cls, Body string
	Priority              int64
	ObjUUID               string `json:"obj_uuid"`
}

func code(err error) string {
	var known *api.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return ""
}

// server has a pool with a known uuid, and a clock the test moves.
func server(t *testing.T) (*wiretest.Server, *Manager, *time.Time) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var m *Manager
	s := wiretest.New(t, func(r *api.Registry, d *db.DB) {
		m = New(d)
		m.now = func() time.Time { return now }
		m.Register(r)
	})
	err := s.DB.Update(t.Context(), func(tx *db.Tx) error {
		p := api.NewPool()
		p.UUID = "a-pool"
		db.Insert(tx, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, m, &now
}

func TestMessages(t *testing.T) {
	s, _, now := server(t)
	create := func(name string) string {
		t.Helper()
		var ref string
		s.Must(&ref, "message.create", name, 3, "Pool", "a-pool", "body of "+name)
		return ref
	}
	first := create("first")
	*now = now.Add(time.Hour)
	second, third := create("second"), create("third")
	var r record
	s.Must(&r, "message.get_record", first)
	if r.Name != "first" || r.Priority != 3 || r.Cls != "Pool" || r.ObjUUID != "a-pool" || r.Body != "body of first" {
		t.Errorf("record %+v", r)
	}
	var ref string
	s.Must(&ref, "message.get_by_uuid", r.UUID)
	if ref != first {
		t.Errorf("by uuid: %s, want %s", ref, first)
	}
	expect := func(want []string, method string, args ...any) {
		t.Helper()
		found := map[string]record{}
		s.Must(&found, method, args...)
		if len(found) != len(want) {
			t.Errorf("%s %v: %v", method, args, found)
		}
		for _, ref := range want {
			if _, ok := found[ref]; !ok {
				t.Errorf("%s %v lacks %s", method, args, ref)
			}
		}
	}
	expect([]string{first, second, third}, "message.get_all_records")
	expect([]string{second, third}, "message.get_since", "20260102T03:30:00Z")
	expect([]string{second, third}, "message.get", "Pool", "a-pool", "20260102T04:04:05Z")
	expect(nil, "message.get", "VM", "a-pool", "20200102T03:30:00Z")
	expect([]string{second}, "message.get_all_records_where", `field "name" = "second"`)
	var refs []string
	s.Must(&refs, "message.get_all")
	if !slices.Equal(slices.Sorted(slices.Values(refs)), slices.Sorted(slices.Values([]string{first, second, third}))) {
		t.Errorf("all: %v", refs)
	}
	s.Covers("message.create", "message.get_record", "message.get_by_uuid", "message.get_all_records", "message.get_since",
		"message.get", "message.get_all_records_where", "message.get_all")
}

func TestBadMessages(t *testing.T) {
	s, _, _ := server(t)
	for _, c := range []struct {
		want, method string
		args         []any
	}{
		{"UUID_INVALID", "message.create", []any{"name", 3, "Pool", "no-pool", ""}},
		{"FIELD_TYPE_ERROR", "message.create", []any{"name", 3, "Nonsense", "a-pool", ""}},
		{"INVALID_VALUE", "message.create", []any{"name", 0, "Pool", "a-pool", ""}},
		{"INVALID_VALUE", "message.create", []any{"name", 6, "Pool", "a-pool", ""}},
		{"INVALID_VALUE", "message.create", []any{"name", -1, "Pool", "a-pool", ""}},
		{"INVALID_VALUE", "message.create", []any{"name\r\nBcc: x@example.org", 3, "Pool", "a-pool", ""}},
		{"INVALID_VALUE", "message.create", []any{"na\tme", 3, "Pool", "a-pool", ""}},
		{"INVALID_VALUE", "message.create", []any{"name\u0085", 3, "Pool", "a-pool", ""}},
		{"HANDLE_INVALID", "message.destroy", []any{"OpaqueRef:none"}},
		{"HANDLE_INVALID", "message.get_record", []any{"OpaqueRef:none"}},
		{"UUID_INVALID", "message.get_by_uuid", []any{"none"}},
		{"INVALID_VALUE", "message.destroy_all", []any{map[string]string{"colour": "red"}}},
		{"INVALID_VALUE", "message.destroy_all", []any{map[string]string{"before": "yesterday"}}},
		{"INVALID_VALUE", "message.get_all_records_where", []any{"field"}},
	} {
		if _, err := s.Call(c.method, c.args...); code(err) != c.want {
			t.Errorf("%s %v: %v, want %s", c.method, c.args, err, c.want)
		}
	}
	if n := s.DB.Snapshot().Count(api.ClassOf[api.Message]()); n != 0 {
		t.Errorf("refused calls made %d messages", n)
	}
	for priority := range 5 {
		s.Must(nil, "message.create", "näme", priority+1, "Pool", "a-pool", "body\r\n\twith lines")
	}
}

func TestDestroy(t *testing.T) {
	s, _, now := server(t)
	create := func(name string) string {
		t.Helper()
		var ref string
		s.Must(&ref, "message.create", name, 3, "Pool", "a-pool", "")
		return ref
	}
	left := func(want int) {
		t.Helper()
		if n := s.DB.Snapshot().Count(api.ClassOf[api.Message]()); n != want {
			t.Errorf("%d messages are left, want %d", n, want)
		}
	}
	a, b, c := create("a"), create("b"), create("c")
	s.Must(nil, "message.destroy", a)
	left(2)
	if _, err := s.Call("message.destroy_many", []string{b, a}); code(err) != "HANDLE_INVALID" {
		t.Error(err)
	}
	left(2)
	s.Must(nil, "message.destroy_many", []string{b, c})
	left(0)
	create("old")
	*now = now.Add(time.Hour)
	create("new")
	create("other")
	s.Must(nil, "message.destroy_all", map[string]string{"before": "20260102T03:30:00Z", "cls": "Pool"})
	left(2)
	s.Must(nil, "message.destroy_all", map[string]string{"name": "new", "priority": "3", "obj_uuid": "a-pool", "after": "20260102T03:30:00Z"})
	left(1)
	s.Must(nil, "message.destroy_all", map[string]string{})
	left(0)
	s.Covers("message.destroy", "message.destroy_many", "message.destroy_all")
}

// TestEvents: messages ride the event stream.
func TestEvents(t *testing.T) {
	s, m, _ := server(t)
	var batch struct {
		Token  string
		Events []struct {
			Class, Operation string
			Snapshot         record
		}
	}
	s.Must(&batch, "event.from", []string{"*"}, "", 0.0)
	if _, err := m.Raise(t.Context(), "VM_CRASHED", api.ClsPool, "a-pool", "why"); err != nil {
		t.Fatal(err)
	}
	s.Must(&batch, "event.from", []string{"message"}, batch.Token, 10.0)
	if len(batch.Events) != 1 || batch.Events[0].Operation != "add" || batch.Events[0].Snapshot.Name != "VM_CRASHED" || batch.Events[0].Snapshot.Priority != 2 {
		t.Errorf("events %+v", batch.Events)
	}
}

// TestKeptWithinBounds: messages outlive a restart, and the oldest give way.
func TestKeptWithinBounds(t *testing.T) {
	engine := db.NewMemory()
	open := func() *db.DB {
		t.Helper()
		d, err := db.Open(context.Background(), engine, db.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open()
	m := New(d)
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	err := d.Update(t.Context(), func(tx *db.Tx) error {
		for i := range maxMessages {
			db.Insert(tx, &api.Message{Name: "old", Timestamp: begin.Add(time.Duration(i) * time.Second)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Raise(t.Context(), "VM_STARTED", api.ClsVM, "x", ""); err != nil {
		t.Fatal(err)
	}
	d.Close()
	d = open()
	defer d.Close()
	m = New(d)
	found := m.find(func(r *api.Message) bool { return r.Timestamp.Equal(begin) || r.Name == "VM_STARTED" })
	if n := d.Snapshot().Count(api.ClassOf[api.Message]()); n != maxMessages || len(found) != 1 {
		t.Errorf("%d messages are kept, %d of the oldest and the newest", n, len(found))
	}
	if _, err := m.Raise(t.Context(), "VM_STARTED", api.ClsVM, "x", strings.Repeat("x", maxBytes-100)); err != nil {
		t.Fatal(err)
	}
	if n := d.Snapshot().Count(api.ClassOf[api.Message]()); n > 40 {
		t.Errorf("%d messages beside a very long one", n)
	}
}
