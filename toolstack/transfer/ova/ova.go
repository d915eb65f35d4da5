// Package ova reads and writes ova.xml, the description of VMs that travels with their
// disks: a value of XML-RPC with a version and a list of objects, each a class, a name
// such as Ref:3 by which the others mean it, and its record.
//
// What is kept: references inside a description are such names, and one to something
// that is not described is null, or absent from a set. A reader takes what others write,
// newer products too: classes, fields and enumerated values it does not know are left
// out. What comes is somebody else's: how long it is, how many objects there are and how
// many values each has is bounded, and of one object at a time there is more than its
// record in memory. Whether a described thing makes sense is not asked here.
//
// All of it is pure.
package ova

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"cairn/toolstack/api"
)

// Bounds of a description. A VM with 255 disks and 100 snapshots has 52,000 objects.
const (
	maxObjects = 1 << 16
	maxValues  = 1 << 14 // of one object, or of the version
)

// Version of the form that is written; a reader takes none above it.
const exportVersion = 2

// ErrFormat is what is no such description.
var ErrFormat = errors.New("not an ova.xml that can be read")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Version says who wrote a description.
type Version struct {
	Hostname, Date, ProductVersion, ProductBrand, BuildNumber string
	Major, Minor                                              int64 // of the API
	Export                                                    int64 // of the form
}

// Current is the version of what is written here.
func Current(hostname, date, brand, product, build string) Version {
	return Version{hostname, date, product, brand, build, 1, 20, exportVersion}
}

// Readable says whether what follows can be understood.
func (v Version) Readable() bool { return v.Export <= exportVersion }

// Object is a record and the name others have for it.
type Object struct {
	ID     string
	Record api.Record
}

// Document is a description.
type Document struct {
	Version Version
	Objects []Object
}

// Find returns the record of a name, or nil.
func Find[T any, P api.RecordPtr[T]](d *Document, id string) *T {
	for _, o := range d.Objects {
		if r, ok := o.Record.(P); ok && o.ID == id {
			return (*T)(r)
		}
	}
	return nil
}

// Named is an object under the reference it has here.
type Named struct {
	Ref    string
	Record api.Record
}

// Number makes objects of records: Ref:0 and so on in their order, with references to
// each other in these terms and none to anything else.
func Number(records []Named) []Object {
	ids := make(map[string]string, len(records))
	for i, r := range records {
		ids[r.Ref] = "Ref:" + strconv.Itoa(i)
	}
	objects := make([]Object, len(records))
	for i, r := range records {
		objects[i] = Object{ids[r.Ref], renamed(r.Record, ids)}
	}
	return objects
}

// renamed is a copy of a record with other names for what it refers to.
func renamed(r api.Record, names map[string]string) api.Record {
	c := r.CloneRecord()
	fields := r.Class().Fields
	for i := range fields {
		t := fields[i].Type
		if !refers(t) {
			continue
		}
		v, err := api.ParseJSON(r.AppendField(nil, api.JSON, i))
		if err != nil {
			continue // what this process encodes it can read
		}
		rename(&v, t, names)
		_ = c.SetField(i, &v) // of the same type
	}
	return c
}

// refers tells types that have references in them.
func refers(t *api.TypeInfo) bool {
	switch t.Kind {
	case api.KindRef:
		return true
	case api.KindSet, api.KindOption:
		return refers(t.Elem())
	case api.KindMap:
		return refers(t.Key()) || refers(t.Elem())
	}
	return false
}

// rename gives the references in a value of a type their other names.
func rename(v *api.Value, t *api.TypeInfo, names map[string]string) {
	switch t.Kind {
	case api.KindRef:
		v.Text = api.RefText(names[api.ParseRef(v.Text)])
	case api.KindSet, api.KindOption:
		for i := range v.Items {
			rename(&v.Items[i], t.Elem(), names)
		}
		v.Items = slices.DeleteFunc(v.Items, null)
	case api.KindMap:
		renameMap(v, t, names)
	}
}

func null(v api.Value) bool { return v.Kind == api.StringValue && v.Text == api.NullRef }

func renameMap(v *api.Value, t *api.TypeInfo, names map[string]string) {
	was := *v
	v.Keys, v.Items = nil, nil
	for i, k := range was.Keys {
		key, item := api.Value{Kind: api.StringValue, Text: k}, was.Items[i]
		rename(&key, t.Key(), names)
		rename(&item, t.Elem(), names)
		if null(key) || null(item) {
			continue
		}
		v.Keys, v.Items = append(v.Keys, key.Text), append(v.Items, item)
	}
}
