package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session/rbac"
	"cairn/toolstack/wire/wiretest"
)

// These tests hold the messages to what a client sees of them.

func code(err error) string {
	var known *api.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return ""
}

// refused fails the test unless a call answers an error with the code.
func refused(t *testing.T, s *wiretest.Server, want, method string, args ...any) {
	t.Helper()
	if result, err := s.Call(method, args...); code(err) != want {
		t.Errorf("%s%v answers %s, %v; want %s", method, args, result, err, want)
	}
}

func TestRoleRecords(t *testing.T) {
	s := wiretest.New(t, nil)
	s.Covers("role.get_all", "role.get_all_records", "role.get_by_name_label", "role.get_by_uuid", "role.get_record",
		"role.get_uuid", "role.get_name_label", "role.get_name_description", "role.get_subroles", "role.get_is_internal",
		"role.get_permissions", "role.get_permissions_name_label", "role.get_by_permission", "role.get_by_permission_name_label")
	var all []string
	s.Must(&all, "role.get_all")
	var records map[string]struct {
		UUID     string `json:"uuid"`
		Name     string `json:"name_label"`
		About    string `json:"name_description"`
		Subroles []string
		IsIntern *bool `json:"is_internal"`
	}
	s.Must(&records, "role.get_all_records")
	if len(all) != len(records) || len(all) < 2000 {
		t.Errorf("%d roles and permissions, %d records", len(all), len(records))
	}
	roles := 0
	for _, r := range records {
		if len(r.Subroles) > 0 {
			roles++
		}
		for _, sub := range r.Subroles {
			if records[sub].Name == "" {
				t.Fatalf("subrole %s of %s has no record", sub, r.Name)
			}
		}
	}
	if roles != 6 {
		t.Errorf("%d roles", roles)
	}
	var refs []string
	s.Must(&refs, "role.get_by_name_label", "vm-admin")
	if len(refs) != 1 || refs[0] != rbac.VMAdmin.Ref().String() {
		t.Fatalf("vm-admin is %v", refs)
	}
	admin := records[refs[0]]
	for method, want := range map[string]any{
		"role.get_uuid": admin.UUID, "role.get_name_label": "vm-admin", "role.get_name_description": admin.About,
		"role.get_is_internal": false,
	} {
		var got any
		s.Must(&got, method, refs[0])
		if got != want || got == "" {
			t.Errorf("%s answers %v, not %v", method, got, want)
		}
	}
	var ref string
	s.Must(&ref, "role.get_by_uuid", admin.UUID)
	if ref != refs[0] {
		t.Errorf("get_by_uuid answers %s", ref)
	}
	for _, method := range []string{"role.get_subroles", "role.get_permissions"} {
		var subs []string
		s.Must(&subs, method, ref)
		if !slices.Equal(subs, admin.Subroles) {
			t.Errorf("%s answers %d roles, not %d", method, len(subs), len(admin.Subroles))
		}
	}
	var record struct{ Subroles []string }
	s.Must(&record, "role.get_record", ref)
	var names []string
	s.Must(&names, "role.get_permissions_name_label", ref)
	if len(record.Subroles) != len(names) || !slices.Contains(names, "vm.clone") || slices.Contains(names, "subject.create") {
		t.Errorf("%d names of %d permissions", len(names), len(record.Subroles))
	}
	var holders, byRef []string
	s.Must(&holders, "role.get_by_permission_name_label", "vm.clone")
	var permission []string
	s.Must(&permission, "role.get_by_name_label", "vm.clone")
	s.Must(&byRef, "role.get_by_permission", permission[0])
	if len(holders) != 4 || !slices.Contains(holders, ref) || !slices.Equal(holders, byRef) {
		t.Errorf("vm.clone is held by %v, by reference %v", holders, byRef)
	}
	refused(t, s, "HANDLE_INVALID", "role.get_permissions", "OpaqueRef:x")
	refused(t, s, "HANDLE_INVALID", "role.get_record", "OpaqueRef:x")
	refused(t, s, "UUID_INVALID", "role.get_by_uuid", "x")
}

