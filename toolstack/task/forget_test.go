package task

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// inBubble runs f with a running manager in virtual time.
func inBubble(t *testing.T, f func(m *Manager, create func(status api.TaskStatusType) api.TaskRef)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d, err := db.Open(t.Context(), db.NewMemory(), db.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		m := New(Config{DB: d})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { m.Run(ctx); close(done) }()
		f(m, func(status api.TaskStatusType) api.TaskRef {
			ref, err := m.create(&api.Call{Context: ctx, Message: api.FindMessage("task.create")}, "a task", "")
			if err == nil {
				err = m.setStatus(&api.Call{Context: ctx, Message: api.FindMessage("task.create")}, ref, status)
			}
			if err != nil {
				t.Fatal(err)
			}
			return ref
		})
		cancel()
		<-done
	})
}

func (m *Manager) has(ref api.TaskRef) bool {
	synctest.Wait()
	_, err := db.Get(m.cfg.DB.Snapshot(), ref)
	return err == nil
}

func TestOldTasksAreForgotten(t *testing.T) {
	inBubble(t, func(m *Manager, create func(api.TaskStatusType) api.TaskRef) {
		done, failed, pending := create("success"), create("failure"), create("pending")
		call, err := m.Start(context.Background(), "Async.VM.export", "", true)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(65*time.Minute - time.Second)
		if !m.has(done) || !m.has(failed) || !m.has(pending) {
			t.Error("a task was forgotten early")
		}
		late := create("success")
		time.Sleep(2 * time.Second)
		if m.has(done) || m.has(failed) || !m.has(late) || !m.has(pending) {
			t.Error("65 minutes after their end: the ended tasks are kept, or others are not")
		}
		time.Sleep(24*time.Hour - 65*time.Minute - 2*time.Second)
		if !m.has(pending) || m.has(late) {
			t.Error("just before a day has passed")
		}
		time.Sleep(2 * time.Second)
		if m.has(pending) || !m.has(call.Ref()) {
			t.Error("after a day: pending tasks are kept, or that of a call is not")
		}
		call.Finish("", nil)
		time.Sleep(66 * time.Minute)
		if m.has(call.Ref()) || len(m.owners) != 0 {
			t.Errorf("something is left: owners %v", m.owners)
		}
	})
}

func TestTooManyTasks(t *testing.T) {
	inBubble(t, func(m *Manager, create func(api.TaskStatusType) api.TaskRef) {
		first := create("success")
		var pending []api.TaskRef
		for range maxTasks - 1 {
			time.Sleep(time.Second)
			pending = append(pending, create("pending"))
		}
		if !m.has(first) {
			t.Error("forgotten although there is room")
		}
		last := create("success")
		if m.has(first) || !m.has(last) {
			t.Error("not the oldest ended task had to go")
		}
		for range 3 {
			pending = append(pending, create("pending"))
		}
		for _, ref := range pending {
			if !m.has(ref) {
				t.Fatal("a pending task was forgotten")
			}
		}
	})
}
