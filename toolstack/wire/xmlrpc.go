package wire

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"cairn/toolstack/api"
)

// maxXMLDepth bounds the nesting of elements; each level of a value takes up
// to four.
const maxXMLDepth = 256

// parseXMLCall reads a methodCall.
func parseXMLCall(body []byte) (*request, error) {
	p := &xmlParser{d: xml.NewDecoder(bytes.NewReader(body))}
	p.d.Strict = true
	r, err := p.call()
	if err == nil {
		err = p.nothingMore()
	}
	if err != nil {
		return nil, fmt.Errorf("xml-rpc: %w", err)
	}
	return r, nil
}

type xmlParser struct {
	d     *xml.Decoder
	depth int
}

// next returns the next start or end element and the character data before it.
func (p *xmlParser) next() (xml.Token, string, error) {
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
			if p.depth++; p.depth > maxXMLDepth {
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

// start reads the start of the named element.
func (p *xmlParser) start(name string) error {
	t, _, err := p.next()
	if err != nil {
		return err
	}
	if e, ok := t.(xml.StartElement); !ok || e.Name.Local != name {
		return fmt.Errorf("no <%s>", name)
	}
	return nil
}

// child reads the start of another element inside the present one; it returns
// "" at the present one's end.
func (p *xmlParser) child() (string, error) {
	t, _, err := p.next()
	if e, ok := t.(xml.StartElement); ok {
		return e.Name.Local, err
	}
	return "", err
}

// text reads character data up to the end of the present element.
func (p *xmlParser) text() (string, error) {
	t, text, err := p.next()
	if _, ok := t.(xml.StartElement); ok {
		return "", errors.New("an element where text is expected")
	}
	return text, err
}

// end reads the end of the present element.
func (p *xmlParser) end() error {
	name, err := p.child()
	if err == nil && name != "" {
		err = fmt.Errorf("unexpected <%s>", name)
	}
	return err
}

// nothingMore reads what may follow a call: white space and comments.
func (p *xmlParser) nothingMore() error {
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

func (p *xmlParser) call() (*request, error) {
	if err := p.start("methodCall"); err != nil {
		return nil, err
	}
	if err := p.start("methodName"); err != nil {
		return nil, err
	}
	method, err := p.text()
	if err != nil {
		return nil, err
	}
	r := &request{method: strings.TrimSpace(method)}
	name, err := p.child()
	if err != nil || name == "" {
		return r, err // a call without parameters
	}
	if name != "params" {
		return nil, fmt.Errorf("unexpected <%s>", name)
	}
	for {
		name, err := p.child()
		switch {
		case err != nil:
			return nil, err
		case name == "":
			return r, p.end()
		case name != "param":
			return nil, fmt.Errorf("unexpected <%s>", name)
		}
		if err := p.start("value"); err != nil {
			return nil, err
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		r.args = append(r.args, v)
		if err := p.end(); err != nil {
			return nil, err
		}
	}
}

// value reads what is inside <value> up to its end.
func (p *xmlParser) value() (api.Value, error) {
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
	return v, p.end()
}

// typed reads a value of a named type up to the type's end.
func (p *xmlParser) typed(name string) (api.Value, error) {
	switch name {
	case "array":
		return p.array()
	case "struct":
		return p.structure()
	case "nil":
		return api.Value{}, p.end()
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
	text, err := p.text()
	if kind == api.StringValue || err != nil {
		return api.Value{Kind: kind, Text: text}, err
	}
	text = strings.TrimSpace(text)
	if kind == api.BoolValue && text != "0" && text != "1" {
		return api.Value{}, fmt.Errorf("%q is no boolean", text)
	}
	return api.Value{Kind: kind, Text: text}, nil
}

func (p *xmlParser) array() (api.Value, error) {
	v := api.Value{Kind: api.ArrayValue}
	if err := p.start("data"); err != nil {
		return v, err
	}
	for {
		name, err := p.child()
		switch {
		case err != nil:
			return v, err
		case name == "":
			return v, p.end()
		case name != "value":
			return v, fmt.Errorf("unexpected <%s>", name)
		}
		item, err := p.value()
		if err != nil {
			return v, err
		}
		v.Items = append(v.Items, item)
	}
}

func (p *xmlParser) structure() (api.Value, error) {
	v := api.Value{Kind: api.StructValue}
	for {
		name, err := p.child()
		switch {
		case err != nil || name == "":
			return v, err
		case name != "member":
			return v, fmt.Errorf("unexpected <%s>", name)
		}
		if err := p.start("name"); err != nil {
			return v, err
		}
		key, err := p.text()
		if err != nil {
			return v, err
		}
		if err := p.start("value"); err != nil {
			return v, err
		}
		item, err := p.value()
		if err != nil {
			return v, err
		}
		v.Keys, v.Items = append(v.Keys, key), append(v.Items, item)
		if err := p.end(); err != nil {
			return v, err
		}
	}
}

const (
	xmlHead = `<?xml version="1.0"?><methodResponse>`
	xmlTail = `</methodResponse>`
)

// appendXMLResponse writes a methodResponse: success and failure are structs
// with a Status, and a list of methods is bare.
func appendXMLResponse(b []byte, result api.Result, err error, flush flushFunc) []byte {
	b = append(b, xmlHead...)
	var fault noAsync
	if errors.As(err, &fault) {
		b = append(b, "<fault><value><struct><member><name>faultCode</name><value><i4>1</i4></value></member><member><name>faultString</name>"...)
		b = api.AppendString(b, api.XML, err.Error())
		b = append(b, "</member></struct></value></fault>"...)
		return append(b, xmlTail...)
	}
	b = append(b, "<params><param>"...)
	if _, bare := result.(methodList); bare {
		b = result.AppendValue(b, api.XML)
	} else {
		b = appendXMLStatus(b, result, err, flush)
	}
	b = append(b, "</param></params>"...)
	return append(b, xmlTail...)
}

func appendXMLStatus(b []byte, result api.Result, err error, flush flushFunc) []byte {
	b = api.OpenStruct(b, api.XML)
	b = api.OpenMember(b, api.XML, "Status")
	if err == nil {
		b = api.AppendString(b, api.XML, "Success")
		b = api.CloseMember(b, api.XML)
		b = api.OpenMember(b, api.XML, "Value")
		b = appendResult(b, api.XML, result, flush)
	} else {
		b = api.AppendString(b, api.XML, "Failure")
		b = api.CloseMember(b, api.XML)
		b = api.OpenMember(b, api.XML, "ErrorDescription")
		b = appendStrings(b, api.XML, failure(err))
	}
	b = api.CloseMember(b, api.XML)
	return api.CloseStruct(b, api.XML)
}

// failure is an error as the array clients get: the code, then parameters.
func failure(err error) []string {
	var known *api.Error
	var fault noAsync
	switch {
	case errors.As(err, &known):
		return append([]string{known.Code}, known.Params...)
	case errors.As(err, &fault):
		return []string{api.CodeMessageMethodUnknown, fault.method}
	}
	return []string{api.CodeInternalError, err.Error()}
}

func appendStrings(b []byte, e api.Encoding, list []string) []byte {
	b = api.OpenArray(b, e)
	for _, s := range list {
		b = api.AppendString(api.Next(b, e), e, s)
	}
	return api.CloseArray(b, e)
}
