// Package xmlvalue reads values as XML-RPC writes them. What comes is somebody else's
// and may be meant to harm: there are no document types and so no entities, nesting is
// bounded, and a caller bounds how many values there may be.
//
// A Reader is used by one goroutine.
package xmlvalue

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"cairn/toolstack/api"
)

// maxDepth bounds the nesting of elements; each level of a value takes up to four.
const maxDepth = 256

// Reader reads elements and values one after another. After an error it is of no use.
type Reader struct {
	d     *xml.Decoder
	depth int
	left  int // values that may come
}

// New returns a reader of a document.
func New(r io.Reader) *Reader {
	p := &Reader{d: xml.NewDecoder(r), left: math.MaxInt}
	p.d.Strict = true
	return p
}

// Limit says how many values may come from here on, those inside others counted.
func (p *Reader) Limit(values int) { p.left = values }

// next returns the next start or end element and the character data before it.
func (p *Reader) next() (xml.Token, string, error) {
	var text strings.Builder
	for {
		t, err := p.d.Token()
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, "", err
		}
		switch t := t.(type) {
		case xml.CharData:
			text.Write(t)
		case xml.StartElement:
			if p.depth++; p.depth > maxDepth {
				return nil, "", errors.New("nested too deeply")
			}
			return t, text.String(), nil
		case xml.EndElement:
			p.depth--
			return t, text.String(), nil
		case xml.Directive:
			return nil, "", errors.New("document types are not accepted")
		}
	}
}

// Start reads the start of the named element.
func (p *Reader) Start(name string) error {
	t, _, err := p.next()
	if err != nil {
		return err
	}
	if e, ok := t.(xml.StartElement); !ok || e.Name.Local != name {
		return fmt.Errorf("no <%s>", name)
	}
	return nil
}

// Child reads the start of another element inside the present one; it returns
// "" at the present one's end.
func (p *Reader) Child() (string, error) {
	t, _, err := p.next()
	if e, ok := t.(xml.StartElement); ok {
		return e.Name.Local, err
	}
	return "", err
}

// Each calls f inside each element of a name up to the present one's end; f reads up
// to the end of its element. No others may come.
func (p *Reader) Each(name string, f func() error) error {
	for {
		child, err := p.Child()
		switch {
		case err != nil || child == "":
			return err
		case child != name:
			return fmt.Errorf("unexpected <%s>", child)
		}
		if err := f(); err != nil {
			return err
		}
	}
}

// Text reads character data up to the end of the present element.
func (p *Reader) Text() (string, error) {
	t, text, err := p.next()
	if _, ok := t.(xml.StartElement); ok {
		return "", errors.New("an element where text is expected")
	}
	return text, err
}

// End reads the end of the present element.
func (p *Reader) End() error {
	name, err := p.Child()
	if err == nil && name != "" {
		err = fmt.Errorf("unexpected <%s>", name)
	}
	return err
}

// NothingMore reads what may follow a call: white space and comments.
func (p *Reader) NothingMore() error {
	for {
		t, err := p.d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.Comment, xml.ProcInst:
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return errors.New("text after the call's end")
			}
		default:
			return errors.New("more than one call")
		}
	}
}

// Value reads what is inside <value> up to its end.
func (p *Reader) Value() (api.Value, error) {
	if p.left--; p.left < 0 {
		return api.Value{}, errors.New("more values than anybody needs")
	}
	t, text, err := p.next()
	if err != nil {
		return api.Value{}, err
	}
	e, ok := t.(xml.StartElement)
	if !ok {
		return api.Value{Kind: api.StringValue, Text: text}, nil
	}
	v, err := p.typed(e.Name.Local)
	if err != nil {
		return v, err
	}
	return v, p.End()
}

// typed reads a value of a named type up to the type's end.
func (p *Reader) typed(name string) (api.Value, error) {
	switch name {
	case "array":
		return p.array()
	case "struct":
		return p.structure()
	case "nil":
		return api.Value{}, p.End()
	}
	kind := api.StringValue
	switch name {
	case "string":
	case "int", "i4", "i8":
		kind = api.IntValue
	case "double":
		kind = api.FloatValue
	case "boolean":
		kind = api.BoolValue
	case "dateTime.iso8601":
		kind = api.TimeValue
	default:
		return api.Value{}, fmt.Errorf("unknown type <%s>", name)
	}
	text, err := p.Text()
	if kind == api.StringValue || err != nil {
		return api.Value{Kind: kind, Text: text}, err
	}
	text = strings.TrimSpace(text)
	if kind == api.BoolValue && text != "0" && text != "1" {
		return api.Value{}, fmt.Errorf("%q is no boolean", text)
	}
	return api.Value{Kind: kind, Text: text}, nil
}

func (p *Reader) array() (api.Value, error) {
	v := api.Value{Kind: api.ArrayValue}
	if err := p.Start("data"); err != nil {
		return v, err
	}
	err := p.Each("value", func() error {
		item, err := p.Value()
		v.Items = append(v.Items, item)
		return err
	})
	if err != nil {
		return v, err
	}
	return v, p.End()
}

func (p *Reader) structure() (api.Value, error) {
	v := api.Value{Kind: api.StructValue}
	err := p.Each("member", func() error {
		key, err := p.Key()
		if err != nil {
			return err
		}
		item, err := p.Value()
		if err != nil {
			return err
		}
		v.Keys, v.Items = append(v.Keys, key), append(v.Items, item)
		return p.End()
	})
	return v, err
}

// Key reads a member's name and the start of its value, inside <member>.
func (p *Reader) Key() (string, error) {
	if err := p.Start("name"); err != nil {
		return "", err
	}
	key, err := p.Text()
	if err != nil {
		return "", err
	}
	return key, p.Start("value")
}
