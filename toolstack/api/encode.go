package api

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Encoding is one of the two forms values take on the wire.
type Encoding uint8

// The encodings.
const (
	XML Encoding = iota
	JSON
)

// TimeLayout is the wire's form of a date.
const TimeLayout = "20060102T15:04:05Z"

const hexDigits = "0123456789abcdef"

// AppendString appends a string value.
func AppendString(b []byte, e Encoding, s string) []byte {
	if e == JSON {
		return AppendJSONString(b, s)
	}
	b = append(b, "<value>"...)
	b = AppendXMLText(b, s)
	return append(b, "</value>"...)
}

// AppendXMLText appends character data; control characters XML cannot carry
// are left out.
func AppendXMLText(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		size, sub := 1, ""
		switch {
		case c == '&':
			sub = "&amp;"
		case c == '<':
			sub = "&lt;"
		case c == '>':
			sub = "&gt;"
		case c == '\r':
			sub = "&#13;"
		case c < 0x20 && c != '\t' && c != '\n':
		case c < utf8.RuneSelf:
			i++
			continue
		default:
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			if (r != utf8.RuneError || size > 1) && r != 0xfffe && r != 0xffff {
				i += size
				continue
			}
			sub = "\ufffd"
		}
		b = append(b, s[start:i]...)
		b = append(b, sub...)
		i += size
		start = i
	}
	return append(b, s[start:]...)
}

// AppendJSONString appends a quoted string.
func AppendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		size := 1
		if c >= utf8.RuneSelf {
			var r rune
			if r, size = utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		b = append(b, s[start:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, `\ufffd`...)
		}
		i += size
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// AppendRef appends a reference of any class.
func AppendRef(b []byte, e Encoding, ref string) []byte { return AppendString(b, e, RefText(ref)) }

// AppendInt appends an integer: text in XML, a number in JSON.
func AppendInt(b []byte, e Encoding, n int64) []byte {
	if e == JSON {
		return strconv.AppendInt(b, n, 10)
	}
	b = append(b, "<value>"...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "</value>"...)
}

// AppendFloat appends a number with 16 significant digits. What is no number
// has no form in JSON and goes out as 0.
func AppendFloat(b []byte, e Encoding, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		f = 0
	}
	if e == JSON {
		return strconv.AppendFloat(b, f, 'g', 16, 64)
	}
	b = append(b, "<value><double>"...)
	b = strconv.AppendFloat(b, f, 'g', 16, 64)
	return append(b, "</double></value>"...)
}

// AppendBool appends a boolean.
func AppendBool(b []byte, e Encoding, v bool) []byte {
	if e == JSON {
		return strconv.AppendBool(b, v)
	}
	if v {
		return append(b, "<value><boolean>1</boolean></value>"...)
	}
	return append(b, "<value><boolean>0</boolean></value>"...)
}

// AppendTime appends a date; Go's zero time is the start of 1970.
func AppendTime(b []byte, e Encoding, t time.Time) []byte {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	if e == JSON {
		b = append(b, '"')
		b = t.UTC().AppendFormat(b, TimeLayout)
		return append(b, '"')
	}
	b = append(b, "<value><dateTime.iso8601>"...)
	b = t.UTC().AppendFormat(b, TimeLayout)
	return append(b, "</dateTime.iso8601></value>"...)
}

// OpenArray and CloseArray bracket the elements of an array.
func OpenArray(b []byte, e Encoding) []byte {
	if e == JSON {
		return append(b, '[')
	}
	return append(b, "<value><array><data>"...)
}

// CloseArray ends what OpenArray began.
func CloseArray(b []byte, e Encoding) []byte {
	if e == JSON {
		return append(b, ']')
	}
	return append(b, "</data></array></value>"...)
}

// Next separates an element of an array from the one before, if there is one.
func Next(b []byte, e Encoding) []byte {
	if e == JSON && b[len(b)-1] != '[' {
		return append(b, ',')
	}
	return b
}

// OpenStruct and CloseStruct bracket the members of a struct.
func OpenStruct(b []byte, e Encoding) []byte {
	if e == JSON {
		return append(b, '{')
	}
	return append(b, "<value><struct>"...)
}

