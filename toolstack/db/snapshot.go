package db

import (
	"iter"
	"strings"
	"sync/atomic"

	"cairn/toolstack/api"
)

// Object is one record in a snapshot with what the database knows about it.
// It is immutable; its encoded forms are made once and kept.
type Object struct {
	ref      string
	record   api.Record
	created  uint64
	modified uint64
	later    *later // nil when there is nothing of a later version
	encoded  [2]atomic.Pointer[[]byte]
}

// Ref is the object's reference.
func (o *Object) Ref() string { return o.ref }

// Record is the object's record; it must not be changed.
func (o *Object) Record() api.Record { return o.record }

// Created and Modified are the generations of the object's first and last
// change.
func (o *Object) Created() uint64 { return o.created }

// Modified is the generation of the last change.
func (o *Object) Modified() uint64 { return o.modified }

// AppendRecord appends the record as a client sees it.
func (o *Object) AppendRecord(b []byte, e api.Encoding) []byte {
	if p := o.encoded[e].Load(); p != nil {
		return append(b, *p...)
	}
	start := len(b)
	b = api.AppendRecord(b, e, o.record)
	kept := append([]byte(nil), b[start:]...)
	o.encoded[e].Store(&kept)
	return b
}

// table holds the objects of one class.
type table struct {
	objects index[*Object]
	uuids   index[string] // uuid → ref
}

// Snapshot is an immutable state of the whole database.
type Snapshot struct {
	generation uint64
	tables     []table // by class id
}

// Reader is a Snapshot or a Tx.
type Reader interface {
	// Object returns the object of a class, nil when there is none.
	Object(class *api.ClassInfo, ref string) *Object
	// Objects calls f for each object of a class until it returns false.
	Objects(class *api.ClassInfo, f func(*Object) bool)
	// RefByUUID returns the reference of the object with the uuid, or "".
	RefByUUID(class *api.ClassInfo, uuid string) string
}

// Generation grows with each transaction, over restarts too.
func (s *Snapshot) Generation() uint64 { return s.generation }

// Count is the number of objects of a class.
func (s *Snapshot) Count(class *api.ClassInfo) int { return s.tables[class.ID].objects.count }

// Object implements Reader.
func (s *Snapshot) Object(class *api.ClassInfo, ref string) *Object {
	o, _ := s.tables[class.ID].objects.get(ref)
	return o
}

// Objects implements Reader.
func (s *Snapshot) Objects(class *api.ClassInfo, f func(*Object) bool) {
	s.tables[class.ID].objects.all(func(_ string, o *Object) bool { return f(o) })
}

// RefByUUID implements Reader.
func (s *Snapshot) RefByUUID(class *api.ClassInfo, uuid string) string {
	ref, _ := s.tables[class.ID].uuids.get(uuid)
	return ref
}

// Get returns a record, or HANDLE_INVALID.
func Get[T any, P api.RecordPtr[T]](r Reader, ref api.Ref[T]) (*T, error) {
	class := P(nil).Class()
	o := r.Object(class, string(ref))
	if o == nil {
		return nil, HandleInvalid(class, string(ref))
	}
	return (*T)(o.record.(P)), nil
}

// All iterates over the records of a class in no particular order.
func All[T any, P api.RecordPtr[T]](r Reader) iter.Seq2[api.Ref[T], *T] {
	return func(yield func(api.Ref[T], *T) bool) {
		r.Objects(P(nil).Class(), func(o *Object) bool {
			return yield(api.Ref[T](o.ref), (*T)(o.record.(P)))
		})
	}
}

// ByUUID returns the reference of the object with the uuid, or UUID_INVALID.
func ByUUID[T any, P api.RecordPtr[T]](r Reader, uuid string) (api.Ref[T], error) {
	class := P(nil).Class()
	if ref := r.RefByUUID(class, uuid); ref != "" {
		return api.Ref[T](ref), nil
	}
	return "", api.ErrUUIDInvalid(class.Name, uuid)
}

// Find returns the object that a text names by reference or uuid. The error is
// HANDLE_INVALID for a reference to nothing and UUID_INVALID for all else.
func Find[T any, P api.RecordPtr[T]](r Reader, text string) (api.Ref[T], *T, error) {
	ref := api.Ref[T](api.ParseRef(text))
	record, err := Get[T, P](r, ref)
	if err != nil && !strings.HasPrefix(text, "OpaqueRef:") {
		if ref, err = ByUUID[T, P](r, text); err == nil {
			record, err = Get[T, P](r, ref)
		}
	}
	return ref, record, err
}

// ByName returns the objects with the name_label.
func ByName[T any, P api.RecordPtr[T]](r Reader, name string) []api.Ref[T] {
	var refs []api.Ref[T]
	r.Objects(P(nil).Class(), func(o *Object) bool {
		if o.record.GetName() == name {
			refs = append(refs, api.Ref[T](o.ref))
		}
		return true
	})
	return refs
}