func TestSubjects(t *testing.T) {
	s := wiretest.New(t, nil)
	s.Covers("subject.create", "subject.destroy", "subject.add_to_roles", "subject.remove_from_roles", "subject.get_permissions_name_label")
	args := map[string]any{"subject_identifier": "S-1-2", "other_config": map[string]string{"subject-name": "alice"}}
	var ref string
	s.Must(&ref, "subject.create", args)
	var record struct {
		Roles       []string
		Identifier  string            `json:"subject_identifier"`
		OtherConfig map[string]string `json:"other_config"`
	}
	s.Must(&record, "subject.get_record", ref)
	if len(record.Roles) != 0 || record.Identifier != "S-1-2" || record.OtherConfig["subject-name"] != "alice" {
		t.Errorf("a new subject is %+v", record)
	}
	refused(t, s, "SUBJECT_ALREADY_EXISTS", "subject.create", args)
	refused(t, s, "FIELD_TYPE_ERROR", "subject.create", map[string]any{"subject_identifier": "", "other_config": map[string]string{}})

	role := rbac.VMOperator.Ref().String()
	s.Must(nil, "subject.add_to_roles", ref, role)
	refused(t, s, "ROLE_ALREADY_EXISTS", "subject.add_to_roles", ref, role)
	refused(t, s, "ROLE_NOT_FOUND", "subject.add_to_roles", ref, "OpaqueRef:x")
	refused(t, s, "HANDLE_INVALID", "subject.add_to_roles", "OpaqueRef:x", role)
	var names, roles []string
	s.Must(&names, "subject.get_permissions_name_label", ref)
	s.Must(&roles, "subject.get_roles", ref)
	if !slices.Contains(names, "vm.start") || slices.Contains(names, "vm.clone") || !slices.Equal(roles, []string{role}) {
		t.Errorf("a VM operator may do %d things, by %v", len(names), roles)
	}
	s.Must(nil, "subject.remove_from_roles", ref, role)
	refused(t, s, "ROLE_NOT_FOUND", "subject.remove_from_roles", ref, role)
	s.Must(&names, "subject.get_permissions_name_label", ref)
	if len(names) != 0 {
		t.Errorf("a subject without roles may do %v", names)
	}
	s.Must(nil, "subject.destroy", ref)
	refused(t, s, "HANDLE_INVALID", "subject.destroy", ref)
	refused(t, s, "HANDLE_INVALID", "subject.get_permissions_name_label", ref)
}

func TestRolesBindSessions(t *testing.T) {
	var vm api.VMRef
	s := wiretest.New(t, func(reg *api.Registry, d *db.DB) {
		api.HandleVMStart(reg, func(*api.Call, api.VMRef, bool, bool) error { return nil })
		d.Update(context.Background(), func(tx *db.Tx) error {
			vm = db.Insert(tx, api.NewVM())
			return nil
		})
	})
	s.Covers("session.get_rbac_permissions", "session.get_is_local_superuser", "session.get_subject",
		"session.get_auth_user_sid", "session.get_auth_user_name", "session.get_record", "session.get_by_uuid")
	reader, operator := s.As("read-only"), s.As("vm-operator")

	reader.Must(nil, "VM.get_record", vm.String())
	_, err := reader.Call("VM.start", vm.String(), false, false)
	if e := (*api.Error)(nil); !errors.As(err, &e) || e.Code != "RBAC_PERMISSION_DENIED" || e.Params[0] != "vm.start" || len(e.Params) != 2 {
		t.Errorf("a reader starts a VM: %v", err)
	}
	refused(t, reader, "RBAC_PERMISSION_DENIED", "Async.VM.start", vm.String(), false, false)
	operator.Must(nil, "VM.start", vm.String(), false, false)
	refused(t, operator, "RBAC_PERMISSION_DENIED", "VM.set_name_label", vm.String(), "x")
	s.Must(nil, "VM.set_name_label", vm.String(), "x")

	var names []string
	operator.Must(&names, "session.get_rbac_permissions", operator.Session)
	if !slices.Contains(names, "vm.start") || slices.Contains(names, "vm.set_name_label") {
		t.Errorf("an operator may do %d things", len(names))
	}
	var record struct {
		UUID        string   `json:"uuid"`
		Permissions []string `json:"rbac_permissions"`
		Super       bool     `json:"is_local_superuser"`
		SID         string   `json:"auth_user_sid"`
	}
	operator.Must(&record, "session.get_record", operator.Session)
	if !slices.Equal(record.Permissions, names) || record.Super || record.SID != "vm-operator" {
		t.Errorf("the record has %d permissions, %v, %s", len(record.Permissions), record.Super, record.SID)
	}
	for method, want := range map[string]any{
		"session.get_is_local_superuser": false, "session.get_auth_user_sid": "vm-operator", "session.get_auth_user_name": "vm-operator",
	} {
		var got any
		operator.Must(&got, method, operator.Session)
		if got != want {
			t.Errorf("%s answers %v", method, got)
		}
	}
	var subject, sid string
	operator.Must(&subject, "session.get_subject", operator.Session)
	operator.Must(&sid, "subject.get_subject_identifier", subject)
	if sid != "vm-operator" {
		t.Errorf("the session's subject is %s", sid)
	}
	s.Must(&names, "session.get_rbac_permissions", s.Session)
	var super bool
	s.Must(&super, "session.get_is_local_superuser", s.Session)
	if len(names) != 0 || !super {
		t.Errorf("root has %d permissions, superuser %v", len(names), super)
	}

	var rootRecord struct{ UUID string }
	s.Must(&rootRecord, "session.get_record", s.Session)
	refused(t, reader, "UUID_INVALID", "session.get_by_uuid", rootRecord.UUID) // or a reader could become root
	var found string
	operator.Must(&found, "session.get_by_uuid", record.UUID)
	if found != operator.Session {
		t.Errorf("get_by_uuid answers %s", found)
	}
}