// CloseStruct ends what OpenStruct began.
func CloseStruct(b []byte, e Encoding) []byte {
	if e == JSON {
		return append(b, '}')
	}
	return append(b, "</struct></value>"...)
}

// OpenMember begins a member of a struct; its value and CloseMember follow.
func OpenMember(b []byte, e Encoding, name string) []byte {
	if e == JSON {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = AppendJSONString(b, name)
		return append(b, ':')
	}
	b = append(b, "<member><name>"...)
	b = AppendXMLText(b, name)
	return append(b, "</name>"...)
}

// CloseMember ends what OpenMember began.
func CloseMember(b []byte, e Encoding) []byte {
	if e == JSON {
		return b
	}
	return append(b, "</member>"...)
}

func appendSet[T any](b []byte, e Encoding, set []T, elem func([]byte, Encoding, T) []byte) []byte {
	b = OpenArray(b, e)
	for _, v := range set {
		b = elem(Next(b, e), e, v)
	}
	return CloseArray(b, e)
}

// appendTexts appends a set of strings or enumerated values.
func appendTexts[T ~string](b []byte, e Encoding, set []T) []byte {
	b = OpenArray(b, e)
	for _, v := range set {
		b = AppendString(Next(b, e), e, string(v))
	}
	return CloseArray(b, e)
}

// appendRefs appends a set of references.
func appendRefs[T ~string](b []byte, e Encoding, set []T) []byte {
	b = OpenArray(b, e)
	for _, v := range set {
		b = AppendRef(Next(b, e), e, string(v))
	}
	return CloseArray(b, e)
}

// appendTextMap appends a map between strings, references or enumerated
// values; fix rewrites the text of a value, and of a key where keys are
// references.
func appendTextMap[K, V ~string](b []byte, e Encoding, m map[K]V, fix func(string) string) []byte {
	b = OpenStruct(b, e)
	var few [16]K
	keys := few[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		b = OpenMember(b, e, string(k))
		b = AppendString(b, e, fix(string(m[k])))
		b = CloseMember(b, e)
	}
	return CloseStruct(b, e)
}

func plainText(s string) string { return s }

func appendMap[K cmp.Ordered, V any](b []byte, e Encoding, m map[K]V, key func(K) string, elem func([]byte, Encoding, V) []byte) []byte {
	b = OpenStruct(b, e)
	var few [16]K
	keys := few[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		b = OpenMember(b, e, key(k))
		b = elem(b, e, m[k])
		b = CloseMember(b, e)
	}
	return CloseStruct(b, e)
}

func appendOption[T any](b []byte, e Encoding, v *T, elem func([]byte, Encoding, T) []byte) []byte {
	b = OpenArray(b, e)
	if v != nil {
		b = elem(b, e, *v)
	}
	return CloseArray(b, e)
}

func setEncoder[T any](elem func([]byte, Encoding, T) []byte) func([]byte, Encoding, []T) []byte {
	return func(b []byte, e Encoding, v []T) []byte { return appendSet(b, e, v, elem) }
}

func mapEncoder[K cmp.Ordered, V any](key func(K) string, elem func([]byte, Encoding, V) []byte) func([]byte, Encoding, map[K]V) []byte {
	return func(b []byte, e Encoding, v map[K]V) []byte { return appendMap(b, e, v, key, elem) }
}

func optionEncoder[T any](elem func([]byte, Encoding, T) []byte) func([]byte, Encoding, *T) []byte {
	return func(b []byte, e Encoding, v *T) []byte { return appendOption(b, e, v, elem) }
}

func textKey[T ~string](s T) string { return string(s) }
func refKey[T any](r Ref[T]) string { return r.String() }
func intKey(n int64) string         { return strconv.FormatInt(n, 10) }

// appendRecord encodes a record that is part of a result.
func appendRecord[T any, P RecordPtr[T]](b []byte, e Encoding, r *T) []byte {
	return AppendRecord(b, e, P(r))
}

// AppendRecord appends a record as a struct of all its fields.
func AppendRecord(b []byte, e Encoding, r Record) []byte {
	b = OpenStruct(b, e)
	fields := r.Class().Fields
	for i := range fields {
		b = OpenMember(b, e, fields[i].Name)
		b = r.AppendField(b, e, i)
		b = CloseMember(b, e)
	}
	return CloseStruct(b, e)
}
