package xe

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// arguments turns the words of a step into the arguments of its message.
func (s *session) arguments(ctx context.Context, sc scope, list []string) ([]any, error) {
	args := []any{}
	for len(list) > 0 {
		if list[0] == "{" {
			end := slices.Index(list, "}")
			rec, err := s.structure(ctx, sc, list[1:end])
			if err != nil {
				return nil, err
			}
			args, list = append(args, rec), list[end+1:]
			continue
		}
		v, err := s.argument(ctx, sc, list[0])
		if err != nil {
			return nil, err
		}
		args, list = append(args, v), list[1:]
	}
	return args, nil
}

// structure builds a record or map from name=argument words.
func (s *session) structure(ctx context.Context, sc scope, list []string) (map[string]any, error) {
	rec := map[string]any{}
	for _, w := range list {
		name, arg, _ := strings.Cut(w, "=")
		name, optional := strings.CutSuffix(name, "?")
		v, err := s.argument(ctx, sc, arg)
		var missing *missingError
		if optional && errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		rec[name] = v
	}
	return rec, nil
}

// missingError is a parameter that is not there.
type missingError struct{ name string }

// Error implements error.
func (e *missingError) Error() string { return missingParam(e.name).Error() }

// Unwrap lets the run report it as any mistake of the command line.
func (e *missingError) Unwrap() error { return missingParam(e.name) }

// argument is the value of one word.
func (s *session) argument(ctx context.Context, sc scope, word string) (any, error) {
	switch {
	case word == "self":
		return sc.self, nil
	case word == "id":
		return sc.id, nil
	case word == "{}":
		return map[string]any{}, nil
	case word == "[]":
		return []any{}, nil
	case word[0] == '=':
		return word[1:], nil
	case word[0] == '#':
		return json.RawMessage(word[1:]), nil
	}
	kind, rest, _ := strings.Cut(word, ":")
	if of, ok := objectKinds[kind]; ok {
		return of(s, ctx, rest)
	}
	if of, ok := mapKinds[kind]; ok {
		return of(s.Params, rest), nil
	}
	return s.plainArgument(kind, rest)
}

// objectKinds are the arguments that ask the host something.
var objectKinds = map[string]func(*session, context.Context, string) (any, error){
	"ref":      (*session).refArg,
	"ref?":     (*session).optionalRef,
	"refs":     (*session).refsArg,
	"pick":     (*session).pickArg,
	"pairs":    (*session).pairsArg,
	"resident": (*session).residentArg,
	"session":  (*session).sessionArg,
	"pool":     (*session).poolArg,
	"here":     (*session).hostArg,
	"host":     (*session).hostArg,
}

// mapKinds are the arguments built from name:key=value parameters.
var mapKinds = map[string]func(Params, string) any{
	"map": func(p Params, name string) any { return p.Map(name) },
	"keys": func(p Params, name string) any {
		keys := []string{}
		for _, a := range p {
			if a.Name == name && a.Key != "" {
				keys = append(keys, a.Key)
			}
		}
		return keys
	},
	"maps": func(p Params, name string) any {
		m := map[string]string{}
		text, _ := p.Get(name)
		for _, w := range words(text) {
			if k, v, ok := strings.Cut(w, ":"); ok {
				m[k] = v
			}
		}
		return m
	},
	"set": func(p Params, name string) any {
		text, _ := p.Get(name)
		return append([]string{}, words(text)...)
	},
	"absent": func(p Params, name string) any {
		_, given := p.Get(name)
		return !given
	},
}

// plainArgument is a text, number or truth of a parameter, or a local file.
func (s *session) plainArgument(kind, rest string) (any, error) {
	choice := ""
	if kind == "enum" {
		choice, rest, _ = strings.Cut(rest, ":")
	}
	name, text, err := s.parameter(rest)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "str":
		return text, nil
	case "mac":
		if text == "random" || text == "auto" {
			return "", nil
		}
		return text, nil
	case "int", "bytes":
		return wholeNumber(name, text)
	case "float":
		return fraction(name, text)
	case "bool":
		v, ok := truth(text)
		if !ok {
			return nil, usage("%s wants true or false, not %q", name, text)
		}
		return v, nil
	case "enum":
		return oneOf(name, text, strings.Split(choice, "|"))
	case "file", "base64":
		return fileArg(kind, text)
	case "base":
		return filepath.Base(text), nil
	}
	return nil, fmt.Errorf("no such kind of argument: %q", kind)
}

