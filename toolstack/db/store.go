package db

import (
	"context"
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

// encode writes a record as {"v":1,"record":{…}} with the fields the database
// derives left out and unknown members kept.
func encode(r api.Record, unknown *api.Value) []byte {
	b := append([]byte(nil), `{"v":`...)
	b = strconv.AppendInt(b, storeVersion, 10)
	b = append(b, `,"record":{`...)
	fields := r.Class().Fields
	for i := range fields {
		if fields[i].Derived {
			continue
		}
		b = api.OpenMember(b, api.JSON, fields[i].Name)
		b = r.AppendField(b, api.JSON, i)
	}
	if unknown != nil {
		for i, name := range unknown.Keys {
			b = api.OpenMember(b, api.JSON, name)
			b = api.AppendJSONValue(b, &unknown.Items[i])
		}
	}
	return append(b, "}}"...)
}

// decode reads what encode wrote, in this version or another.
func decode(class *api.ClassInfo, text []byte) (api.Record, *api.Value, error) {
	v, err := api.ParseJSON(text)
	if err != nil {
		return nil, nil, err
	}
	stored, ok := v.Get("record")
	if !ok || stored.Kind != api.StructValue {
		return nil, nil, fmt.Errorf("no record")
	}
	r := class.New()
	var unknown *api.Value
	n := -1
	for i, name := range stored.Keys {
		// Fields mostly come in the order they were written in.
		if n = nextField(class, n, name); n < 0 {
			if unknown == nil {
				unknown = &api.Value{Kind: api.StructValue}
			}
			unknown.Keys = append(unknown.Keys, name)
			unknown.Items = append(unknown.Items, stored.Items[i])
			continue
		}
		if err := r.SetField(n, &stored.Items[i]); err != nil {
			return nil, nil, fmt.Errorf("field %s: %w", name, err)
		}
	}
	return r, unknown, nil
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

// load reads everything from the engine and returns the first generation that
// was never used.
func load(ctx context.Context, engine Engine) (*Snapshot, uint64, error) {
	start := uint64(1)
	err := engine.Load(ctx, generationKey, func(_ string, value []byte) error {
		n, err := strconv.ParseUint(string(value), 10, 64)
		start = n
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	edits := make([]*tableEdit, len(api.Classes()))
	err = engine.Load(ctx, objectPrefix, func(k string, value []byte) error {
		if err := loadObject(edits, k, value, start); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	snap := &Snapshot{generation: start, tables: make([]table, len(edits))}
	for id, e := range edits {
		if e != nil {
			snap.tables[id] = table{objects: e.objects.index, uuids: e.uuids.index}
		}
	}
	linkAll(snap)
	return snap, start, nil
}

func loadObject(edits []*tableEdit, k string, value []byte, generation uint64) error {
	name, ref, _ := strings.Cut(strings.TrimPrefix(k, objectPrefix), "/")
	class := api.FindClass(name)
	if class == nil || class.New == nil {
		return nil // of another version; it stays where it is
	}
	r, unknown, err := decode(class, value)
	if err != nil {
		return err
	}
	e := edits[class.ID]
	if e == nil {
		e = editTable(table{})
		edits[class.ID] = e
	}
	e.objects.put(ref, &Object{ref: ref, record: r, created: generation, modified: generation, unknown: unknown})
	if u := r.GetUUID(); u != "" {
		e.uuids.put(u, ref)
	}
	return nil
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
