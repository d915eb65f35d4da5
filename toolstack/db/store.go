package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"cairn/toolstack/api"
)

// storeVersion is the version of the stored form of a record. A reader accepts
// later versions, which only add members, and keeps what it does not know.
const storeVersion = 1

const objectPrefix = "obj/"

func storeKey(k key) string { return objectPrefix + k.class.Name + "/" + k.ref }

// later is what a record has from a later version; it is written back as it
// came, with the highest version that ever wrote the record.
type later struct {
	version int64
	members api.Value
}

// encode writes a record as {"v":1,"record":{…}} with the fields the database
// derives left out and unknown members kept.
func encode(r api.Record, l *later) []byte {
	version := int64(storeVersion)
	if l != nil {
		version = max(version, l.version)
	}
	b := append([]byte(nil), `{"v":`...)
	b = strconv.AppendInt(b, version, 10)
	b = append(b, `,"record":{`...)
	fields := r.Class().Fields
	for i := range fields {
		if fields[i].Derived {
			continue
		}
		b = api.OpenMember(b, api.JSON, fields[i].Name)
		b = r.AppendField(b, api.JSON, i)
	}
	if l != nil {
		for i, name := range l.members.Keys {
			b = api.OpenMember(b, api.JSON, name)
			b = api.AppendJSONValue(b, &l.members.Items[i])
		}
	}
	return append(b, "}}"...)
}

// decode reads what encode wrote, in this version or another.
func decode(class *api.ClassInfo, text []byte) (api.Record, *later, error) {
	v, err := api.ParseJSON(text)
	if err != nil {
		return nil, nil, err
	}
	stored, ok := v.Get("record")
	if !ok || stored.Kind != api.StructValue {
		return nil, nil, fmt.Errorf("no record")
	}
	r := class.New()
	l := later{version: storedVersion(&v), members: api.Value{Kind: api.StructValue}}
	n := -1
	for i, name := range stored.Keys {
		// Fields mostly come in the order they were written in.
		if n = nextField(class, n, name); n < 0 {
			l.members.Keys = append(l.members.Keys, name)
			l.members.Items = append(l.members.Items, stored.Items[i])
			continue
		}
		if err := r.SetField(n, &stored.Items[i]); err != nil {
			return nil, nil, fmt.Errorf("field %s: %w", name, err)
		}
	}
	if l.version <= storeVersion && len(l.members.Keys) == 0 {
		return r, nil, nil
	}
	return r, &l, nil
}

func storedVersion(v *api.Value) int64 {
	n, ok := v.Get("v")
	if !ok {
		return 0
	}
	version, err := strconv.ParseInt(n.Text, 10, 32)
	if err != nil {
		return 0
	}
	return version
}

// nextField finds a field by name, trying those after the last one first.
func nextField(class *api.ClassInfo, last int, name string) int {
	for n := last + 1; n < min(last+4, len(class.Fields)); n++ {
		if class.Fields[n].Name == name {
			return n
		}
	}
	return class.FieldByName(name)
}

// loaded is what the engine held: the objects, the first generation that was
// never used, and the pairs of classes this version does not know.
type loaded struct {
	snap    *Snapshot
	start   uint64
	foreign []Pair
}

var errRestoring = errors.New("a restore was interrupted; restore again")

// load reads everything from the engine.
func load(ctx context.Context, engine Engine) (loaded, error) {
	l := loaded{start: 1}
	err := engine.Load(ctx, metaPrefix, func(k string, value []byte) (err error) {
		switch k {
		case generationKey:
			l.start, err = strconv.ParseUint(string(value), 10, 64)
		case restoringKey:
			err = errRestoring
		}
		return err
	})
	if err != nil {
		return l, err
	}
	edits := make([]*tableEdit, len(api.Classes()))
	err = engine.Load(ctx, objectPrefix, func(k string, value []byte) error {
		known, err := loadObject(edits, k, value, l.start)
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		if !known {
			l.foreign = append(l.foreign, Pair{k, bytes.Clone(value)})
		}
		return nil
	})
	if err != nil {
		return l, err
	}
	l.snap = &Snapshot{generation: l.start, tables: make([]table, len(edits))}
	for id, e := range edits {
		if e != nil {
			l.snap.tables[id] = table{objects: e.objects.index, uuids: e.uuids.index}
		}
	}
	linkAll(l.snap)
	return l, nil
}

// loadObject adds an object, or tells that its class is of another version.
func loadObject(edits []*tableEdit, k string, value []byte, generation uint64) (known bool, err error) {
	name, ref, _ := strings.Cut(strings.TrimPrefix(k, objectPrefix), "/")
	class := api.FindClass(name)
	if class == nil || class.New == nil {
		return false, nil
	}
	r, later, err := decode(class, value)
	if err != nil {
		return true, err
	}
	e := edits[class.ID]
	if e == nil {
		e = editTable(table{})
		edits[class.ID] = e
	}
	e.objects.put(ref, &Object{ref: ref, record: r, created: generation, modified: generation, later: later})
	if u := r.GetUUID(); u != "" {
		e.uuids.put(u, ref)
	}
	return true, nil
}

// linkAll fills the derived sets of freshly loaded records.
func linkAll(snap *Snapshot) {
	sets := map[linkKey][]string{}
	classes := api.Classes()
	for i := range classes {
		class := &classes[i]
		snap.Objects(class, func(o *Object) bool {
			for j := range class.Forward {
				l := &class.Forward[j]
				o.record.LinkRefs(l.Field, func(other string) {
					k := linkKey{key{l.Other(), other}, l.OtherField}
					sets[k] = append(sets[k], o.ref)
				})
			}
			return true
		})
	}
	for k, refs := range sets {
		if o := snap.Object(k.class, k.ref); o != nil {
			o.record.SetLinks(k.field, refs)
		}
	}
}
