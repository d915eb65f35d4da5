package wire

import (
	"errors"
	"unicode/utf8"

	"cairn/toolstack/api"
)

// jsonEnvelope is what a JSON-RPC answer repeats of its request.
type jsonEnvelope struct {
	version2 bool
	id       api.Value
}

// parseJSONCall reads a JSON-RPC request of version 1.0 or 2.0. Requests
// without an id, named parameters and batches are not part of the protocol.
func parseJSONCall(body []byte) (*request, *jsonEnvelope, error) {
	if !utf8.Valid(body) {
		return nil, nil, errors.New("json-rpc: not UTF-8")
	}
	v, err := api.ParseJSON(body)
	if err != nil {
		return nil, nil, err
	}
	if v.Kind != api.StructValue {
		return nil, nil, errors.New("json-rpc: no object")
	}
	env := &jsonEnvelope{}
	if version, ok := v.Get("jsonrpc"); ok {
		if version.Text != "2.0" {
			return nil, nil, errors.New("json-rpc: unknown version")
		}
		env.version2 = true
	}
	id, ok := v.Get("id")
	if !ok || id.Kind != api.StringValue && id.Kind != api.IntValue && id.Kind != api.FloatValue {
		return nil, nil, errors.New("json-rpc: no id")
	}
	env.id = *id
	method, ok := v.Get("method")
	if !ok || method.Kind != api.StringValue {
		return nil, nil, errors.New("json-rpc: no method")
	}
	r := &request{method: method.Text}
	switch params, ok := v.Get("params"); {
	case !ok:
	case params.Kind == api.ArrayValue:
		r.args = params.Items
	case params.Kind == api.StructValue:
		r.args = []api.Value{*params}
	default:
		return nil, nil, errors.New("json-rpc: params are no array")
	}
	return r, env, nil
}

func appendJSONResponse(b []byte, env *jsonEnvelope, result api.Result, err error, flush flushFunc) []byte {
	b = append(b, '{')
	if env.version2 {
		b = append(b, `"jsonrpc":"2.0",`...)
	}
	switch {
	case err == nil:
		b = append(b, `"result":`...)
		b = appendResult(b, api.JSON, result, flush)
		if !env.version2 {
			b = append(b, `,"error":null`...)
		}
	case env.version2:
		list := failure(err)
		b = append(b, `"error":{"code":1,"message":`...)
		b = api.AppendJSONString(b, list[0])
		b = append(b, `,"data":`...)
		b = appendStrings(b, api.JSON, list[1:])
		b = append(b, '}')
	default:
		b = append(b, `"result":null,"error":`...)
		b = appendStrings(b, api.JSON, failure(err))
	}
	b = append(b, `,"id":`...)
	b = api.AppendJSONValue(b, &env.id)
	return append(b, '}')
}
