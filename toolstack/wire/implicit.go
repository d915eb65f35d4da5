package wire

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// plainConstructors are the classes whose objects are nothing but a record, so
// that the implicit create and destroy need no behaviour beside them.
var plainConstructors = map[string]bool{"secret": true, "VM_appliance": true, "VM_group": true}

// implicit returns the behaviour that follows from the description alone, or
// nil where there is none.
func (s *Server) implicit(m *api.MessageInfo) api.Handler {
	i := implicit{s.DB, m}
	switch m.Op {
	case api.OpGetRecord:
		return i.getRecord
	case api.OpGetAll:
		return i.getAll
	case api.OpGetAllRecords:
		return i.getAllRecords
	case api.OpGetAllWhere:
		return i.getAllWhere
	case api.OpGetAllRecordsWhere:
		return i.getAllRecordsWhere
	case api.OpGetByUUID:
		return i.getByUUID
	case api.OpGetByName:
		return i.getByName
	case api.OpGet:
		return i.get
	case api.OpSet:
		return i.set
	case api.OpAddKey:
		return i.addKey
	case api.OpRemoveKey:
		return i.removeKey
	case api.OpAddElem:
		return i.addElem
	case api.OpRemoveElem:
		return i.removeElem
	case api.OpCreate:
		if plainConstructors[m.Class.Name] {
			return i.create
		}
	case api.OpDestroy:
		if plainConstructors[m.Class.Name] {
			return i.destroy
		}
	}
	return nil
}

type implicit struct {
	db *db.DB
	m  *api.MessageInfo
}

// object finds the object a message is about.
func (i implicit) object(v *api.Value) (*db.Object, error) {
	ref := api.ParseRef(v.Text)
	if o := i.db.Snapshot().Object(i.m.Class, ref); o != nil {
		return o, nil
	}
	return nil, db.HandleInvalid(i.m.Class, ref)
}

// objectResult answers an object's record.
type objectResult struct{ o *db.Object }

// AppendValue implements api.Result.
func (r objectResult) AppendValue(b []byte, e api.Encoding) []byte { return r.o.AppendRecord(b, e) }

func (i implicit) getRecord(_ *api.Call, args []api.Value) (api.Result, error) {
	o, err := i.object(&args[0])
	return objectResult{o}, err
}

// objectsResult answers all objects of a class: references, or a map from
// references to records.
type objectsResult struct {
	snap    *db.Snapshot
	class   *api.ClassInfo
	match   predicate // nil selects all
	records bool
}

// each calls f for the selected objects.
func (r objectsResult) each(f func(*db.Object)) {
	r.snap.Objects(r.class, func(o *db.Object) bool {
		if r.match == nil || r.match(o) {
			f(o)
		}
		return true
	})
}

// AppendValue implements api.Result.
func (r objectsResult) AppendValue(b []byte, e api.Encoding) []byte {
	return r.AppendPieces(b, e, func(b []byte) []byte { return b })
}

// AppendPieces implements api.LongResult.
func (r objectsResult) AppendPieces(b []byte, e api.Encoding, flush func([]byte) []byte) []byte {
	if !r.records {
		b = api.OpenArray(b, e)
		r.each(func(o *db.Object) { b = flush(api.AppendString(api.Next(b, e), e, o.Ref())) })
		return api.CloseArray(b, e)
	}
	b = api.OpenStruct(b, e)
	r.each(func(o *db.Object) {
		b = api.OpenMember(b, e, o.Ref())
		b = o.AppendRecord(b, e)
		b = flush(api.CloseMember(b, e))
	})
	return api.CloseStruct(b, e)
}

func (i implicit) getAll(*api.Call, []api.Value) (api.Result, error) {
	return objectsResult{snap: i.db.Snapshot(), class: i.m.Class}, nil
}

func (i implicit) getAllRecords(*api.Call, []api.Value) (api.Result, error) {
	return objectsResult{snap: i.db.Snapshot(), class: i.m.Class, records: true}, nil
}

func (i implicit) getByUUID(_ *api.Call, args []api.Value) (api.Result, error) {
	ref := i.db.Snapshot().RefByUUID(i.m.Class, args[0].Text)
	if ref == "" {
		return nil, api.ErrUUIDInvalid(i.m.Class.Name, args[0].Text)
	}
	return api.StringResult(ref), nil
}

// refList answers a set of references.
type refList []string

// AppendValue implements api.Result.
func (r refList) AppendValue(b []byte, e api.Encoding) []byte {
	b = api.OpenArray(b, e)
	for _, ref := range r {
		b = api.AppendString(api.Next(b, e), e, ref)
	}
	return api.CloseArray(b, e)
}

func (i implicit) getByName(_ *api.Call, args []api.Value) (api.Result, error) {
	refs := refList{}
	i.db.Snapshot().Objects(i.m.Class, func(o *db.Object) bool {
		if o.Record().GetName() == args[0].Text {
			refs = append(refs, o.Ref())
		}
		return true
	})
	return refs, nil
}

// fieldResult answers one field.
type fieldResult struct {
	r     api.Record
	field int
}

