// Package operation says which operations may begin on which object: one
// declarative table per class, from which follow both what allowed_operations
// shows and what a call is answered.
//
// current_operations is the lock table: Begin checks an operation and enters it
// in the transaction that records its intent, End takes it out in the one that
// records its result. Check and Allowed are pure functions of a database
// reader; a table is not changed after its declaration, so all of this may be
// used by many goroutines.
//
// allowed_operations is a cache. Whoever changes an object refreshes it in the
// same transaction where that is cheap; a Keeper corrects what depends on other
// objects, such as the disks of a machine that has started.
package operation

import (
	"maps"
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// subject is an operation on an object, as a condition sees it.
type subject[T any] struct {
	r   db.Reader
	ref api.Ref[T]
	rec *T
	op  string
}

// condition answers the documented error when something forbids the operation.
type condition[T any] func(s *subject[T]) error

// rule is one line of a table.
type rule[T any, O ~string] struct {
	op O
	// first is looked at before, and then after the operations in progress.
	first, then []condition[T]
	// beside are the operations that may be in progress meanwhile.
	beside []O
}

// Table is the operations of one class.
type Table[T any, P api.RecordPtr[T], O ~string] struct {
	rules []rule[T, O]
	// first and then hold for all operations, before and after those of a rule.
	first, then []condition[T]
	// built are the operations that this version performs: any other is
	// answered NOT_IMPLEMENTED and never shown as allowed.
	built  []O
	fields func(*T) (allowed *[]O, current *map[string]O)
	// busy is the error for an operation in progress, nil for
	// OTHER_OPERATION_IN_PROGRESS.
	busy func(s *subject[T], task string, other O) error
}

func (t *Table[T, P, O]) class() *api.ClassInfo { return P(nil).Class() }

func (t *Table[T, P, O]) rule(op O) *rule[T, O] {
	i := slices.IndexFunc(t.rules, func(r rule[T, O]) bool { return r.op == op })
	if i < 0 {
		return nil
	}
	return &t.rules[i]
}

// Check answers whether an operation may begin on an object now, and if not the
// documented error why. The record is the object as it is, or is about to be.
func (t *Table[T, P, O]) Check(r db.Reader, ref api.Ref[T], rec *T, op O) error {
	if !slices.Contains(t.built, op) {
		return api.ErrNotImplemented(t.class().Name + "." + string(op))
	}
	return t.judge(r, ref, rec, op)
}

// judge is Check for all operations of the class, built or not.
func (t *Table[T, P, O]) judge(r db.Reader, ref api.Ref[T], rec *T, op O) error {
	rule := t.rule(op)
	if rule == nil {
		return api.ErrOperationNotAllowed(string(op) + " is not an operation that can begin")
	}
	s := &subject[T]{r, ref, rec, string(op)}
	if err := firstError(s, t.first, rule.first); err != nil {
		return err
	}
	if task, other, yes := t.conflict(rule, rec); yes {
		if t.busy != nil {
			return t.busy(s, task, other)
		}
		return inProgress(t.class(), string(ref), task, string(other))
	}
	return firstError(s, rule.then, t.then)
}

func firstError[T any](s *subject[T], groups ...[]condition[T]) error {
	for _, conditions := range groups {
		for _, holds := range conditions {
			if err := holds(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func inProgress(class *api.ClassInfo, ref, task, op string) error {
	return api.ErrOtherOperationInProgress(class.Name, api.RefText(ref), op, task)
}

// conflict finds an operation in progress that a rule may not run beside; of
// several always the same.
func (t *Table[T, P, O]) conflict(r *rule[T, O], rec *T) (task string, op O, yes bool) {
	_, current := t.fields(rec)
	if len(*current) == 0 {
		return "", "", false
	}
	for _, task := range slices.Sorted(maps.Keys(*current)) {
		if op := (*current)[task]; !slices.Contains(r.beside, op) {
			return task, op, true
		}
	}
	return "", "", false
}

// Allowed is what allowed_operations shows for an object.
func (t *Table[T, P, O]) Allowed(r db.Reader, ref api.Ref[T], rec *T) []O {
	ops := []O{}
	for i := range t.rules {
		if op := t.rules[i].op; t.Check(r, ref, rec, op) == nil {
			ops = append(ops, op)
		}
	}
	return ops
}

// Begin checks an operation, enters it under a task, and returns the object's
// record, which the transaction may change further.
func (t *Table[T, P, O]) Begin(tx *db.Tx, ref api.Ref[T], op O, task string) (*T, error) {
	rec, err := db.Edit[T, P](tx, ref)
	if err != nil {
		return nil, err
	}
	if err := t.Check(tx, ref, rec, op); err != nil {
		return nil, err
	}
	t.Enter(tx, ref, rec, op, task)
	return rec, nil
}

// TaskKey names the operation of a call in current_operations; a call without a
// task gets a name of its own.
func TaskKey(c *api.Call) string {
	if ref := c.Task.Ref(); !ref.IsNull() {
		return ref.String()
	}
	return api.NewRef[api.Task]().String()
}

// Enter puts an operation that was checked into a record, or changes what the
// operation of a task is.
func (t *Table[T, P, O]) Enter(r db.Reader, ref api.Ref[T], rec *T, op O, task string) {
	allowed, current := t.fields(rec)
	if *current == nil {
		*current = map[string]O{}
	}
	(*current)[task] = op
	*allowed = t.Allowed(r, ref, rec)
}

// End takes the operation of a task out of current_operations and returns the
// record; call Renew when the transaction has recorded the result.
func (t *Table[T, P, O]) End(tx *db.Tx, ref api.Ref[T], task string) (*T, error) {
	rec, err := db.Edit[T, P](tx, ref)
	if err != nil {
		return nil, err
	}
	_, current := t.fields(rec)
	delete(*current, task)
	t.Renew(tx, ref, rec)
	return rec, nil
}

// Renew computes allowed_operations of a record that is being edited.
func (t *Table[T, P, O]) Renew(r db.Reader, ref api.Ref[T], rec *T) {
	allowed, _ := t.fields(rec)
	*allowed = t.Allowed(r, ref, rec)
}

// refresh corrects allowed_operations, and with clear forgets the operations in
// progress; it reports what it forgot. An object that is right is not touched.
func (t *Table[T, P, O]) refresh(tx *db.Tx, ref string, clear bool) (forgotten []string, err error) {
	rec, err := db.Get[T, P](tx, api.Ref[T](ref))
	if err != nil {
		return nil, err
	}
	_, current := t.fields(rec)
	if clear = clear && len(*current) > 0; clear {
		for _, op := range *current {
			forgotten = append(forgotten, string(op))
		}
	} else if t.right(tx, ref) {
		return nil, nil
	}
	if rec, err = db.Edit[T, P](tx, api.Ref[T](ref)); err != nil {
		return nil, err
	}
	if clear {
		_, current = t.fields(rec)
		*current = nil
	}
	t.Renew(tx, api.Ref[T](ref), rec)
	return forgotten, nil
}

// right reports whether allowed_operations of an object are as they should be;
// those of one that is gone are.
func (t *Table[T, P, O]) right(r db.Reader, ref string) bool {
	rec, err := db.Get[T, P](r, api.Ref[T](ref))
	if err != nil {
		return true
	}
	allowed, _ := t.fields(rec)
	return slices.Equal(*allowed, t.Allowed(r, api.Ref[T](ref), rec))
}
