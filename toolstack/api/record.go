package api

import (
	"errors"
	"time"
)

// Record is any class's record. The methods are generated; fields are named by
// their index into Class().Fields.
type Record interface {
	// Class describes the class. It may be called on a nil record.
	Class() *ClassInfo
	// AppendField appends the value of a field.
	AppendField(b []byte, e Encoding, field int) []byte
	// SetField changes a field to a wire value, leaving it on error.
	SetField(field int, v *Value) error
	// CloneRecord returns a copy that shares no map or slice with the record.
	CloneRecord() Record
	// LinkRefs calls f for each reference held by a field that is one end of
	// a relation.
	LinkRefs(field int, f func(ref string))
	// SetLinks replaces a set the database maintains.
	SetLinks(field int, refs []string)
	// SetUUID changes the uuid, GetUUID returns it.
	GetUUID() string
	SetUUID(uuid string)
	// GetName returns name_label, or "" where there is none.
	GetName() string
}

// RecordPtr is satisfied by the pointer to a generated record type.
type RecordPtr[T any] interface {
	*T
	Record
	Clone() *T
}

// ClassOf returns the description of T's class.
func ClassOf[T any, P RecordPtr[T]]() *ClassInfo { return P(nil).Class() }

func linkOne(ref string, f func(string)) {
	if ref != "" {
		f(ref)
	}
}

func linkMany[T ~string](set []T, f func(string)) {
	for _, r := range set {
		linkOne(string(r), f)
	}
}

func toLinks[T ~string](refs []string) []T {
	out := make([]T, len(refs))
	for i, r := range refs {
		out[i] = T(r)
	}
	return out
}

var errNoField = errors.New("no such field")

// The setters change a field only if the value can be decoded.

func setString(field *string, v *Value) error {
	s, err := decodeString(v)
	if err == nil {
		*field = s
	}
	return err
}

func setRef(field *string, v *Value) error {
	s, err := decodeRefText(v)
	if err == nil {
		*field = s
	}
	return err
}

func setInt(field *int64, v *Value) error {
	n, err := decodeInt(v)
	if err == nil {
		*field = n
	}
	return err
}

func setFloat(field *float64, v *Value) error {
	f, err := decodeFloat(v)
	if err == nil {
		*field = f
	}
	return err
}

func setBool(field *bool, v *Value) error {
	t, err := decodeBool(v)
	if err == nil {
		*field = t
	}
	return err
}

func setTime(field *time.Time, v *Value) error {
	t, err := decodeTime(v)
	if err == nil {
		*field = t
	}
	return err
}

func setTexts[T ~string](field *[]T, v *Value) error {
	set, err := decodeTexts[T](v)
	if err == nil {
		*field = set
	}
	return err
}

func setTextMap[K, V ~string](field *map[K]V, v *Value) error {
	m, err := decodeTextMap[K, V](v)
	if err == nil {
		*field = m
	}
	return err
}

func setField[T any](field *T, v *Value, decode func(*Value) (T, error)) error {
	decoded, err := decode(v)
	if err == nil {
		*field = decoded
	}
	return err
}
