package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/wire/xmlvalue"
)

// parseXMLCall reads a methodCall.
func parseXMLCall(body []byte) (*request, error) {
	p := xmlvalue.New(bytes.NewReader(body))
	r, err := readXMLCall(p)
	if err == nil {
		err = p.NothingMore()
	}
	if err != nil {
		return nil, fmt.Errorf("xml-rpc: %w", err)
	}
	return r, nil
}

// readXMLCall reads a methodCall up to its end.
func readXMLCall(p *xmlvalue.Reader) (*request, error) {
	if err := p.Start("methodCall"); err != nil {
		return nil, err
	}
	if err := p.Start("methodName"); err != nil {
		return nil, err
	}
	method, err := p.Text()
	if err != nil {
		return nil, err
	}
	r := &request{method: strings.TrimSpace(method)}
	name, err := p.Child()
	if err != nil || name == "" {
		return r, err // a call without parameters
	}
	if name != "params" {
		return nil, fmt.Errorf("unexpected <%s>", name)
	}
	err = p.Each("param", func() error {
		if err := p.Start("value"); err != nil {
			return err
		}
		v, err := p.Value()
		if err != nil {
			return err
		}
		r.args = append(r.args, v)
		return p.End()
	})
	if err != nil {
		return nil, err
	}
	return r, p.End()
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