func TestMapKeysHaveTheirOwnPermissions(t *testing.T) {
	var vm api.VMRef
	var pool api.PoolRef
	s := wiretest.New(t, func(reg *api.Registry, d *db.DB) {
		d.Update(context.Background(), func(tx *db.Tx) error {
			r := api.NewVM()
			r.OtherConfig = map[string]string{"pci": "0/0000:01:00.0"}
			vm, pool = db.Insert(tx, r), db.Insert(tx, api.NewPool())
			return nil
		})
		reg.Override("VM.set_other_config", func(*api.Call, []api.Value) (api.Result, error) { return api.Void{}, nil })
	})
	operator, admin := s.As("vm-operator"), s.As("vm-admin")
	operator.Must(nil, "pool.add_to_other_config", pool.String(), "folder", "/a")
	operator.Must(nil, "pool.remove_from_other_config", pool.String(), "folder")
	refused(t, operator, "RBAC_PERMISSION_DENIED", "pool.add_to_other_config", pool.String(), "other", "x")
	admin.Must(nil, "VM.set_other_config", vm.String(), map[string]string{"pci": "0/0000:01:00.0", "a": "b"})
	refused(t, admin, "RBAC_PERMISSION_DENIED", "VM.set_other_config", vm.String(), map[string]string{"a": "b"})
	refused(t, admin, "RBAC_PERMISSION_DENIED", "VM.set_other_config", vm.String(), map[string]string{"pci": "else"})
	s.Must(nil, "VM.set_other_config", vm.String(), map[string]string{})
}

// Taking a role away works on sessions that are open, and so does giving one.
func TestRolesChangeAtOnce(t *testing.T) {
	s := wiretest.New(t, nil)
	user := s.As("vm-operator")
	var subject string
	user.Must(&subject, "session.get_subject", user.Session)
	s.Must(nil, "subject.add_to_roles", subject, rbac.PoolAdmin.Ref().String())
	user.Must(nil, "subject.create", map[string]any{"subject_identifier": "new", "other_config": map[string]string{}})
	s.Must(nil, "subject.remove_from_roles", subject, rbac.PoolAdmin.Ref().String())
	refused(t, user, "RBAC_PERMISSION_DENIED", "subject.destroy", subject)
	s.Must(nil, "subject.remove_from_roles", subject, rbac.VMOperator.Ref().String())
	refused(t, user, "SESSION_INVALID", "pool.get_all")

	user = s.As("vm-admin")
	user.Must(&subject, "session.get_subject", user.Session)
	s.Must(nil, "subject.destroy", subject)
	refused(t, user, "SESSION_INVALID", "pool.get_all")
	s.Must(nil, "pool.get_all") // root is nobody's subject
}

