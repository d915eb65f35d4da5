package api

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The decoders below take a pointer to the value and, for references and
// enumerations, go through plain strings: instantiating them for each of some
// hundred types would cost megabytes of code and most of the compile time.

func decodeString(v *Value) (string, error) {
	if v.Kind != StringValue {
		return "", typeError(v, "a string")
	}
	return v.Text, nil
}

func decodeRefText(v *Value) (string, error) {
	s, err := decodeString(v)
	return ParseRef(s), err
}

func decodeRef[T any](v *Value) (Ref[T], error) {
	s, err := decodeRefText(v)
	return Ref[T](s), err
}

func decodeInt(v *Value) (int64, error) {
	switch v.Kind {
	case StringValue, IntValue:
		n, err := strconv.ParseInt(strings.TrimSpace(v.Text), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is no integer", v.Text)
		}
		return n, nil
	case FloatValue:
		f, err := strconv.ParseFloat(v.Text, 64)
		if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
			return 0, fmt.Errorf("%q is no integer", v.Text)
		}
		return int64(f), nil
	}
	return 0, typeError(v, "an integer")
}

func decodeFloat(v *Value) (float64, error) {
	switch v.Kind {
	case StringValue, IntValue, FloatValue:
		f, err := strconv.ParseFloat(strings.TrimSpace(v.Text), 64)
		if err != nil {
			return 0, fmt.Errorf("%q is no number", v.Text)
		}
		return f, nil
	}
	return 0, typeError(v, "a number")
}

func decodeBool(v *Value) (bool, error) {
	switch {
	case v.Kind == BoolValue:
		return v.Text == "1", nil
	case v.Kind == StringValue && (v.Text == "true" || v.Text == "1"):
		return true, nil
	case v.Kind == StringValue && (v.Text == "false" || v.Text == "0"):
		return false, nil
	}
	return false, typeError(v, "a boolean")
}

// timeLayouts are the forms of ISO 8601 that clients send.
var timeLayouts = [...]string{
	"20060102T15:04:05Z07:00", "20060102T15:04:05", "2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05",
	"20060102T150405Z07:00", "20060102T15:04:05.999999999Z07:00", "20060102T15:04:05Z0700", "2006-01-02T15:04:05Z0700",
}

func decodeTime(v *Value) (time.Time, error) {
	if v.Kind != StringValue && v.Kind != TimeValue {
		return time.Time{}, typeError(v, "a date")
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, strings.TrimSpace(v.Text)); err == nil {
			return fromWire(t), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no date", v.Text)
}

// fromWire makes the wire's "never", the start of 1970, Go's zero time.
func fromWire(t time.Time) time.Time {
	if t.Unix() == 0 {
		return time.Time{}
	}
	return t.UTC()
}

// decodeTexts reads a set of strings, references or enumerated values.
func decodeTexts[T ~string](v *Value) ([]T, error) {
	if v.Kind != ArrayValue {
		return nil, typeError(v, "an array")
	}
	if len(v.Items) == 0 {
		return nil, nil
	}
	out := make([]T, len(v.Items))
	for i := range v.Items {
		s, err := decodeRefText(&v.Items[i])
		if err != nil {
			return nil, err
		}
		out[i] = T(s)
	}
	return out, nil
}

// decodeTextMap reads a map whose keys and values are written as strings.
func decodeTextMap[K, V ~string](v *Value) (map[K]V, error) {
	if v.Kind != StructValue {
		return nil, typeError(v, "a struct")
	}
	out := make(map[K]V, len(v.Items))
	for i := range v.Items {
		s, err := decodeRefText(&v.Items[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Keys[i], err)
		}
		out[K(ParseRef(v.Keys[i]))] = V(s)
	}
	return out, nil
}

func setDecoder[T any](elem func(*Value) (T, error)) func(*Value) ([]T, error) {
	return func(v *Value) ([]T, error) {
		if v.Kind != ArrayValue {
			return nil, typeError(v, "an array")
		}
		if len(v.Items) == 0 {
			return nil, nil
		}
		out := make([]T, len(v.Items))
		for i := range v.Items {
			var err error
			if out[i], err = elem(&v.Items[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
}

func mapDecoder[K comparable, V any](key func(*Value) (K, error), elem func(*Value) (V, error)) func(*Value) (map[K]V, error) {
	return func(v *Value) (map[K]V, error) {
		if v.Kind != StructValue {
			return nil, typeError(v, "a struct")
		}
		out := make(map[K]V, len(v.Items))
		for i := range v.Items {
			k, err := key(&Value{Kind: StringValue, Text: v.Keys[i]})
			if err != nil {
				return nil, err
			}
			if out[k], err = elem(&v.Items[i]); err != nil {
				return nil, fmt.Errorf("%s: %w", v.Keys[i], err)
			}
		}
		return out, nil
	}
}

func optionDecoder[T any](elem func(*Value) (T, error)) func(*Value) (*T, error) {
	return func(v *Value) (*T, error) {
		switch {
		case v.Kind == ArrayValue && len(v.Items) == 0:
			return nil, nil
		case v.Kind == ArrayValue && len(v.Items) == 1:
			out, err := elem(&v.Items[0])
			return &out, err
		}
		return nil, typeError(v, "an option")
	}
}

// decodeRecord fills a fresh record from a struct; members it does not know are
// left alone, as a client of a newer version may send them.
func decodeRecord[T any, P RecordPtr[T]](v *Value) (*T, error) {
	rec := P(nil).Class().New()
	if err := FillRecord(rec, v, func(*FieldInfo) bool { return true }); err != nil {
		return nil, err
	}
	return (*T)(rec.(P)), nil
}

// FillRecord sets the fields of rec that v holds and that want selects.
func FillRecord(rec Record, v *Value, want func(*FieldInfo) bool) error {
	if v.Kind != StructValue {
		return typeError(v, "a record")
	}
	info := rec.Class()
	for i, key := range v.Keys {
		n := info.FieldByName(key)
		if n < 0 || !want(&info.Fields[n]) {
			continue
		}
		if err := rec.SetField(n, &v.Items[i]); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// Construct makes a record from a client's constructor argument: defaults,
// then what the client gave for fields a constructor may set.
func Construct(class *ClassInfo, v *Value) (Record, error) {
	for i := range class.Fields {
		if f := &class.Fields[i]; f.Required {
			if _, ok := v.Get(f.Name); !ok {
				return nil, ErrFieldTypeError(f.Name)
			}
		}
	}
	r := class.New()
	if err := FillRecord(r, v, func(f *FieldInfo) bool { return f.Qualifier != RO }); err != nil {
		return nil, ErrFieldTypeError("args")
	}
	return r, nil
}

// constructRecord is Construct for one class.
func constructRecord[T any, P RecordPtr[T]](v *Value) (*T, error) {
	r, err := Construct(P(nil).Class(), v)
	if err != nil {
		return nil, err
	}
	return (*T)(r.(P)), nil
}
