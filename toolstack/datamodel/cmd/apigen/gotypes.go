package main

import (
	"fmt"

	dm "cairn/toolstack/datamodel"
)

// opaque reports types without a record of their own: they are written by the
// event package itself.
func opaque(t *dm.Type) bool {
	if t == nil {
		return false
	}
	return t.Kind == dm.Batch || t.Kind == dm.RecordOf && (t.Name == "event" || t.Name == "<class>") || opaque(t.Elem)
}

// goType is the Go type that carries values of t.
func goType(t *dm.Type) string {
	switch t.Kind {
	case dm.String:
		return "string"
	case dm.Int:
		return "int64"
	case dm.Float:
		return "float64"
	case dm.Bool:
		return "bool"
	case dm.DateTime:
		return "time.Time"
	case dm.EnumOf:
		return exported(t.Name)
	case dm.RefTo:
		return exported(t.Name) + "Ref"
	case dm.RecordOf:
		return "*" + exported(t.Name)
	case dm.SetOf:
		return "[]" + goType(t.Elem)
	case dm.MapOf:
		return "map[" + goType(t.Key) + "]" + goType(t.Elem)
	case dm.OptionOf:
		return "*" + goType(t.Elem)
	}
	panic("no Go type for " + t.String())
}

// encoder is an expression of a function that appends a value of t.
func encoder(t *dm.Type) string {
	switch t.Kind {
	case dm.String:
		return "AppendString"
	case dm.Int:
		return "AppendInt"
	case dm.Float:
		return "AppendFloat"
	case dm.Bool:
		return "AppendBool"
	case dm.DateTime:
		return "AppendTime"
	case dm.RecordOf:
		return "appendRecord[" + exported(t.Name) + "]"
	case dm.SetOf:
		if textual(t) && t.Elem.Kind == dm.RefTo {
			return "appendRefs[" + goType(t.Elem) + "]"
		} else if textual(t) {
			return "appendTexts[" + goType(t.Elem) + "]"
		}
		return "setEncoder(" + encoder(t.Elem) + ")"
	case dm.MapOf:
		return "mapEncoder(" + keyText(t.Key) + ", " + encoder(t.Elem) + ")"
	case dm.OptionOf:
		return "optionEncoder(" + encoder(t.Elem) + ")"
	}
	panic("no encoder for " + t.String())
}

// texty reports types that Go carries as some kind of string.
func texty(t *dm.Type) bool {
	return t.Kind == dm.String || t.Kind == dm.EnumOf || t.Kind == dm.RefTo
}

// textual reports sets and maps of nothing but strings of some kind, for which
// one generic function serves all types.
func textual(t *dm.Type) bool {
	switch t.Kind {
	case dm.SetOf:
		return texty(t.Elem)
	case dm.MapOf:
		return texty(t.Key) && texty(t.Elem)
	}
	return false
}

// encode is an expression that appends the value to b.
func encode(t *dm.Type, value string) string {
	switch {
	case t.Kind == dm.EnumOf:
		return fmt.Sprintf("AppendString(b, e, string(%s))", value)
	case t.Kind == dm.RefTo:
		return fmt.Sprintf("AppendRef(b, e, string(%s))", value)
	case t.Kind == dm.SetOf && textual(t) && t.Elem.Kind == dm.RefTo:
		return fmt.Sprintf("appendRefs(b, e, %s)", value)
	case t.Kind == dm.SetOf && textual(t):
		return fmt.Sprintf("appendTexts(b, e, %s)", value)
	case t.Kind == dm.SetOf:
		return fmt.Sprintf("appendSet(b, e, %s, %s)", value, encoder(t.Elem))
	case t.Kind == dm.MapOf && textual(t) && t.Elem.Kind == dm.RefTo:
		return fmt.Sprintf("appendTextMap(b, e, %s, RefText)", value)
	case t.Kind == dm.MapOf && textual(t):
		return fmt.Sprintf("appendTextMap(b, e, %s, plainText)", value)
	case t.Kind == dm.MapOf:
		return fmt.Sprintf("appendMap(b, e, %s, %s, %s)", value, keyText(t.Key), encoder(t.Elem))
	}
	return fmt.Sprintf("%s(b, e, %s)", encoder(t), value)
}

