package wiretest

import (
	"context"
	"encoding/json"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session"
	"cairn/toolstack/session/rbac"
)

// directoryType is the auth_type of the directory that knows everybody.
const directoryType = "wiretest"

// directory lets in whoever has Password; names are identifiers, and all exist
// but "nobody".
type directory struct{}

// openDirectory refuses a bind_password that is not Password.
func openDirectory(_ context.Context, _ string, settings map[string]string) (session.External, error) {
	if p, ok := settings["bind_password"]; ok && p != Password {
		return nil, session.ErrCredentials
	}
	return directory{}, nil
}

func (directory) Authenticate(_ context.Context, user, password string) (string, error) {
	if password != Password {
		return "", session.ErrCredentials
	}
	return user, nil
}

func (directory) Lookup(_ context.Context, name string) (string, error) {
	if name == "nobody" {
		return "", session.ErrNoSubject
	}
	return name, nil
}

func (directory) Groups(_ context.Context, id string) ([]string, error) {
	return []string{"group of " + id}, nil
}

func (directory) Information(_ context.Context, id string) (map[string]string, error) {
	return map[string]string{"subject-name": id}, nil
}

// As answers the same server with a session of a user of a role ("vm-admin"), for
// tests of what he may not do. The user is a subject of that name.
func (s *Server) As(role string) *Server {
	s.T.Helper()
	subject := api.NewSubject()
	subject.SubjectIdentifier = role
	subject.Roles = []api.RoleRef{rbac.Parse(role).Ref()}
	undo := s.withDirectory(subject)
	defer undo()
	login, err := s.Raw("session.login_with_password", role, Password)
	if err != nil {
		s.T.Fatal(err)
	}
	user := *s
	if err := json.Unmarshal(login, &user.Session); err != nil {
		s.T.Fatal(err)
	}
	return &user
}

// withDirectory adds a subject and lets the users of the directory log in until
// undo is called; the sessions stay.
func (s *Server) withDirectory(subject *api.Subject) (undo func()) {
	s.T.Helper()
	_, err := db.Get(s.DB.Snapshot(), s.Host)
	missing := err != nil
	s.update(func(tx *db.Tx) error {
		db.Insert(tx, subject)
		if missing {
			db.InsertAs(tx, s.Host, api.NewHost())
		}
		return setDirectory(tx, s.Host, directoryType)
	})
	return func() {
		s.update(func(tx *db.Tx) error {
			if missing {
				return db.Delete(tx, s.Host)
			}
			return setDirectory(tx, s.Host, "")
		})
	}
}

func setDirectory(tx *db.Tx, host api.HostRef, kind string) error {
	h, err := db.Edit(tx, host)
	if err == nil {
		h.ExternalAuthType = kind
	}
	return err
}

func (s *Server) update(f func(*db.Tx) error) {
	s.T.Helper()
	if err := s.DB.Update(context.Background(), f); err != nil {
		s.T.Fatal(err)
	}
}
