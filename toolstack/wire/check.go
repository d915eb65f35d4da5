package wire

import (
	"errors"
	"strconv"
	"strings"

	"cairn/toolstack/api"
)

var errType = errors.New("wrong type")

// checkValue checks a client's value against a type: its shape, the values of
// enumerations, and that integers are integers. Typed decoding afterwards
// cannot fail on what passes here, except for dates.
func checkValue(v *api.Value, t *api.TypeInfo) error {
	switch t.Kind {
	case api.KindString, api.KindRef:
		if strings.IndexByte(v.Text, 0) >= 0 {
			return errType // no host program could be given it
		}
		return kindIs(v, api.StringValue)
	case api.KindInt:
		return checkNumber(v, true)
	case api.KindFloat:
		return checkNumber(v, false)
	case api.KindBool:
		if v.Kind == api.StringValue && (v.Text == "true" || v.Text == "false") {
			return nil
		}
		return kindIs(v, api.BoolValue)
	case api.KindTime:
		if v.Kind == api.TimeValue {
			return nil
		}
		return kindIs(v, api.StringValue)
	case api.KindEnum:
		if v.Kind != api.StringValue || !t.Enum().Has(v.Text) {
			return errType
		}
		return nil
	case api.KindSet, api.KindOption:
		return checkItems(v, api.ArrayValue, t.Elem())
	case api.KindMap:
		return checkMap(v, t)
	case api.KindRecord:
		return checkRecord(v, t.Class())
	}
	return errType
}

func kindIs(v *api.Value, k api.ValueKind) error {
	if v.Kind != k {
		return errType
	}
	return nil
}

func checkNumber(v *api.Value, integer bool) error {
	if v.Kind != api.StringValue && v.Kind != api.IntValue && v.Kind != api.FloatValue {
		return errType
	}
	text := strings.TrimSpace(v.Text)
	if _, err := strconv.ParseInt(text, 10, 64); err == nil {
		return nil
	}
	f, err := strconv.ParseFloat(text, 64)
	whole := f == float64(int64(f)) && v.Kind == api.FloatValue
	if err != nil || integer && !whole {
		return errType
	}
	return nil
}

func checkItems(v *api.Value, k api.ValueKind, elem *api.TypeInfo) error {
	if v.Kind != k {
		return errType
	}
	for i := range v.Items {
		if err := checkValue(&v.Items[i], elem); err != nil {
			return err
		}
	}
	return nil
}

func checkMap(v *api.Value, t *api.TypeInfo) error {
	for _, k := range v.Keys {
		if err := checkValue(&api.Value{Kind: api.StringValue, Text: k}, t.Key()); err != nil {
			return err
		}
	}
	return checkItems(v, api.StructValue, t.Elem())
}

// fieldError is a member of a record that cannot be what the client says.
type fieldError struct{ field string }

func (e fieldError) Error() string { return "field " + e.field }

// checkRecord lets members of other versions pass, and those a constructor does
// not take: clients fill them with whatever their language has for nothing.
func checkRecord(v *api.Value, class *api.ClassInfo) error {
	if v.Kind != api.StructValue {
		return errType
	}
	for i, k := range v.Keys {
		n := class.FieldByName(k)
		if n < 0 || class.Fields[n].Qualifier == api.RO {
			continue
		}
		if err := checkValue(&v.Items[i], class.Fields[n].Type); err != nil {
			return fieldError{k}
		}
	}
	return nil
}

// typeFault is the error for an argument of the wrong type.
func typeFault(param string, err error) error {
	var in fieldError
	if errors.As(err, &in) {
		param = in.field
	}
	return api.ErrFieldTypeError(param)
}
