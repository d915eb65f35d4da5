package api

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of decoded values; the API needs five levels.
const maxDepth = 64

// ParseJSON reads one JSON value. Numbers keep their text, so that 64-bit
// integers survive.
func ParseJSON(text []byte) (Value, error) {
	p := &jsonParser{text: text}
	v, err := p.value(0)
	if err == nil {
		p.space()
		if p.pos < len(p.text) {
			err = errors.New("text after the value")
		}
	}
	if err != nil {
		return Value{}, fmt.Errorf("json: byte %d: %w", p.pos, err)
	}
	return v, nil
}

type jsonParser struct {
	text []byte
	pos  int
}

func (p *jsonParser) space() {
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// peek skips white space and returns the next byte, 0 at the end.
func (p *jsonParser) peek() byte {
	p.space()
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

func (p *jsonParser) value(depth int) (Value, error) {
	if depth > maxDepth {
		return Value{}, errors.New("nested too deeply")
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		s, err := p.str()
		return Value{Kind: StringValue, Text: s}, err
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	case c == 't':
		return Value{Kind: BoolValue, Text: "1"}, p.word("true")
	case c == 'f':
		return Value{Kind: BoolValue, Text: "0"}, p.word("false")
	case c == 'n':
		return Value{}, p.word("null")
	}
	return Value{}, errors.New("no value")
}

func (p *jsonParser) word(w string) error {
	if len(p.text)-p.pos < len(w) || string(p.text[p.pos:p.pos+len(w)]) != w {
		return errors.New("no value")
	}
	p.pos += len(w)
	return nil
}

func (p *jsonParser) array(depth int) (Value, error) {
	v := Value{Kind: ArrayValue}
	p.pos++
	if p.peek() == ']' {
		p.pos++
		return v, nil
	}
	for {
		item, err := p.value(depth + 1)
		if err != nil {
			return v, err
		}
		v.Items = append(v.Items, item)
		if done, err := p.more(']'); done || err != nil {
			return v, err
		}
	}
}

func (p *jsonParser) object(depth int) (Value, error) {
	v := Value{Kind: StructValue}
	p.pos++
	if p.peek() == '}' {
		p.pos++
		return v, nil
	}
	for {
		if p.peek() != '"' {
			return v, errors.New("no member name")
		}
		key, err := p.str()
		if err != nil {
			return v, err
		}
		if p.peek() != ':' {
			return v, errors.New("no colon")
		}
		p.pos++
		item, err := p.value(depth + 1)
		if err != nil {
			return v, err
		}
		v.Keys, v.Items = append(v.Keys, key), append(v.Items, item)
		if done, err := p.more('}'); done || err != nil {
			return v, err
		}
	}
}

// more reads the comma before another element or the closing byte.
func (p *jsonParser) more(end byte) (done bool, err error) {
	switch p.peek() {
	case ',':
		p.pos++
		return false, nil
	case end:
		p.pos++
		return true, nil
	}
	return false, fmt.Errorf("no comma or %q", end)
}

func (p *jsonParser) number() (Value, error) {
	start, kind := p.pos, IntValue
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c >= '0' && c <= '9', c == '-', c == '+':
		case c == '.' || c == 'e' || c == 'E':
			kind = FloatValue
		default:
			return p.checkNumber(start, kind)
		}
		p.pos++
	}
	return p.checkNumber(start, kind)
}

func (p *jsonParser) checkNumber(start int, kind ValueKind) (Value, error) {
	s := string(p.text[start:p.pos])
	if _, err := strconv.ParseFloat(s, 64); err != nil && !errors.Is(err, strconv.ErrRange) {
		return Value{}, fmt.Errorf("%q is no number", s)
	}
	return Value{Kind: kind, Text: s}, nil
}

func (p *jsonParser) str() (string, error) {
	p.pos++
	start := p.pos
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == '"':
			s := string(p.text[start:p.pos])
			p.pos++
			return validText(s), nil
		case c == '\\':
			return p.escaped(append([]byte(nil), p.text[start:p.pos]...))
		case c < 0x20:
			return "", errors.New("control character in a string")
		}
		p.pos++
	}
	return "", errors.New("string without end")
}

// escaped reads the rest of a string from its first backslash on.
func (p *jsonParser) escaped(b []byte) (string, error) {
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		p.pos++
		switch {
		case c == '"':
			return validText(string(b)), nil
		case c < 0x20:
			return "", errors.New("control character in a string")
		case c != '\\':
			b = append(b, c)
			continue
		}
		r, err := p.escape()
		if err != nil {
			return "", err
		}
		b = utf8.AppendRune(b, r)
	}
	return "", errors.New("string without end")
}

var simpleEscapes = map[byte]rune{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// escape reads what follows a backslash.
func (p *jsonParser) escape() (rune, error) {
	if p.pos >= len(p.text) {
		return 0, errors.New("string without end")
	}
	c := p.text[p.pos]
	p.pos++
	if r, ok := simpleEscapes[c]; ok {
		return r, nil
	}
	if c != 'u' {
		return 0, errors.New("unknown escape")
	}
	r, err := p.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if p.pos+1 < len(p.text) && p.text[p.pos] == '\\' && p.text[p.pos+1] == 'u' {
		mark := p.pos
		p.pos += 2
		low, err := p.hex4()
		if err != nil {
			return 0, err
		}
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return pair, nil
		}
		p.pos = mark
	}
	return utf8.RuneError, nil
}

func (p *jsonParser) hex4() (rune, error) {
	if len(p.text)-p.pos < 4 {
		return 0, errors.New("short escape")
	}
	n, err := strconv.ParseUint(string(p.text[p.pos:p.pos+4]), 16, 16)
	if err != nil {
		return 0, errors.New("escape that is no number")
	}
	p.pos += 4
	return rune(n), nil
}

// validText replaces bytes that are no UTF-8.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b []byte
	for _, r := range s {
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}

// AppendJSONValue writes a decoded value back as JSON.
func AppendJSONValue(b []byte, v *Value) []byte {
	switch v.Kind {
	case StringValue, TimeValue:
		return AppendJSONString(b, v.Text)
	case IntValue, FloatValue:
		return append(b, v.Text...)
	case BoolValue:
		return strconv.AppendBool(b, v.Text == "1")
	case ArrayValue:
		b = OpenArray(b, JSON)
		for i := range v.Items {
			b = AppendJSONValue(Next(b, JSON), &v.Items[i])
		}
		return CloseArray(b, JSON)
	case StructValue:
		b = OpenStruct(b, JSON)
		for i := range v.Items {
			b = AppendJSONValue(OpenMember(b, JSON, v.Keys[i]), &v.Items[i])
		}
		return CloseStruct(b, JSON)
	}
	return append(b, "null"...)
}
