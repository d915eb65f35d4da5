package session

import (
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session/rbac"
)

func (m *Manager) registerSubjects(r *api.Registry) {
	api.HandleSubjectCreate(r, m.createSubject)
	api.HandleSubjectDestroy(r, m.destroySubject)
	api.HandleSubjectAddToRoles(r, m.addRole)
	api.HandleSubjectRemoveFromRoles(r, m.removeRole)
	api.HandleSubjectGetPermissionsNameLabel(r, func(_ *api.Call, self api.SubjectRef) ([]string, error) {
		s, err := db.Get(m.cfg.DB.Snapshot(), self)
		if err != nil {
			return nil, err
		}
		if role := rbac.Highest(s.Roles); role != rbac.None {
			return rbac.Permissions(role), nil
		}
		return nil, nil
	})
}

// createSubject lets a user or group of the directory in; it may do nothing
// until it is given a role. What it is called is the client's business.
func (m *Manager) createSubject(c *api.Call, args *api.Subject) (api.SubjectRef, error) {
	if args.SubjectIdentifier == "" {
		return "", api.ErrFieldTypeError("subject_identifier")
	}
	var ref api.SubjectRef
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		for _, s := range db.All[api.Subject](tx) {
			if s.SubjectIdentifier == args.SubjectIdentifier {
				return api.ErrSubjectAlreadyExists()
			}
		}
		args.Roles = nil
		ref = db.Insert(tx, args)
		return nil
	})
	return ref, err
}

// destroySubject also ends the sessions that only the subject let in.
func (m *Manager) destroySubject(c *api.Call, self api.SubjectRef) error {
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error { return db.Delete(tx, self) })
	if err == nil {
		m.rolesChanged(self)
	}
	return err
}

func (m *Manager) addRole(c *api.Call, self api.SubjectRef, role api.RoleRef) error {
	return m.editRoles(c, self, role, func(s *api.Subject) error {
		if slices.Contains(s.Roles, role) {
			return api.ErrRoleAlreadyExists()
		}
		s.Roles = append(s.Roles, role)
		return nil
	})
}

func (m *Manager) removeRole(c *api.Call, self api.SubjectRef, role api.RoleRef) error {
	return m.editRoles(c, self, role, func(s *api.Subject) error {
		at := slices.Index(s.Roles, role)
		if at < 0 {
			return api.ErrRoleNotFound()
		}
		s.Roles = slices.Delete(s.Roles, at, at+1)
		return nil
	})
}

func (m *Manager) editRoles(c *api.Call, self api.SubjectRef, role api.RoleRef, change func(*api.Subject) error) error {
	err := db.Modify(c, m.cfg.DB, self, func(_ *db.Tx, s *api.Subject) error {
		if rbac.ByRef(role) == rbac.None { // a single permission is none to give
			return api.ErrRoleNotFound()
		}
		return change(s)
	})
	if err == nil {
		m.rolesChanged(self)
	}
	return err
}

// rolesChanged gives sessions what the subject's roles are now and ends those
// that are left without any. A role is not kept until the next login: taking one
// away has to work at once.
func (m *Manager) rolesChanged(subject api.SubjectRef) {
	snap := m.cfg.DB.Snapshot()
	closed := m.closeWhere(func(_ api.SessionRef, s *state) bool {
		if !slices.Contains(s.subjects, subject) {
			return false
		}
		s.role = union(snap, s.subjects)
		return s.role == rbac.None
	})
	if closed > 0 {
		m.cfg.Log.Info("sessions-closed", "subject", subject, "count", closed, "reason", "no role left")
	}
}

// union is what subjects may do together.
func union(r db.Reader, subjects []api.SubjectRef) rbac.Role {
	best := rbac.None
	for _, ref := range subjects {
		if s, err := db.Get(r, ref); err == nil {
			best = max(best, rbac.Highest(s.Roles))
		}
	}
	return best
}

// subjectIdentifiers answers who from the directory is logged in.
func (m *Manager) subjectIdentifiers(*api.Call) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var sids []string
	for _, s := range m.sessions {
		if s.sid != "" {
			sids = append(sids, s.sid)
		}
	}
	slices.Sort(sids)
	return slices.Compact(sids), nil
}

// logoutSubject ends a user's sessions, except the one that asks for it.
func (m *Manager) logoutSubject(c *api.Call, sid string) error {
	closed := m.closeWhere(func(ref api.SessionRef, s *state) bool {
		return sid != "" && s.sid == sid && ref != c.Session
	})
	m.cfg.Log.Info("sessions-closed", "sid", sid, "count", closed, "reason", "asked for")
	return nil
}

// registerUsers serves class user, which is older than subjects: rows without
// any effect, kept for clients that make them.
func (m *Manager) registerUsers(r *api.Registry) {
	api.HandleUserCreate(r, func(c *api.Call, args *api.User) (ref api.UserRef, err error) {
		err = m.cfg.DB.Update(c, func(tx *db.Tx) error {
			ref = db.Insert(tx, args)
			return nil
		})
		return ref, err
	})
	api.HandleUserDestroy(r, func(c *api.Call, self api.UserRef) error {
		return m.cfg.DB.Update(c, func(tx *db.Tx) error { return db.Delete(tx, self) })
	})
}
