package xe

import (
	"context"
	"slices"
	"strings"
)

// generic finds the code of a command every class has.
func (s *session) generic(c *Class) (func(context.Context) error, error) {
	verb := strings.TrimPrefix(s.Command, c.Name+"-")
	if verb == "list" {
		return func(ctx context.Context) error { return s.list(ctx, c) }, nil
	}
	code, ok := map[string]func(context.Context, *Class, record) error{
		"param-list":   s.paramList,
		"param-get":    s.paramGet,
		"param-set":    s.paramSet,
		"param-add":    s.paramAdd,
		"param-remove": s.paramRemove,
		"param-clear":  s.paramClear,
	}[verb]
	if !ok {
		return nil, usage("unknown command %q", s.Command)
	}
	uuid, ok := s.Params.Get("uuid")
	if !ok {
		return nil, usage("%s: required parameter not found: uuid", s.Command)
	}
	return func(ctx context.Context) error {
		r, err := s.byUUID(ctx, c.API, uuid)
		if err != nil {
			return err
		}
		return code(ctx, c, r)
	}, nil
}

// list prints the records that match all filters.
func (s *session) list(ctx context.Context, c *Class) error {
	fields, err := s.columns(c)
	if err != nil {
		return err
	}
	matched, err := s.match(ctx, c, s.Params.Without("params"))
	if err != nil {
		return err
	}
	for i, r := range matched {
		if err := s.print(ctx, c, r, fields, i == 0); err != nil {
			return err
		}
	}
	return s.end(len(matched))
}

func (s *session) columns(c *Class) ([]Field, error) {
	names := c.columns()
	if v, ok := s.Params.Get("params"); ok && v == "all" {
		return c.Fields, nil
	} else if ok {
		names = strings.Split(v, ",")
	}
	fields := make([]Field, len(names))
	for i, n := range names {
		f, err := c.Field(n)
		if err != nil {
			return nil, err
		}
		fields[i] = f
	}
	return fields, nil
}

// match returns the records that pass every filter, the class's own included
// unless the user gives that field another value.
func (s *session) match(ctx context.Context, c *Class, filters Params) ([]record, error) {
	for name, value := range c.Filter {
		if _, ok := filters.Get(name); !ok {
			filters = append(filters, Param{Name: name, Value: value})
		}
	}
	all, err := s.records(ctx, c.API)
	if err != nil {
		return nil, err
	}
	var matched []record
	for _, r := range all {
		ok, err := s.passes(ctx, c, r, filters)
		if err != nil {
			return nil, err
		}
		if ok {
			matched = append(matched, r)
		}
	}
	return matched, nil
}

