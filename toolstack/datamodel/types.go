package datamodel

import (
	"fmt"
	"strings"
)

// Kind is the shape of a type.
type Kind uint8

// The kinds of types.
const (
	Void Kind = iota
	String
	Int
	Float
	Bool
	DateTime
	EnumOf   // Name is the enumeration
	RefTo    // Name is the class
	RecordOf // Name is the class
	SetOf    // of Elem
	MapOf    // from Key to Elem
	OptionOf // of Elem
	Batch    // what event.from answers
)

// Type is a parsed type.
type Type struct {
	Kind Kind
	Name string
	Key  *Type
	Elem *Type
}

var scalarKinds = map[string]Kind{
	"void": Void, "string": String, "int": Int, "float": Float, "bool": Bool, "datetime": DateTime,
}

// String gives the type back in the syntax ParseType reads.
func (t *Type) String() string {
	switch t.Kind {
	case EnumOf:
		return "enum " + t.Name
	case RefTo:
		return t.Name + " ref"
	case RecordOf:
		return t.Name + " record"
	case SetOf:
		return t.Elem.String() + " set"
	case OptionOf:
		return t.Elem.String() + " option"
	case MapOf:
		return "(" + t.Key.String() + " -> " + t.Elem.String() + ") map"
	case Batch:
		return "an event batch"
	}
	for s, k := range scalarKinds {
		if k == t.Kind {
			return s
		}
	}
	return "invalid"
}

// maxTypeDepth bounds nesting; the description needs three levels.
const maxTypeDepth = 16

// ParseType reads a type such as "string", "VM ref set", "enum vm_operations"
// or "(string -> (int -> float) map) map".
func ParseType(s string) (*Type, error) {
	if s == "an event batch" {
		return &Type{Kind: Batch}, nil
	}
	p := &typeParser{words: typeWords(s)}
	t, err := p.parse(0)
	if err == nil && len(p.words) > 0 {
		err = fmt.Errorf("unexpected %q", p.words[0])
	}
	if err != nil {
		return nil, fmt.Errorf("type %q: %w", s, err)
	}
	return t, nil
}

func typeWords(s string) []string {
	return strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(s))
}

type typeParser struct{ words []string }

func (p *typeParser) next() string {
	if len(p.words) == 0 {
		return ""
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

func (p *typeParser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

func (p *typeParser) expect(want string) error {
	if got := p.next(); got != want {
		return fmt.Errorf("%q where %q is expected", got, want)
	}
	return nil
}

func (p *typeParser) parse(depth int) (*Type, error) {
	if depth > maxTypeDepth {
		return nil, fmt.Errorf("nested too deeply")
	}
	t, err := p.base(depth)
	for n := depth; err == nil && (p.peek() == "set" || p.peek() == "option"); n++ {
		if n > maxTypeDepth {
			return nil, fmt.Errorf("nested too deeply")
		}
		kind := SetOf
		if p.next() == "option" {
			kind = OptionOf
		}
		t = &Type{Kind: kind, Elem: t}
	}
	return t, err
}

// base reads a type up to its suffixes "set" and "option".
func (p *typeParser) base(depth int) (*Type, error) {
	w := p.next()
	if kind, ok := scalarKinds[w]; ok {
		return &Type{Kind: kind}, nil
	}
	switch w {
	case "", ")", "->", "ref", "record", "set", "option", "map":
		return nil, fmt.Errorf("unexpected %q", w)
	case "enum":
		name := p.next()
		if !isName(name) {
			return nil, fmt.Errorf("%q is no enumeration's name", name)
		}
		return &Type{Kind: EnumOf, Name: name}, nil
	case "(":
		return p.mapType(depth)
	}
	if !isName(w) && w != "<class>" {
		return nil, fmt.Errorf("%q is no class's name", w)
	}
	switch suffix := p.next(); suffix {
	case "ref":
		return &Type{Kind: RefTo, Name: w}, nil
	case "record":
		return &Type{Kind: RecordOf, Name: w}, nil
	default:
		return nil, fmt.Errorf("%q after %q where \"ref\" or \"record\" is expected", suffix, w)
	}
}

func (p *typeParser) mapType(depth int) (*Type, error) {
	key, err := p.parse(depth + 1)
	if err != nil {
		return nil, err
	}
	if err := p.expect("->"); err != nil {
		return nil, err
	}
	elem, err := p.parse(depth + 1)
	if err != nil {
		return nil, err
	}
	if err := p.expect(")"); err != nil {
		return nil, err
	}
	if err := p.expect("map"); err != nil {
		return nil, err
	}
	return &Type{Kind: MapOf, Key: key, Elem: elem}, nil
}

func isName(s string) bool {
	for i, r := range s {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}