func TestLogoutOfSubjects(t *testing.T) {
	s := wiretest.New(t, nil)
	s.Covers("session.get_all_subject_identifiers", "session.logout_subject_identifier", "session.logout")
	a, b := s.As("vm-admin"), s.As("pool-operator")
	var sids []string
	s.Must(&sids, "session.get_all_subject_identifiers")
	if !slices.Equal(sids, []string{"pool-operator", "vm-admin"}) {
		t.Errorf("logged in are %v", sids)
	}
	refused(t, a, "RBAC_PERMISSION_DENIED", "session.logout_subject_identifier", "pool-operator")
	b.Must(nil, "session.logout_subject_identifier", "vm-admin")
	refused(t, a, "SESSION_INVALID", "pool.get_all")
	b.Must(nil, "session.logout_subject_identifier", "pool-operator") // not the session that asks
	b.Must(nil, "session.logout_subject_identifier", "")              // which is root's
	b.Must(nil, "pool.get_all")
	b.Must(nil, "session.logout")
	refused(t, b, "SESSION_INVALID", "pool.get_all")
	s.Must(&sids, "session.get_all_subject_identifiers")
	if len(sids) != 0 {
		t.Errorf("logged in are %v", sids)
	}
}

func TestLocalSessions(t *testing.T) {
	s := wiretest.New(t, func(reg *api.Registry, _ *db.DB) {
		api.HandleHostIsInEmergencyMode(reg, func(*api.Call) (bool, error) { return false, nil })
	})
	s.Covers("session.slave_local_login_with_password", "session.local_logout")
	local := *s
	login, err := s.Raw("session.slave_local_login_with_password", "root", wiretest.Password)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(login, &local.Session); err != nil {
		t.Fatal(err)
	}
	local.Must(nil, "host.is_in_emergency_mode")
	refused(t, &local, "SESSION_INVALID", "pool.get_all")
	refused(t, s, "HANDLE_INVALID", "session.get_record", local.Session) // it is in no database
	refused(t, s, "SESSION_INVALID", "session.local_logout")
	s.Must(nil, "pool.get_all") // the pool's session goes on
	local.Must(nil, "session.local_logout")
	refused(t, &local, "SESSION_INVALID", "host.is_in_emergency_mode")
	if _, err := s.Raw("session.slave_local_login_with_password", "vm-admin", wiretest.Password); code(err) != "SESSION_AUTHENTICATION_FAILED" {
		t.Errorf("a local session for a user of the directory: %v", err)
	}
}

// Whoever waits for events is told at once that his session has ended.
func TestLogoutEndsEventFrom(t *testing.T) {
	s := wiretest.New(t, nil)
	user := s.As("read-only")
	var batch struct{ Token string }
	user.Must(&batch, "event.from", []string{"vm"}, "", 0.0)
	answer := make(chan error)
	go func() {
		_, err := user.Call("event.from", []string{"vm"}, batch.Token, 60.0)
		answer <- err
	}()
	s.Must(nil, "session.logout_subject_identifier", "read-only")
	if err := <-answer; code(err) != "SESSION_INVALID" {
		t.Errorf("the wait ended with %v", err)
	}
}

func TestChangePassword(t *testing.T) {
	s := wiretest.New(t, nil)
	s.Covers("session.change_password", "session.login_with_password")
	refused(t, s, "SESSION_AUTHENTICATION_FAILED", "session.change_password", "wrong", "new")
	refused(t, s, "CHANGE_PASSWORD_REJECTED", "session.change_password", wiretest.Password, "")
	refused(t, s.As("pool-admin"), "RBAC_PERMISSION_DENIED", "session.change_password", wiretest.Password, "new")
	s.Must(nil, "session.change_password", wiretest.Password, "new")
	if _, err := s.Raw("session.login_with_password", "root", wiretest.Password); code(err) != "SESSION_AUTHENTICATION_FAILED" {
		t.Errorf("login by the old password: %v", err)
	}
	if _, err := s.Raw("session.login_with_password", "root", "new", "1.0", "test"); err != nil {
		t.Error(err)
	}
}

func TestUsers(t *testing.T) {
	s := wiretest.New(t, nil)
	s.Covers("user.create", "user.destroy")
	var ref, name string
	s.Must(&ref, "user.create", map[string]any{"short_name": "u", "fullname": "U", "other_config": map[string]string{}})
	s.Must(&name, "user.get_short_name", ref)
	if name != "u" {
		t.Errorf("the user is %q", name)
	}
	s.Must(nil, "user.destroy", ref)
	refused(t, s, "HANDLE_INVALID", "user.destroy", ref)
}

