package task

import (
	"context"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Adopt makes a task that a client created the task of a transfer: the
// transfer's end is its end, and cancelling it cancels the transfer.
func (m *Manager) Adopt(ctx context.Context, ref api.TaskRef) (*Running, error) {
	t := &Running{m: m, ref: ref, async: true}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	err := m.adopt(t)
	if err != nil {
		t.cancel(nil)
		return nil, err
	}
	return t, nil
}

func (m *Manager) adopt(t *Running) error {
	r, err := db.Get(m.cfg.DB.Snapshot(), t.ref)
	switch {
	case err != nil:
		return err
	case r.Status == api.TaskStatusTypeCancelled || r.Status == api.TaskStatusTypeCancelling:
		return api.ErrTaskCancelled(t.ref.String())
	case ended(r.Status):
		return api.ErrOperationNotAllowed("the task has ended")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running[t.ref] != nil {
		return api.ErrOperationNotAllowed("the task belongs to another call")
	}
	m.running[t.ref] = t
	return nil
}

// StartUnder is Start for a part of another task.
func (m *Manager) StartUnder(ctx context.Context, parent api.TaskRef, label string) (*Running, error) {
	if _, err := db.Get(m.cfg.DB.Snapshot(), parent); err != nil {
		return nil, err
	}
	t, err := m.Start(ctx, label, "", false)
	if err != nil {
		return nil, err
	}
	err = m.edit(t.ref, func(r *api.Task) error { r.SubtaskOf = parent; return nil })
	if err != nil {
		t.Finish("", err)
		return nil, err
	}
	return t, nil
}

// Leave lets go of the task without ending it: another host serves what it is
// for. A task that nobody else has ends.
func (t *Running) Leave() {
	if !t.async {
		t.Finish("", nil)
		return
	}
	t.m.mu.Lock()
	delete(t.m.running, t.ref)
	t.m.mu.Unlock()
	t.cancel(nil)
}