// parameter splits "name=default" and finds the parameter's text.
func (s *session) parameter(spec string) (name, text string, err error) {
	names, def, optional := strings.Cut(spec, "=")
	text, ok := s.Params.Get(names)
	name, _, _ = strings.Cut(names, "|")
	switch {
	case ok:
		return name, text, nil
	case optional:
		return name, def, nil
	}
	return name, "", &missingError{name}
}

func oneOf(name, text string, choices []string) (any, error) {
	for _, c := range choices {
		if strings.EqualFold(c, text) {
			return c, nil
		}
	}
	return nil, usage("%s is one of %s, not %q", name, strings.Join(choices, ", "), text)
}

func fileArg(kind, name string) (any, error) {
	if name == "" {
		return "", nil
	}
	text, err := os.ReadFile(name)
	if kind == "base64" {
		return base64.StdEncoding.EncodeToString(text), err
	}
	return string(text), err
}

func (s *session) refArg(ctx context.Context, rest string) (any, error) {
	class, spec, _ := strings.Cut(rest, ":")
	name, uuid, err := s.parameter(spec)
	if err != nil {
		return nil, err
	}
	if uuid == "" {
		return nil, usage("%s is empty", name)
	}
	return s.refOf(ctx, class, uuid)
}

func (s *session) optionalRef(ctx context.Context, rest string) (any, error) {
	class, spec, _ := strings.Cut(rest, ":")
	uuid, _ := s.Params.Get(spec)
	return s.refOf(ctx, class, uuid)
}

func (s *session) refsArg(ctx context.Context, rest string) (any, error) {
	class, spec, _ := strings.Cut(rest, ":")
	_, text, err := s.parameter(spec)
	if err != nil {
		return nil, err
	}
	return s.decodeSet(ctx, &Field{Ref: class}, text)
}

func (s *session) pickArg(ctx context.Context, rest string) (any, error) {
	class, spec, _ := strings.Cut(rest, ":")
	_, name, err := s.parameter(spec)
	if err != nil {
		return nil, err
	}
	return s.one(ctx, class, name)
}

// pairsArg ties the first a= to the first b=, the second to the second, and so
// on.
func (s *session) pairsArg(ctx context.Context, rest string) (any, error) {
	part := strings.Split(rest, ":")
	keys, vals := s.Params.All(part[1]), s.Params.All(part[2])
	if len(keys) != len(vals) {
		return nil, usage("give as many %s= as %s=", part[1], part[2])
	}
	m := map[string]string{}
	for i, k := range keys {
		ref, err := s.one(ctx, part[0], k)
		if err != nil {
			return nil, err
		}
		m[ref] = vals[i]
	}
	return m, nil
}

// residentArg are the VMs, but not the hosts' own, that run on some hosts.
func (s *session) residentArg(ctx context.Context, spec string) (any, error) {
	hosts, err := s.refsArg(ctx, "host:"+spec)
	if err != nil {
		return nil, err
	}
	vms, err := s.records(ctx, "VM")
	if err != nil {
		return nil, err
	}
	refs := []string{}
	for _, vm := range vms {
		if vm.values["is_control_domain"] != true && slices.Contains(hosts.([]any), vm.values["resident_on"]) {
			refs = append(refs, vm.ref)
		}
	}
	return refs, nil
}

// sessionArg is the session on the database the user names.
func (s *session) sessionArg(ctx context.Context, _ string) (any, error) {
	uuid, ok := s.Params.Map("database")["vdi-uuid"]
	if !ok {
		return s.api.Session(), nil
	}
	vdi, err := s.refOf(ctx, "VDI", uuid)
	if err != nil {
		return nil, err
	}
	var ref string
	err = s.api.Call(ctx, "VDI.open_database", &ref, vdi)
	return ref, err
}

func (s *session) poolArg(ctx context.Context, spec string) (any, error) {
	if uuid, ok := s.Params.Get(spec); ok && spec != "" {
		return s.refOf(ctx, "pool", uuid)
	}
	var all []string
	if err := s.api.Call(ctx, "pool.get_all", &all); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the host is in no pool")
	}
	return all[0], nil
}

func (s *session) hostArg(ctx context.Context, spec string) (any, error) {
	if uuid, ok := s.Params.Get(spec); ok && spec != "" {
		return s.refOf(ctx, "host", uuid)
	}
	var ref string
	err := s.api.Call(ctx, "session.get_this_host", &ref, s.api.Session())
	return ref, err
}
