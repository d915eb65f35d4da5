package task

import (
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// own notes whose a task is.
func (m *Manager) own(ref api.TaskRef, session api.SessionRef) {
	user, _ := m.cfg.Who(session)
	m.mu.Lock()
	m.owners[ref] = user
	m.mu.Unlock()
}

// Permit refuses a session that would touch the task of another user without
// the role for it; the method is what it would do.
func (m *Manager) Permit(session api.SessionRef, ref api.TaskRef, method string) error {
	if _, err := db.Get(m.cfg.DB.Snapshot(), ref); err != nil {
		return err
	}
	user, others := m.cfg.Who(session)
	m.mu.Lock()
	owner := m.owners[ref]
	m.mu.Unlock()
	if others || user == owner {
		return nil
	}
	return api.ErrRBACPermissionDenied(strings.ToLower(method)+"/any", "the task belongs to another user")
}

// remove forgets a task.
func (m *Manager) remove(ref api.TaskRef) error {
	m.mu.Lock()
	delete(m.owners, ref)
	m.mu.Unlock()
	return m.update(func(tx *db.Tx) error { return db.Delete(tx, ref) })
}
