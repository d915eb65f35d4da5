package session

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session/rbac"
)

// Identity is who a session belongs to.
type Identity struct {
	Session string // the session's uuid; "" for a local one
	User    string
	SID     string
	Role    string
}

func (s *state) identity() Identity {
	role := s.role.String()
	if s.role == rbac.LocalRoot {
		role = rootUser
	}
	return Identity{Session: s.uuid, User: s.name, SID: s.sid, Role: role}
}

// Who tells whose a session is, or was if it has just ended.
func (m *Manager) Who(ref api.SessionRef) (Identity, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sessions[ref]; s != nil {
		return s.identity(), true
	}
	for i := range m.ended {
		if ref != "" && m.ended[i].ref == ref {
			return m.ended[i].who, true
		}
	}
	return Identity{}, false
}

// Owner names the user of a session for what belongs to users, as tasks do, and
// whether he may touch what belongs to others; for task.Config. A user is named
// by his identifier, which no other user gets.
func (m *Manager) Owner(ref api.SessionRef) (user string, others bool) {
	s, err := m.find(ref)
	if err != nil {
		return "", false
	}
	if s.sid == "" {
		return s.name, s.role >= rbac.PoolOperator
	}
	return "sid:" + s.sid, s.role >= rbac.PoolOperator
}

// find returns a copy of what is known of a session.
func (m *Manager) find(ref api.SessionRef) (state, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sessions[ref]
	if s == nil {
		return state{}, api.ErrSessionInvalid(ref.String())
	}
	return *s, nil
}

// Authorize refuses a message that a session may not send, for wire.Config.
func (m *Manager) Authorize(ref api.SessionRef, msg *api.MessageInfo, args []api.Value) error {
	s, err := m.find(ref)
	if err != nil {
		return err
	}
	if s.local {
		if !msg.Emergency {
			return api.ErrSessionInvalid(ref.String())
		}
		return nil
	}
	if s.role == rbac.LocalRoot {
		return nil
	}
	if err := rbac.Check(s.role, msg, args); err != nil {
		return err
	}
	return m.authorizeKeys(s.role, msg, args)
}

// authorizeKeys looks at what a message that replaces a map does to keys with
// permissions of their own.
func (m *Manager) authorizeKeys(role rbac.Role, msg *api.MessageInfo, args []api.Value) error {
	name, ok := rbac.IsMapSetter(msg)
	if !ok || len(args) < 2 {
		return nil
	}
	o := m.cfg.DB.Snapshot().Object(msg.Class, api.ParseRef(args[0].Text))
	if o == nil {
		return nil // the message itself will say so
	}
	old, err := api.ParseJSON(o.Record().AppendField(nil, api.JSON, msg.Class.FieldByName(name)))
	if err != nil {
		return err
	}
	for _, key := range rbac.Guarded(msg, &old, &args[1]) {
		if err := rbac.CheckKey(role, msg, key); err != nil {
			return err
		}
	}
	return nil
}

// AuthorizeHTTP refuses a stream that a session may not use, for wire.Config.
func (m *Manager) AuthorizeHTTP(ref api.SessionRef, action string) error {
	s, err := m.find(ref)
	switch {
	case err != nil:
		return err
	case s.local:
		return api.ErrSessionInvalid(ref.String())
	}
	return rbac.CheckHTTP(s.role, action)
}

// overrideGetters serves what the records of sessions do not hold, or not to
// everybody.
func (m *Manager) overrideGetters(r *api.Registry) {
	r.Override("session.get_rbac_permissions", func(c *api.Call, args []api.Value) (api.Result, error) {
		ref := api.SessionRef(api.ParseRef(args[0].Text))
		record, err := db.Get(m.cfg.DB.Snapshot(), ref)
		if err != nil {
			return nil, err
		}
		if names := m.permissions(ref); names != nil {
			return textSet(names), nil
		}
		return textSet(record.RBACPermissions), nil
	})
	r.Override("session.get_record", func(c *api.Call, args []api.Value) (api.Result, error) {
		ref := api.SessionRef(api.ParseRef(args[0].Text))
		record, err := db.Get(m.cfg.DB.Snapshot(), ref)
		if err != nil {
			return nil, err
		}
		if names := m.permissions(ref); names != nil {
			full := *record // shares all but the names with the database
			full.RBACPermissions = names
			record = &full
		}
		return recordResult{record}, nil
	})
	r.Override("session.get_by_uuid", m.byUUID)
}

// permissions are what a session may do, nil for root, who may do everything.
// They are kept in no record: there are two thousand.
func (m *Manager) permissions(ref api.SessionRef) []string {
	s, err := m.find(ref)
	if err != nil || s.role == rbac.LocalRoot || s.role == rbac.None {
		return nil
	}
	return rbac.Permissions(s.role)
}

// byUUID answers a session's reference, which is all it takes to use it, only
// to root and to the session's own user: uuids stand in the audit log.
func (m *Manager) byUUID(c *api.Call, args []api.Value) (api.Result, error) {
	ref, err := db.ByUUID[api.Session](m.cfg.DB.Snapshot(), args[0].Text)
	if err != nil {
		return nil, err
	}
	own, err := m.find(c.Session)
	if err != nil {
		return nil, err
	}
	other, err := m.find(ref)
	if own.role != rbac.LocalRoot && (err != nil || own.name != other.name || own.sid != other.sid) {
		return nil, api.ErrUUIDInvalid("session", args[0].Text)
	}
	return api.StringResult(ref), nil
}

// recordResult answers a record.
type recordResult struct{ api.Record }

// AppendValue implements api.Result.
func (r recordResult) AppendValue(b []byte, e api.Encoding) []byte {
	return api.AppendRecord(b, e, r.Record)
}

// textSet answers a set of texts.
type textSet []string

// AppendValue implements api.Result.
func (t textSet) AppendValue(b []byte, e api.Encoding) []byte {
	b = api.OpenArray(b, e)
	for _, s := range t {
		b = api.AppendString(api.Next(b, e), e, s)
	}
	return api.CloseArray(b, e)
}
