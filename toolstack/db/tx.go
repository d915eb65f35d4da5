package db

import (
	"cairn/toolstack/api"
	"context"
)

// key names an object.
type key struct {
	class *api.ClassInfo
	ref   string
}

// write is what a transaction does to one object. A nil record deletes it.
type write struct {
	record api.Record
	old    *Object
	// derived marks an object whose sets change because of others: it is
	// new to readers but need not be stored.
	derived bool
}

// Tx is a transaction. It may only be used inside the function it was given to.
type Tx struct {
	base   *Snapshot
	writes map[key]*write
	order  []key // of first touch, so that changes are told in order
	ended  bool
}

func newTx(base *Snapshot) *Tx { return &Tx{base: base, writes: map[key]*write{}} }

func (tx *Tx) end() { tx.ended = true }

func (tx *Tx) check() {
	if tx.ended {
		panic("db: transaction used after its end")
	}
}

// touch returns the write of an object, beginning one if need be.
func (tx *Tx) touch(k key) *write {
	tx.check()
	w := tx.writes[k]
	if w == nil {
		w = &write{old: tx.base.Object(k.class, k.ref)}
		tx.writes[k] = w
		tx.order = append(tx.order, k)
	}
	return w
}

// Object implements Reader.
func (tx *Tx) Object(class *api.ClassInfo, ref string) *Object {
	tx.check()
	if w := tx.writes[key{class, ref}]; w != nil {
		if w.record == nil {
			return nil
		}
		return &Object{ref: ref, record: w.record}
	}
	return tx.base.Object(class, ref)
}

// Objects implements Reader.
func (tx *Tx) Objects(class *api.ClassInfo, f func(*Object) bool) {
	tx.check()
	for _, k := range tx.order {
		if w := tx.writes[k]; k.class == class && w.record != nil && !f(&Object{ref: k.ref, record: w.record}) {
			return
		}
	}
	tx.base.Objects(class, func(o *Object) bool {
		if tx.writes[key{class, o.ref}] != nil {
			return true
		}
		return f(o)
	})
}

// RefByUUID implements Reader.
func (tx *Tx) RefByUUID(class *api.ClassInfo, uuid string) string {
	tx.check()
	for _, k := range tx.order {
		if w := tx.writes[k]; k.class == class && w.record != nil && w.record.GetUUID() == uuid {
			return k.ref
		}
	}
	ref := tx.base.RefByUUID(class, uuid)
	if w := tx.writes[key{class, ref}]; w != nil && (w.record == nil || w.record.GetUUID() != uuid) {
		return ""
	}
	return ref
}

// InsertRecord adds a record under a reference that must be new; sets the
// database maintains are emptied, and a missing uuid is made up.
func (tx *Tx) InsertRecord(ref string, r api.Record) {
	class := r.Class()
	if tx.Object(class, ref) != nil {
		panic("db: " + class.Name + " " + ref + " inserted twice")
	}
	w := tx.touch(key{class, ref})
	if r.GetUUID() == "" && class.UUIDField >= 0 {
		r.SetUUID(api.NewUUID())
	}
	w.record, w.derived = r, false
}

// EditRecord returns a private copy that is written at the end of the
// transaction, or HANDLE_INVALID. Later edits return the same copy.
func (tx *Tx) EditRecord(class *api.ClassInfo, ref string) (api.Record, error) {
	o := tx.Object(class, ref)
	if o == nil {
		return nil, HandleInvalid(class, ref)
	}
	w := tx.touch(key{class, ref})
	if w.record == nil {
		w.record = o.record.CloneRecord()
	}
	w.derived = false
	return w.record, nil
}

// DeleteRecord removes an object, or answers HANDLE_INVALID.
func (tx *Tx) DeleteRecord(class *api.ClassInfo, ref string) error {
	if tx.Object(class, ref) == nil {
		return HandleInvalid(class, ref)
	}
	w := tx.touch(key{class, ref})
	w.record = nil
	return nil
}

// Touch makes an object count as modified without changing or storing it.
func (tx *Tx) Touch(class *api.ClassInfo, ref string) error {
	tx.check()
	if tx.linkTarget(key{class, ref}) == nil {
		return HandleInvalid(class, ref)
	}
	return nil
}

// Insert adds a record under a fresh reference.
func Insert[T any, P api.RecordPtr[T]](tx *Tx, r *T) api.Ref[T] {
	ref := api.NewRef[T]()
	tx.InsertRecord(string(ref), P(r))
	return ref
}

// InsertAs adds a record under a reference of the caller's choice.
func InsertAs[T any, P api.RecordPtr[T]](tx *Tx, ref api.Ref[T], r *T) {
	tx.InsertRecord(string(ref), P(r))
}

// Edit returns a private copy of a record that is written when the transaction
// ends, or HANDLE_INVALID.
func Edit[T any, P api.RecordPtr[T]](tx *Tx, ref api.Ref[T]) (*T, error) {
	r, err := tx.EditRecord(P(nil).Class(), string(ref))
	if err != nil {
		return nil, err
	}
	return (*T)(r.(P)), nil
}

// Modify is a transaction that edits one record; f may refuse, which changes
// nothing.
func Modify[T any, P api.RecordPtr[T]](ctx context.Context, d *DB, ref api.Ref[T], f func(tx *Tx, r *T) error) error {
	return d.Update(ctx, func(tx *Tx) error {
		r, err := Edit[T, P](tx, ref)
		if err != nil {
			return err
		}
		return f(tx, r)
	})
}

// Delete removes an object, or answers HANDLE_INVALID. References to it stay as
// they are.
func Delete[T any, P api.RecordPtr[T]](tx *Tx, ref api.Ref[T]) error {
	return tx.DeleteRecord(P(nil).Class(), string(ref))
}
