package wire

import (
	"errors"
	"fmt"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// The messages get_all_where and get_all_records_where select objects by an
// expression over their fields:
//
//	expression = term { "or" term }
//	term       = factor { "and" factor }
//	factor     = "not" factor | "(" expression ")" | "true" | "false" | operand "=" operand
//	operand    = "field" string | string
//
// Strings are quoted by " or ', with \ before a quote. A field is named as the
// database of old named it: name__label is name_label, _ref the reference.
// Only fields with a single value can be compared.

// maxWhereDepth bounds the nesting of an expression.
const maxWhereDepth = 64

// predicate tells whether an object is selected.
type predicate func(o *db.Object) bool

// operand is one side of a comparison.
type operand func(o *db.Object) string

// parseWhere reads an expression about objects of a class.
func parseWhere(class *api.ClassInfo, text string) (predicate, error) {
	p := &whereParser{class: class, text: text}
	p.next()
	match, err := p.expression(0)
	if err == nil && p.token != "" {
		err = fmt.Errorf("%q after the expression", p.token)
	}
	if err != nil {
		return nil, err
	}
	return match, nil
}

// Select reads an expression about objects of a class, for messages of that kind
// which are not implied by the description.
func Select(class *api.ClassInfo, text string) (func(o *db.Object) bool, error) {
	return parseWhere(class, text)
}

type whereParser struct {
	class  *api.ClassInfo
	text   string // what is left
	token  string // a word, a sign, or a quoted string with its first quote; "" at the end
	broken bool   // a string without an end
}

// next reads a token.
func (p *whereParser) next() {
	p.text = strings.TrimLeft(p.text, " \t\r\n")
	if p.text == "" {
		p.token = ""
		return
	}
	n := 1
	switch c := p.text[0]; {
	case c == '"' || c == '\'':
		p.quoted(c)
		return
	case isLetter(c):
		for n < len(p.text) && isLetter(p.text[n]) {
			n++
		}
	}
	p.token, p.text = p.text[:n], p.text[n:]
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }

func (p *whereParser) quoted(quote byte) {
	b := []byte{quote}
	for i := 1; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == quote:
			p.token, p.text = string(b), p.text[i+1:]
			return
		case c == '\\' && i+1 < len(p.text) && (p.text[i+1] == quote || p.text[i+1] == '\\'):
			i++
			b = append(b, p.text[i])
		default:
			b = append(b, c)
		}
	}
	p.token, p.text, p.broken = p.text, "", true
}

// take reads the token if it is the given one.
func (p *whereParser) take(token string) bool {
	if p.token != token {
		return false
	}
	p.next()
	return true
}

func (p *whereParser) expression(depth int) (predicate, error) {
	if depth > maxWhereDepth {
		return nil, errors.New("nested too deeply")
	}
	left, err := p.term(depth)
	for err == nil && p.take("or") {
		a, b := left, predicate(nil)
		b, err = p.term(depth)
		left = func(o *db.Object) bool { return a(o) || b(o) }
	}
	return left, err
}

func (p *whereParser) term(depth int) (predicate, error) {
	left, err := p.factor(depth)
	for err == nil && p.take("and") {
		a, b := left, predicate(nil)
		b, err = p.factor(depth)
		left = func(o *db.Object) bool { return a(o) && b(o) }
	}
	return left, err
}

func (p *whereParser) factor(depth int) (predicate, error) {
	switch {
	case p.take("true"):
		return func(*db.Object) bool { return true }, nil
	case p.take("false"):
		return func(*db.Object) bool { return false }, nil
	case p.take("not"):
		if depth > maxWhereDepth {
			return nil, errors.New("nested too deeply")
		}
		match, err := p.factor(depth + 1)
		return func(o *db.Object) bool { return !match(o) }, err
	case p.take("("):
		match, err := p.expression(depth + 1)
		if err == nil && !p.take(")") {
			err = errors.New("no closing parenthesis")
		}
		return match, err
	}
	return p.comparison()
}

func (p *whereParser) comparison() (predicate, error) {
	a, err := p.operand()
	if err != nil {
		return nil, err
	}
	if !p.take("=") {
		return nil, errors.New("no comparison")
	}
	b, err := p.operand()
	return func(o *db.Object) bool { return a(o) == b(o) }, err
}

func (p *whereParser) operand() (operand, error) {
	field := p.take("field")
	if p.broken || p.token == "" || p.token[0] != '"' && p.token[0] != '\'' {
		return nil, fmt.Errorf("no string at %q", p.token)
	}
	text := p.token[1:]
	p.next()
	if !field {
		return func(*db.Object) string { return text }, nil
	}
	return fieldOperand(p.class, text)
}

func fieldOperand(class *api.ClassInfo, name string) (operand, error) {
	if name == "_ref" || name == "ref" {
		return (*db.Object).Ref, nil
	}
	n := class.FieldByName(strings.ReplaceAll(name, "__", "_"))
	if n < 0 {
		return nil, fmt.Errorf("no field %s", name)
	}
	switch class.Fields[n].Type.Kind {
	case api.KindSet, api.KindMap, api.KindOption, api.KindRecord:
		return nil, fmt.Errorf("field %s has no single value", name)
	}
	return func(o *db.Object) string {
		v, err := api.ParseJSON(o.Record().AppendField(nil, api.JSON, n))
		switch {
		case err != nil:
			return ""
		case v.Kind == api.BoolValue && v.Text == "1":
			return "true"
		case v.Kind == api.BoolValue:
			return "false"
		}
		return v.Text
	}, nil
}

func (i implicit) where(args []api.Value, records bool) (api.Result, error) {
	match, err := parseWhere(i.m.Class, args[0].Text)
	if err != nil {
		return nil, api.ErrInvalidValue("expr", args[0].Text)
	}
	return objectsResult{snap: i.db.Snapshot(), class: i.m.Class, match: match, records: records}, nil
}

func (i implicit) getAllWhere(_ *api.Call, args []api.Value) (api.Result, error) {
	return i.where(args, false)
}

func (i implicit) getAllRecordsWhere(_ *api.Call, args []api.Value) (api.Result, error) {
	return i.where(args, true)
}