// set is an expression that sets the field to the wire value v.
func set(t *dm.Type, field string) string {
	switch {
	case t.Kind == dm.EnumOf:
		return fmt.Sprintf("setString((*string)(&%s), v)", field)
	case t.Kind == dm.RefTo:
		return fmt.Sprintf("setRef((*string)(&%s), v)", field)
	case t.Kind == dm.String:
		return fmt.Sprintf("setString(&%s, v)", field)
	case t.Kind == dm.Int:
		return fmt.Sprintf("setInt(&%s, v)", field)
	case t.Kind == dm.Float:
		return fmt.Sprintf("setFloat(&%s, v)", field)
	case t.Kind == dm.Bool:
		return fmt.Sprintf("setBool(&%s, v)", field)
	case t.Kind == dm.DateTime:
		return fmt.Sprintf("setTime(&%s, v)", field)
	case textual(t) && t.Kind == dm.SetOf:
		return fmt.Sprintf("setTexts(&%s, v)", field)
	case textual(t):
		return fmt.Sprintf("setTextMap(&%s, v)", field)
	}
	return fmt.Sprintf("setField(&%s, v, %s)", field, decoder(t))
}

// argument is an expression of the i-th argument.
func argument(t *dm.Type, i int) string {
	switch {
	case t.Kind == dm.String:
		return fmt.Sprintf("a.text(%d)", i)
	case t.Kind == dm.EnumOf:
		return fmt.Sprintf("%s(a.text(%d))", exported(t.Name), i)
	case t.Kind == dm.RefTo:
		return fmt.Sprintf("%sRef(a.ref(%d))", exported(t.Name), i)
	case t.Kind == dm.Int:
		return fmt.Sprintf("a.int(%d)", i)
	case t.Kind == dm.Bool:
		return fmt.Sprintf("a.bool(%d)", i)
	case textual(t) && t.Kind == dm.SetOf:
		return fmt.Sprintf("argTexts[%s](&a, %d)", goType(t.Elem), i)
	case textual(t):
		return fmt.Sprintf("argTextMap[%s, %s](&a, %d)", goType(t.Key), goType(t.Elem), i)
	}
	return fmt.Sprintf("arg(&a, %d, %s)", i, decoder(t))
}

// answer is an expression that turns the result "v, err" into a Result.
func answer(t *dm.Type) string {
	switch {
	case t.Kind == dm.String:
		return "answer(StringResult(v), err)"
	case t.Kind == dm.EnumOf:
		return "answer(StringResult(v), err)"
	case t.Kind == dm.RefTo:
		return "answer(StringResult(v.String()), err)"
	case t.Kind == dm.Int:
		return "answer(intResult(v), err)"
	case t.Kind == dm.Bool:
		return "answer(boolResult(v), err)"
	case t.Kind == dm.RecordOf:
		return "answer(recordResult{v}, err)"
	}
	return "resultOf(v, err, " + encoder(t) + ")"
}

// keyText is a function from a map's key to its text.
func keyText(t *dm.Type) string {
	switch t.Kind {
	case dm.String:
		return "textKey[string]"
	case dm.Int:
		return "intKey"
	case dm.EnumOf:
		return "textKey[" + exported(t.Name) + "]"
	case dm.RefTo:
		return "refKey[" + exported(t.Name) + "]"
	}
	panic("no key of type " + t.String())
}

// decoder is an expression of a function from a wire value to t.
func decoder(t *dm.Type) string {
	switch t.Kind {
	case dm.String:
		return "decodeString"
	case dm.Int:
		return "decodeInt"
	case dm.Float:
		return "decodeFloat"
	case dm.Bool:
		return "decodeBool"
	case dm.DateTime:
		return "decodeTime"
	case dm.RefTo:
		return "decodeRef[" + exported(t.Name) + "]"
	case dm.RecordOf:
		return "decodeRecord[" + exported(t.Name) + "]"
	case dm.SetOf:
		if textual(t) {
			return "decodeTexts[" + goType(t.Elem) + "]"
		}
		return "setDecoder(" + decoder(t.Elem) + ")"
	case dm.MapOf:
		if textual(t) {
			return "decodeTextMap[" + goType(t.Key) + ", " + goType(t.Elem) + "]"
		}
		return "mapDecoder(" + decoder(t.Key) + ", " + decoder(t.Elem) + ")"
	case dm.OptionOf:
		return "optionDecoder(" + decoder(t.Elem) + ")"
	}
	panic("no decoder for " + t.String())
}
