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
		if err := s.once(func(p Param) bool { return p.Name != "params" }); err != nil {
			return nil, err
		}
		return func(ctx context.Context) error { return s.list(ctx, c) }, nil
	}
	need := []string{"uuid"}
	code := map[string]func(context.Context, *Class, record) error{
		"param-list":   s.paramList,
		"param-get":    s.paramGet,
		"param-set":    s.paramSet,
		"param-add":    s.paramAdd,
		"param-remove": s.paramRemove,
		"param-clear":  s.paramClear,
	}[verb]
	known := []string{"uuid", "param-name", "param-key"}
	switch verb {
	case "param-get", "param-add", "param-clear":
		need = append(need, "param-name")
	case "param-remove":
		need = append(need, "param-name", "param-key")
	case "param-list":
		known = need
	}
	writes := verb == "param-set" || verb == "param-add" // what they are given
	if !writes {
		s.warnOther(func(name string) bool { return slices.Contains(known, name) })
	}
	if err := s.once(func(p Param) bool { return !writes && !slices.Contains(known, p.Name) }); err != nil {
		return nil, err
	}
	for _, name := range need {
		if _, ok := s.Params.Get(name); !ok {
			return nil, missingParam(name)
		}
	}
	return func(ctx context.Context) error {
		uuid, _ := s.Params.Get("uuid")
		r, err := s.byUUID(ctx, c.API, uuid)
		if err != nil {
			return err
		}
		return code(ctx, c, r)
	}, nil
}

// list prints the records that match all filters.
func (s *session) list(ctx context.Context, c *Class) error {
	fields, err := s.columns(c, "params")
	if err != nil {
		return err
	}
	filters := s.Params.Without("params").Without(standard...)
	if s.Params.True("all") {
		filters = nil
	}
	matched, err := s.match(ctx, c, filters)
	if err != nil {
		return err
	}
	return s.printAll(ctx, c, matched, fields)
}

func (s *session) printAll(ctx context.Context, c *Class, list []record, fields []*Field) error {
	for _, r := range list {
		if err := s.print(ctx, c, r, fields, true); err != nil {
			return err
		}
	}
	return nil
}

// columns are the fields a list shows, in the order of the class: those that
// params= names, or the class's own choice.
func (s *session) columns(c *Class, param string) ([]*Field, error) {
	names := c.Columns
	if v, ok := s.Params.Get(param); ok {
		names = strings.Split(v, ",")
		if v == "all" {
			names = nil
		}
	}
	if len(names) == 0 {
		return c.Fields, nil
	}
	wanted := map[*Field]bool{}
	for _, n := range names {
		f, err := c.field(strings.TrimSpace(n))
		if err != nil {
			return nil, err
		}
		wanted[f] = true
	}
	var fields []*Field
	for _, f := range c.Fields {
		if wanted[f] {
			fields = append(fields, f)
		}
	}
	return fields, nil
}

// print shows a record; in a list, fields that cost a call each are not asked
// for.
func (s *session) print(ctx context.Context, c *Class, r record, fields []*Field, inList bool) error {
	if s.out.minimal && len(fields) > 1 {
		fields = fields[:1]
	}
	rows := make([]row, len(fields))
	for i, f := range fields {
		v := plain(costly)
		if !f.Cost || !inList {
			var err error
			if v, err = s.show(ctx, c, r, f); err != nil {
				return err
			}
		}
		rows[i] = row{f.label(), v.text}
	}
	s.out.table(rows)
	return nil
}

func (s *session) paramList(ctx context.Context, c *Class, r record) error {
	return s.print(ctx, c, r, c.Fields, false)
}

func (s *session) paramGet(ctx context.Context, c *Class, r record) error {
	f, err := s.named(c)
	if err != nil {
		return err
	}
	v, err := s.show(ctx, c, r, f)
	if err != nil {
		return err
	}
	key, ok := s.Params.Get("param-key")
	if !ok || f.Kind != "map" {
		s.out.list(v.text)
		return nil
	}
	text, ok := v.pairs[key]
	if !ok {
		return usage("key %q is not in %s", key, f.Name)
	}
	s.out.list(text)
	return nil
}

// named is the field that param-name= names.
func (s *session) named(c *Class) (*Field, error) {
	name, _ := s.Params.Get("param-name")
	return c.field(name)
}
