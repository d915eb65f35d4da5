package task

import (
	"errors"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// TestOthersTasks: a user ends and changes his own tasks, in any of his sessions;
// those of others only with the role for it.
func TestOthersTasks(t *testing.T) {
	d, err := db.Open(t.Context(), db.NewMemory(), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	m := New(Config{DB: d, Who: func(s api.SessionRef) (string, bool) {
		return map[api.SessionRef]string{"OpaqueRef:a1": "ann", "OpaqueRef:a2": "ann", "OpaqueRef:b": "bob"}[s], s == "OpaqueRef:root"
	}})
	reg := api.NewRegistry()
	m.Register(reg)
	send := func(session api.SessionRef, method string, args ...api.Value) string {
		t.Helper()
		message := api.FindMessage(method)
		_, err := reg.Handler(message)(&api.Call{Context: t.Context(), Session: session, Message: message}, args)
		var known *api.Error
		if errors.As(err, &known) {
			return known.Error()
		}
		return ""
	}
	text := func(s string) api.Value { return api.Value{Kind: api.StringValue, Text: s} }
	running, err := m.Start(t.Context(), "Async.VM.start", "OpaqueRef:a1", true)
	if err != nil {
		t.Fatal(err)
	}
	ref := text(running.Ref().String())
	refused := func(permission string) string {
		return "RBAC_PERMISSION_DENIED [" + permission + "/any, the task belongs to another user]"
	}
	for _, c := range []struct {
		session api.SessionRef
		method  string
		args    []api.Value
		want    string
	}{
		{"OpaqueRef:b", "task.cancel", []api.Value{ref}, refused("task.cancel")},
		{"OpaqueRef:b", "task.destroy", []api.Value{ref}, refused("task.destroy")},
		{"OpaqueRef:b", "task.set_status", []api.Value{ref, text("success")}, refused("task.set_status")},
		{"OpaqueRef:b", "task.set_progress", []api.Value{ref, text("1")}, refused("task.set_progress")},
		{"OpaqueRef:b", "task.set_result", []api.Value{ref, text("x")}, refused("task.set_result")},
		{"OpaqueRef:b", "task.add_to_other_config", []api.Value{ref, text("k"), text("v")}, refused("task.add_to_other_config")},
		{"OpaqueRef:b", "task.cancel", []api.Value{text("OpaqueRef:none")}, "HANDLE_INVALID [task, OpaqueRef:none]"},
		{"OpaqueRef:a2", "task.add_to_other_config", []api.Value{ref, text("k"), text("v")}, ""},
		{"OpaqueRef:a2", "task.cancel", []api.Value{ref}, ""},
		{"OpaqueRef:root", "task.destroy", []api.Value{ref}, ""},
	} {
		if got := send(c.session, c.method, c.args...); got != c.want {
			t.Errorf("%s by %s: %q, want %q", c.method, c.session, got, c.want)
		}
	}
	if running.Context().Err() == nil {
		t.Error("the call was not cancelled")
	}
}