func (s *session) passes(ctx context.Context, c *Class, r record, filters Params) (bool, error) {
	for _, p := range filters {
		f, err := c.Field(p.Name)
		if err != nil {
			return false, err
		}
		v, err := s.value(ctx, c, r, f)
		if err != nil {
			return false, err
		}
		ok, err := s.equal(ctx, f, p, v)
		if err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// equal compares one field with one filter: field=value, map:key=value, or
// set:contains=value.
func (s *session) equal(ctx context.Context, f Field, p Param, v any) (bool, error) {
	switch v := v.(type) {
	case map[string]any:
		if p.Key != "" {
			got, ok := v[p.Key].(string)
			return ok && got == p.Value, nil
		}
	case []any:
		if p.Key == "contains" {
			return s.contains(ctx, f, v, p.Value)
		}
	}
	t, err := s.text(ctx, f, v)
	return t == p.Value, err
}

func (s *session) contains(ctx context.Context, f Field, set []any, want string) (bool, error) {
	for _, e := range set {
		t, err := s.text(ctx, f, e)
		if err != nil || t == want {
			return t == want, err
		}
	}
	return false, nil
}

func (s *session) paramList(ctx context.Context, c *Class, r record) error {
	if err := s.print(ctx, c, r, c.Fields, true); err != nil {
		return err
	}
	return s.end(1)
}

func (s *session) paramGet(ctx context.Context, c *Class, r record) error {
	f, err := s.named(c)
	if err != nil {
		return err
	}
	v, err := s.value(ctx, c, r, f)
	if err != nil {
		return err
	}
	if key, ok := s.Params.Get("param-key"); ok {
		m, _ := v.(map[string]any)
		if v, ok = m[key]; !ok {
			return usage("%s has no key %q", f.Name, key)
		}
	}
	t, err := s.text(ctx, f, v)
	if err != nil {
		return err
	}
	return s.line(t)
}

// named is the field that param-name= names.
func (s *session) named(c *Class) (Field, error) {
	name, ok := s.Params.Get("param-name")
	if !ok {
		return Field{}, usage("%s: required parameter not found: param-name", s.Command)
	}
	return c.Field(name)
}

// paramSet writes each field given; every one is checked before the first is
// written.
func (s *session) paramSet(ctx context.Context, c *Class, r record) error {
	type write struct {
		method string
		args   []any
	}
	var writes []write
	for _, p := range s.Params.Without("uuid") {
		f, err := c.Field(p.Name)
		if err != nil {
			return err
		}
		if !f.Set && (p.Key == "" || !f.Add) {
			return usage("field %q of %s is read-only", p.Name, c.Name)
		}
		if p.Key != "" {
			writes = append(writes,
				write{c.API + ".remove_from_" + f.Source, []any{r.ref, p.Key}},
				write{c.API + ".add_to_" + f.Source, []any{r.ref, p.Key, p.Value}})
			continue
		}
		v, err := f.decode(p.Value)
		if err != nil {
			return err
		}
		writes = append(writes, write{c.API + ".set_" + f.Source, []any{r.ref, v}})
	}
	for _, w := range writes {
		if err := s.api.Call(ctx, w.method, nil, w.args...); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) paramAdd(ctx context.Context, c *Class, r record) error {
	f, err := s.changeable(c)
	if err != nil {
		return err
	}
	if f.Type == "set" {
		key, ok := s.Params.Get("param-key")
		if !ok {
			return usage("%s: required parameter not found: param-key", s.Command)
		}
		return s.api.Call(ctx, c.API+".add_"+f.Source, nil, r.ref, key)
	}
	for _, p := range s.Params.Without("uuid", "param-name") {
		if err := s.api.Call(ctx, c.API+".add_to_"+f.Source, nil, r.ref, p.Name, p.Value); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) paramRemove(ctx context.Context, c *Class, r record) error {
	f, err := s.changeable(c)
	if err != nil {
		return err
	}
	key, ok := s.Params.Get("param-key")
	if !ok {
		return usage("%s: required parameter not found: param-key", s.Command)
	}
	verb := ".remove_from_"
	if f.Type == "set" {
		verb = ".remove_"
	}
	return s.api.Call(ctx, c.API+verb+f.Source, nil, r.ref, key)
}

func (s *session) paramClear(ctx context.Context, c *Class, r record) error {
	f, err := s.named(c)
	if err != nil {
		return err
	}
	if !f.Set && !f.Add {
		return usage("field %q of %s is read-only", f.Name, c.Name)
	}
	empty := map[string]any{"set": []string{}, "map": map[string]string{}, "string": "", "int": 0, "bool": false, "ref": nullRef}
	v, ok := empty[f.Type]
	if !ok {
		return usage("field %q of %s cannot be cleared", f.Name, c.Name)
	}
	return s.api.Call(ctx, c.API+".set_"+f.Source, nil, r.ref, v)
}

func (s *session) changeable(c *Class) (Field, error) {
	f, err := s.named(c)
	if err == nil && (!f.Add || !slices.Contains([]string{"set", "map"}, f.Type)) {
		err = usage("field %q of %s is not a set or map that can be changed", f.Name, c.Name)
	}
	return f, err
}