func TestEnableExternalAuth(t *testing.T) {
	var pool api.PoolRef
	s := wiretest.New(t, func(_ *api.Registry, d *db.DB) {
		d.Update(context.Background(), func(tx *db.Tx) error {
			pool = db.Insert(tx, api.NewPool())
			return nil
		})
	})
	s.Covers("pool.enable_external_auth", "pool.disable_external_auth", "host.enable_external_auth", "host.disable_external_auth",
		"auth.get_subject_identifier", "auth.get_subject_information_from_identifier", "auth.get_group_membership")
	if err := s.DB.Update(t.Context(), func(tx *db.Tx) error {
		db.InsertAs(tx, s.Host, api.NewHost())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	refused(t, s, "AUTH_IS_DISABLED", "auth.get_subject_identifier", "alice")
	refused(t, s, "AUTH_UNKNOWN_TYPE", "pool.enable_external_auth", pool.String(), map[string]string{}, "example.com", "AD")
	refused(t, s, "POOL_AUTH_ENABLE_FAILED_WRONG_CREDENTIALS", "pool.enable_external_auth", pool.String(),
		map[string]string{"bind_password": "wrong"}, "example.com", "wiretest")
	refused(t, s, "AUTH_ENABLE_FAILED_WRONG_CREDENTIALS", "host.enable_external_auth", s.Host.String(),
		map[string]string{"bind_password": "wrong"}, "example.com", "wiretest")
	config := map[string]string{"bind_password": wiretest.Password, "url": "ldaps://example.com"}
	s.Must(nil, "pool.enable_external_auth", pool.String(), config, "example.com", "wiretest")
	refused(t, s, "POOL_AUTH_ALREADY_ENABLED", "pool.enable_external_auth", pool.String(), config, "example.com", "wiretest")
	refused(t, s, "AUTH_ALREADY_ENABLED", "host.enable_external_auth", s.Host.String(), config, "example.com", "wiretest")

	host := externalAuth(s)
	if host.Kind != "wiretest" || host.Service != "example.com" || host.Config["url"] == "" {
		t.Errorf("the host has %+v", host)
	}
	if _, ok := host.Config["bind_password"]; ok || len(host.Config["bind_password_secret"]) != 36 {
		t.Errorf("the password is in %v", host.Config)
	}
	var id string
	var about map[string]string
	var groups []string
	s.Must(&id, "auth.get_subject_identifier", "alice")
	s.Must(&about, "auth.get_subject_information_from_identifier", id)
	s.Must(&groups, "auth.get_group_membership", id)
	if id != "alice" || about["subject-name"] != "alice" || !slices.Equal(groups, []string{"group of alice"}) {
		t.Errorf("the directory knows %s, %v, %v", id, about, groups)
	}
	refused(t, s, "SUBJECT_CANNOT_BE_RESOLVED", "auth.get_subject_identifier", "nobody")

	s.Must(nil, "pool.disable_external_auth", pool.String(), map[string]string{})
	if host := externalAuth(s); host.Kind != "" || host.Service != "" || len(host.Config) != 0 {
		t.Errorf("disabled, the host has %+v", host)
	}
	if n := s.DB.Snapshot().Count(api.ClassOf[api.Secret]()); n != 0 {
		t.Errorf("%d secrets are left", n)
	}
	s.Must(nil, "host.enable_external_auth", s.Host.String(), config, "example.com", "wiretest")
	s.Must(nil, "host.disable_external_auth", s.Host.String(), map[string]string{}, false)
	if host := externalAuth(s); host.Kind != "" {
		t.Errorf("disabled, the host has %+v", host)
	}
}

type hostAuth struct {
	Kind    string            `json:"external_auth_type"`
	Service string            `json:"external_auth_service_name"`
	Config  map[string]string `json:"external_auth_configuration"`
}

func externalAuth(s *wiretest.Server) (h hostAuth) {
	s.T.Helper()
	s.Must(&h, "host.get_record", s.Host.String())
	return h
}

// A user ends his own tasks; those of others take a pool operator.
func TestTasksOfOthers(t *testing.T) {
	s := wiretest.New(t, nil)
	a, b, operator := s.As("vm-admin"), s.As("read-only"), s.As("pool-operator")
	var ref string
	a.Must(&ref, "task.create", "label", "description")
	refused(t, b, "RBAC_PERMISSION_DENIED", "task.destroy", ref)
	a.Must(nil, "task.destroy", ref)
	a.Must(&ref, "task.create", "label", "description")
	operator.Must(nil, "task.destroy", ref)
}
