package session

import (
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session/rbac"
)

// roles serves class role. The roles and permissions are those of package rbac;
// rows of the database, if another version left any, come after them.
type roles struct{ db *db.DB }

func registerRoles(r *api.Registry, d *db.DB) {
	s := roles{d}
	api.HandleRoleGetPermissions(r, s.permissions)
	api.HandleRoleGetPermissionsNameLabel(r, s.permissionNames)
	api.HandleRoleGetByPermission(r, s.byPermission)
	api.HandleRoleGetByPermissionNameLabel(r, func(_ *api.Call, label string) ([]api.RoleRef, error) {
		return rbac.Holders(label), nil
	})
	r.Override("role.get_all", s.getAll)
	r.Override("role.get_all_records", s.getAllRecords)
	r.Override("role.get_by_name_label", s.byName)
	r.Override("role.get_by_uuid", s.byUUID)
	r.Override("role.get_record", s.getRecord)
	class := api.ClassOf[api.Role]()
	for i := range class.Fields {
		r.Override("role.get_"+class.Fields[i].Name, s.getField(i))
	}
}

// find returns the record a reference names.
func (s roles) find(ref api.RoleRef) (*api.Role, error) {
	if r := rbac.Find(ref); r != nil {
		return r, nil
	}
	return db.Get(s.db.Snapshot(), ref)
}

func (s roles) arg(args []api.Value) (*api.Role, error) {
	return s.find(api.RoleRef(api.ParseRef(args[0].Text)))
}

// all calls f for every role and permission.
func (s roles) all(f func(api.RoleRef, *api.Role)) {
	for _, r := range rbac.Records() {
		f(r.Ref, r.Role)
	}
	for ref, r := range db.All[api.Role](s.db.Snapshot()) {
		f(ref, r)
	}
}

func (s roles) getAll(*api.Call, []api.Value) (api.Result, error) {
	var refs textSet
	s.all(func(ref api.RoleRef, _ *api.Role) { refs = append(refs, ref.String()) })
	return refs, nil
}

// records answers a map of all records.
type records struct{ roles }

// AppendValue implements api.Result.
func (s records) AppendValue(b []byte, e api.Encoding) []byte {
	b = api.OpenStruct(b, e)
	s.all(func(ref api.RoleRef, r *api.Role) {
		b = api.OpenMember(b, e, ref.String())
		b = api.AppendRecord(b, e, r)
		b = api.CloseMember(b, e)
	})
	return api.CloseStruct(b, e)
}

func (s roles) getAllRecords(*api.Call, []api.Value) (api.Result, error) { return records{s}, nil }

func (s roles) byName(_ *api.Call, args []api.Value) (api.Result, error) {
	refs := textSet{}
	s.all(func(ref api.RoleRef, r *api.Role) {
		if r.NameLabel == args[0].Text {
			refs = append(refs, ref.String())
		}
	})
	return refs, nil
}

func (s roles) byUUID(_ *api.Call, args []api.Value) (api.Result, error) {
	ref := api.RoleRef("OpaqueRef:" + args[0].Text)
	if rbac.Find(ref) == nil {
		var err error
		if ref, err = db.ByUUID[api.Role](s.db.Snapshot(), args[0].Text); err != nil {
			return nil, err
		}
	}
	return api.StringResult(ref.String()), nil
}

func (s roles) getRecord(_ *api.Call, args []api.Value) (api.Result, error) {
	r, err := s.arg(args)
	return recordResult{r}, err
}

// fieldResult answers one field of a record.
type fieldResult struct {
	api.Record
	field int
}

// AppendValue implements api.Result.
func (f fieldResult) AppendValue(b []byte, e api.Encoding) []byte {
	return f.AppendField(b, e, f.field)
}

func (s roles) getField(field int) api.Handler {
	return func(_ *api.Call, args []api.Value) (api.Result, error) {
		r, err := s.arg(args)
		return fieldResult{r, field}, err
	}
}

func (s roles) permissions(_ *api.Call, self api.RoleRef) ([]api.RoleRef, error) {
	r, err := s.find(self)
	if err != nil {
		return nil, err
	}
	return r.Subroles, nil
}

func (s roles) permissionNames(_ *api.Call, self api.RoleRef) ([]string, error) {
	r, err := s.find(self)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(r.Subroles))
	for _, ref := range r.Subroles {
		if p := rbac.Find(ref); p != nil {
			names = append(names, p.NameLabel)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (s roles) byPermission(_ *api.Call, permission api.RoleRef) ([]api.RoleRef, error) {
	r, err := s.find(permission)
	if err != nil {
		return nil, err
	}
	return rbac.Holders(r.NameLabel), nil
}
