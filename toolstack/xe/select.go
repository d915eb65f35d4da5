package xe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cairn/toolstack/client"
)

// errNoMatch is said when selectors fit nothing.
var errNoMatch = errors.New("no matching objects found")

// selected finds the objects an explicit command is for: by the class's own
// name (vm=<name or uuid>) and by any field of the class. More than one match
// needs --multiple, so that a loose filter cannot stop half a pool.
func (s *session) selected(ctx context.Context, class string, own ...string) ([]record, error) {
	c := s.cat.byName[class]
	if cmd := s.cat.explicit[s.Command]; cmd != nil && cmd.flag("Templates") {
		with := *c
		with.Filter = map[string]string{"is-a-snapshot": "false"}
		c = &with
	}
	filters := s.Params.Without(own...).Without(standard...)
	matched, err := s.candidates(ctx, c, filters)
	if err != nil {
		return nil, err
	}
	switch {
	case len(matched) == 0:
		return nil, errNoMatch
	case len(matched) > 1 && !s.Params.True("multiple"):
		return nil, fmt.Errorf("%d objects match, which needs --multiple: %s", len(matched), uuids(matched))
	}
	return matched, nil
}

func (s *session) candidates(ctx context.Context, c *Class, filters Params) ([]record, error) {
	if c.Name == "vm" {
		if len(filters) == 0 && !s.Params.True("multiple") {
			return nil, usage("which VM? Give uuid=, vm=<name or uuid> or a field of vm-list")
		}
		if _, ok := filters.Get("is-control-domain"); !ok {
			filters = append(filters, Param{Name: "is-control-domain", Value: "false"})
		}
	}
	name, named := filters.Get(c.Name)
	if strings.HasPrefix(name, "OpaqueRef:") {
		var v values
		err := s.api.Call(ctx, c.API+".get_record", &v, name)
		if client.IsCode(err, "HANDLE_INVALID") {
			err = nil // the command itself will say so
		}
		return []record{{name, v}}, err
	}
	matched, err := s.match(ctx, c, filters.Without(c.Name))
	if err != nil || !named {
		return matched, err
	}
	return slices.DeleteFunc(matched, func(r record) bool { return r.uuid() != name && r.text("name_label") != name }), nil
}

func uuids(list []record) string {
	all := make([]string, len(list))
	for i, r := range list {
		all[i] = r.uuid()
	}
	return strings.Join(all, ", ")
}

// match returns the records that pass every filter, the class's own included
// unless the user gives that field another value.
func (s *session) match(ctx context.Context, c *Class, filters Params) ([]record, error) {
	tests, err := c.filters(filters)
	if err != nil {
		return nil, err
	}
	all, err := s.records(ctx, c.API)
	if err != nil {
		return nil, err
	}
	var matched []record
	for _, r := range all {
		if set, _ := r.values[c.Nonempty].([]any); c.Nonempty != "" && len(set) == 0 {
			continue
		}
		ok, err := s.passes(ctx, c, r, tests)
		if err != nil {
			return nil, err
		}
		if ok {
			matched = append(matched, r)
		}
	}
	return matched, nil
}

// filter is one condition on a record.
type filter struct {
	field *Field
	key   string
	value string
	not   bool // the field must differ
}

// filters checks the conditions a user wrote and adds the class's own.
func (c *Class) filters(params Params) ([]filter, error) {
	var tests []filter
	for name, value := range c.Filter {
		if _, ok := params.Get(name); !ok {
			params = append(params, Param{Name: name, Value: value})
		}
	}
	for _, p := range params {
		value, not := strings.CutPrefix(p.Value, "/=") // name=/=value: any other value
		if p.Name == "database" {
			return nil, usage("%s: other databases cannot be opened", p.full())
		}
		f, key, err := c.filterField(p)
		if err != nil {
			return nil, err
		}
		if key != "" && f.Kind == "" {
			return nil, usage("field %q is not a set or map", f.Name)
		}
		if key != "" && f.Kind == "set" && key != "contains" {
			return nil, usage("a set is searched with %s:contains=<element>", f.Name)
		}
		tests = append(tests, filter{f, key, value, not})
	}
	return tests, nil
}

func (s *session) passes(ctx context.Context, c *Class, r record, tests []filter) (bool, error) {
	for _, t := range tests {
		v, err := s.show(ctx, c, r, t.field)
		if err != nil {
			return false, err
		}
		if t.holds(v) == t.not {
			return false, nil
		}
	}
	return true, nil
}

// holds compares one field with one filter: field=value, map:key=value, or
// set:contains=value.
func (t filter) holds(v shown) bool {
	same := func(a string) bool { return a == t.value || t.field.Fold && strings.EqualFold(a, t.value) }
	switch {
	case t.key == "":
		// Words that stand for a value of the API ("halted") are taken in the
		// API's own spelling too.
		return same(v.text) || t.field.Words != "" && strings.EqualFold(v.text, t.value)
	case t.field.Kind == "set":
		return slices.ContainsFunc(v.set, same)
	case t.field.Fold:
		for k, value := range v.pairs {
			if strings.EqualFold(k, t.key) && same(value) {
				return true
			}
		}
		return false
	}
	value, ok := v.pairs[t.key]
	return ok && same(value)
}

// one is the reference of the only object with this name or uuid.
func (s *session) one(ctx context.Context, class, name string) (string, error) {
	if strings.HasPrefix(name, "OpaqueRef:") {
		return name, nil
	}
	var ref string
	err := s.api.Call(ctx, class+".get_by_uuid", &ref, name)
	if err == nil || !client.IsCode(err, "UUID_INVALID") {
		return ref, err
	}
	var refs []string
	if err := s.api.Call(ctx, class+".get_by_name_label", &refs, name); err != nil {
		return "", err
	}
	switch len(refs) {
	case 1:
		return refs[0], nil
	case 0:
		return "", fmt.Errorf("%s %q: %w", class, name, errNoMatch)
	default:
		return "", fmt.Errorf("%d objects of class %s are named %q: give the uuid", len(refs), class, name)
	}
}
