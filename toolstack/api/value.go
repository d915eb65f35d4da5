package api

import "fmt"

// ValueKind is what a decoded wire value looked like.
type ValueKind uint8

// The kinds of wire values. An untyped XML value is a string; numbers of both
// encodings keep their text.
const (
	NilValue ValueKind = iota
	StringValue
	IntValue
	FloatValue
	BoolValue // Text is "1" or "0"
	TimeValue
	ArrayValue
	StructValue
)

// Value is a wire value before the description says what it means.
type Value struct {
	Kind  ValueKind
	Text  string
	Items []Value
	Keys  []string // of a struct, parallel to Items
}

// Get returns the member of a struct.
func (v *Value) Get(key string) (*Value, bool) {
	for i, k := range v.Keys {
		if k == key {
			return &v.Items[i], true
		}
	}
	return nil, false
}

func typeError(v *Value, want string) error {
	return fmt.Errorf("%s where %s is expected", [...]string{
		"nothing", "a string", "an integer", "a number", "a boolean", "a date", "an array", "a struct",
	}[v.Kind], want)
}