// AppendValue implements api.Result.
func (f fieldResult) AppendValue(b []byte, e api.Encoding) []byte {
	return f.r.AppendField(b, e, f.field)
}

func (i implicit) get(_ *api.Call, args []api.Value) (api.Result, error) {
	o, err := i.object(&args[0])
	if err != nil {
		return nil, err
	}
	return fieldResult{o.Record(), i.m.Field}, nil
}

// edit changes the field of an object in a transaction; change gets the field's
// present value and reports whether it changed it.
func (i implicit) edit(c *api.Call, ref string, change func(tx *db.Tx, v *api.Value) (bool, error)) (api.Result, error) {
	return api.Void{}, i.db.Update(c, func(tx *db.Tx) error {
		o := tx.Object(i.m.Class, ref)
		if o == nil {
			return db.HandleInvalid(i.m.Class, ref)
		}
		v, err := api.ParseJSON(o.Record().AppendField(nil, api.JSON, i.m.Field))
		if err != nil {
			return err
		}
		changed, err := change(tx, &v)
		if err != nil || !changed {
			return err
		}
		r, err := tx.EditRecord(i.m.Class, ref)
		if err != nil {
			return err
		}
		if r.SetField(i.m.Field, &v) != nil {
			return api.ErrFieldTypeError("value")
		}
		return nil
	})
}

// exist refuses a value that leads to an object there is not, or one of another
// class. The null reference leads nowhere, which is allowed.
func exist(tx *db.Tx, t *api.TypeInfo, v *api.Value) error {
	switch t.Kind {
	case api.KindRef:
		ref := api.ParseRef(v.Text)
		if ref != "" && tx.Object(t.Class(), ref) == nil {
			return db.HandleInvalid(t.Class(), ref)
		}
	case api.KindSet, api.KindMap, api.KindOption:
		for n := range v.Items {
			if err := exist(tx, t.Elem(), &v.Items[n]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i implicit) fieldType() *api.TypeInfo { return i.m.Class.Fields[i.m.Field].Type }

func (i implicit) set(c *api.Call, args []api.Value) (api.Result, error) {
	return i.edit(c, api.ParseRef(args[0].Text), func(tx *db.Tx, v *api.Value) (bool, error) {
		if err := exist(tx, i.fieldType(), &args[1]); err != nil {
			return false, err
		}
		*v = args[1]
		return true, nil
	})
}

func (i implicit) addKey(c *api.Call, args []api.Value) (api.Result, error) {
	ref, name := api.ParseRef(args[0].Text), args[1].Text
	return i.edit(c, ref, func(tx *db.Tx, v *api.Value) (bool, error) {
		if err := exist(tx, i.fieldType().Elem(), &args[2]); err != nil {
			return false, err
		}
		if _, ok := v.Get(name); ok {
			return false, api.ErrMapDuplicateKey(i.m.Class.Name, i.m.Class.Fields[i.m.Field].Name, api.RefText(ref), name)
		}
		v.Keys, v.Items = append(v.Keys, name), append(v.Items, args[2])
		return true, nil
	})
}

func (i implicit) removeKey(c *api.Call, args []api.Value) (api.Result, error) {
	return i.edit(c, api.ParseRef(args[0].Text), func(_ *db.Tx, v *api.Value) (bool, error) {
		for n, k := range v.Keys {
			if k == args[1].Text {
				v.Keys, v.Items = append(v.Keys[:n], v.Keys[n+1:]...), append(v.Items[:n], v.Items[n+1:]...)
				return true, nil
			}
		}
		return false, nil
	})
}

func (i implicit) addElem(c *api.Call, args []api.Value) (api.Result, error) {
	return i.edit(c, api.ParseRef(args[0].Text), func(tx *db.Tx, v *api.Value) (bool, error) {
		if err := exist(tx, i.fieldType().Elem(), &args[1]); err != nil {
			return false, err
		}
		for n := range v.Items {
			if v.Items[n].Text == args[1].Text {
				return false, nil
			}
		}
		v.Items = append(v.Items, args[1])
		return true, nil
	})
}

func (i implicit) removeElem(c *api.Call, args []api.Value) (api.Result, error) {
	return i.edit(c, api.ParseRef(args[0].Text), func(_ *db.Tx, v *api.Value) (bool, error) {
		for n := range v.Items {
			if v.Items[n].Text == args[1].Text {
				v.Items = append(v.Items[:n], v.Items[n+1:]...)
				return true, nil
			}
		}
		return false, nil
	})
}

func (i implicit) create(c *api.Call, args []api.Value) (api.Result, error) {
	r, err := api.Construct(i.m.Class, &args[0])
	if err != nil {
		return nil, err
	}
	ref := string(api.NewRef[api.VM]())
	err = i.db.Update(c, func(tx *db.Tx) error {
		tx.InsertRecord(ref, r)
		return nil
	})
	return api.StringResult(ref), err
}

func (i implicit) destroy(c *api.Call, args []api.Value) (api.Result, error) {
	return api.Void{}, i.db.Update(c, func(tx *db.Tx) error {
		return tx.DeleteRecord(i.m.Class, api.ParseRef(args[0].Text))
	})
}
