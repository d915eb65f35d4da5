package db

import (
	"fmt"
	"maps"
	"slices"

	"cairn/toolstack/api"
)

// linkEdit is what a transaction does to one set the database maintains.
type linkEdit struct {
	drop map[string]bool
	add  []string
}

// linkKey names such a set.
type linkKey struct {
	key
	field int
}

// unique refuses uuids that become those of two objects. What has come by a uuid before
// is not looked at.
func (tx *Tx) unique() error {
	fresh := map[key]bool{}
	for _, k := range tx.order {
		w := tx.writes[k]
		if w.record == nil || w.derived {
			continue
		}
		u := w.record.GetUUID()
		if u == "" || w.old != nil && w.old.record.GetUUID() == u {
			continue
		}
		mine := key{k.class, u}
		if fresh[mine] || tx.keeps(k.class, tx.base.RefByUUID(k.class, u), u) {
			return fmt.Errorf("%w: %s %s", ErrDuplicate, k.class.Name, u)
		}
		fresh[mine] = true
	}
	return nil
}

// keeps tells whether an object that was there has its uuid after the transaction, too.
func (tx *Tx) keeps(class *api.ClassInfo, ref, uuid string) bool {
	w := tx.writes[key{class, ref}]
	return ref != "" && (w == nil || w.record != nil && w.record.GetUUID() == uuid)
}

// commit turns the writes of a finished transaction into the next snapshot, the
// batch for the engine and the changes to tell.
func (tx *Tx) commit() *commit {
	tx.restoreLinks()
	tx.applyLinks(tx.linkEdits())
	c := &commit{ack: make(chan error, 1)}
	c.next = &Snapshot{generation: tx.base.generation + 1, tables: slices.Clone(tx.base.tables)}
	edits := map[int]*tableEdit{}
	for _, k := range tx.order {
		w := tx.writes[k]
		if w.record == nil && w.old == nil {
			continue // came and went inside the transaction
		}
		e := edits[k.class.ID]
		if e == nil {
			e = editTable(tx.base.tables[k.class.ID])
			edits[k.class.ID] = e
		}
		c.changes = append(c.changes, e.apply(k, w, c.next.generation))
		if !w.derived && !k.class.Volatile {
			c.batch.write(k, w)
		}
	}
	for id, e := range edits {
		c.next.tables[id] = table{objects: e.objects.index, uuids: e.uuids.index}
	}
	return c
}

func (b *Batch) write(k key, w *write) {
	if w.record == nil {
		b.Deletes = append(b.Deletes, storeKey(k))
		return
	}
	var l *later
	if w.old != nil {
		l = w.old.later
	}
	b.Puts = append(b.Puts, Pair{Key: storeKey(k), Value: encode(w.record, l)})
}

type tableEdit struct {
	objects *builder[*Object]
	uuids   *builder[string]
}

func editTable(t table) *tableEdit { return &tableEdit{build(t.objects), build(t.uuids)} }

// apply makes one write part of the table.
func (e *tableEdit) apply(k key, w *write, generation uint64) Change {
	ch := Change{Class: k.class, Ref: k.ref, Generation: generation, Created: generation, Op: Add}
	if w.old != nil {
		ch.Created, ch.Op = w.old.created, Mod
		u := w.old.record.GetUUID()
		has, _ := e.uuids.get(u) // somebody else by now, where the uuid was passed on
		if has == k.ref && (w.record == nil || u != w.record.GetUUID()) {
			e.uuids.remove(u)
		}
	}
	if w.record == nil {
		ch.Op = Del
		e.objects.remove(k.ref)
		return ch
	}
	o := &Object{ref: k.ref, record: w.record, created: ch.Created, modified: generation}
	if w.old != nil {
		o.later = w.old.later
	}
	e.objects.put(k.ref, o)
	if u := w.record.GetUUID(); u != "" && (w.old == nil || u != w.old.record.GetUUID()) {
		e.uuids.put(u, k.ref)
	}
	return ch
}

// restoreLinks undoes what the transaction wrote to sets the database
// maintains: they are what they were, and empty on a new object.
func (tx *Tx) restoreLinks() {
	for k, w := range tx.writes {
		if w.record == nil {
			continue
		}
		for i := range k.class.Reverse {
			field := k.class.Reverse[i].Field
			var want []string
			if w.old != nil {
				want = linkRefs(w.old.record, field)
			}
			if !slices.Equal(linkRefs(w.record, field), want) {
				w.record.SetLinks(field, want)
			}
		}
	}
}

func linkRefs(r api.Record, field int) []string {
	var refs []string
	r.LinkRefs(field, func(ref string) { refs = append(refs, ref) })
	return refs
}

// linkEdits finds which sets gain and lose members by the writes.
func (tx *Tx) linkEdits() map[linkKey]*linkEdit {
	edits := map[linkKey]*linkEdit{}
	edit := func(l *api.LinkInfo, other string) *linkEdit {
		k := linkKey{key{l.Other(), other}, l.OtherField}
		if edits[k] == nil {
			edits[k] = &linkEdit{drop: map[string]bool{}}
		}
		return edits[k]
	}
	for _, k := range tx.order {
		w := tx.writes[k]
		for i := range k.class.Forward {
			l := &k.class.Forward[i]
			var before, after []string
			if w.old != nil {
				before = linkRefs(w.old.record, l.Field)
			}
			if w.record != nil {
				after = linkRefs(w.record, l.Field)
			}
			for _, other := range before {
				if !slices.Contains(after, other) {
					edit(l, other).drop[k.ref] = true
				}
			}
			for _, other := range after {
				if !slices.Contains(before, other) {
					e := edit(l, other)
					e.add = append(e.add, k.ref)
				}
			}
		}
	}
	return edits
}

// applyLinks changes the sets, copying the objects that hold them. A reference
// to an object that does not exist has no other side.
func (tx *Tx) applyLinks(edits map[linkKey]*linkEdit) {
	keys := slices.SortedFunc(maps.Keys(edits), compareLinkKeys)
	for _, k := range keys {
		r := tx.linkTarget(k.key)
		if r == nil {
			continue
		}
		e := edits[k]
		refs := slices.DeleteFunc(linkRefs(r, k.field), func(ref string) bool { return e.drop[ref] })
		for _, ref := range e.add {
			if !slices.Contains(refs, ref) {
				refs = append(refs, ref)
			}
		}
		r.SetLinks(k.field, refs)
	}
}

func compareLinkKeys(a, b linkKey) int {
	switch {
	case a.class.ID != b.class.ID:
		return a.class.ID - b.class.ID
	case a.field != b.field:
		return a.field - b.field
	case a.ref < b.ref:
		return -1
	}
	return 1
}

// linkTarget returns the record holding a set, as a copy that may be changed.
func (tx *Tx) linkTarget(k key) api.Record {
	if w := tx.writes[k]; w != nil {
		return w.record
	}
	o := tx.base.Object(k.class, k.ref)
	if o == nil {
		return nil
	}
	w := tx.touch(k)
	w.record, w.derived = o.record.CloneRecord(), true
	return w.record
}
