package xe

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cairn/toolstack/client"
)

// errNoMatch is said when selectors fit nothing.
var errNoMatch = errors.New("no matching objects were found")

// selected finds the objects a command is for: by uuid=, by the class's own
// name (vm=<name or uuid>), or by any field of the class. More than one match
// needs --multiple, so that a loose filter cannot stop half a pool.
func (s *session) selected(ctx context.Context, class string, own ...string) ([]record, error) {
	c := s.cat.generic[class+"-list"]
	filters := s.Params.Without(own...)
	matched, err := s.candidates(ctx, c, filters)
	if err != nil {
		return nil, err
	}
	switch {
	case len(matched) == 0:
		return nil, fmt.Errorf("%s: %w", s.Command, errNoMatch)
	case len(matched) > 1 && !s.Multiple:
		return nil, fmt.Errorf("%s: %d objects match, which needs --multiple: %s", s.Command, len(matched), uuids(matched))
	}
	return matched, nil
}

func (s *session) candidates(ctx context.Context, c *Class, filters Params) ([]record, error) {
	if len(filters) == 0 && !s.Multiple && c.Name != "host" {
		return nil, usage("%s: name a %s by uuid=, %s= or a field", s.Command, c.Name, c.Name)
	}
	name, ok := filters.Get(c.Name)
	if !ok {
		return s.match(ctx, c, filters)
	}
	filters = filters.Without(c.Name)
	matched, err := s.match(ctx, c, append(filters, Param{Name: "uuid", Value: name}))
	if err != nil || len(matched) > 0 {
		return matched, err
	}
	return s.match(ctx, c, append(filters, Param{Name: "name-label", Value: name}))
}

func uuids(list []record) string {
	all := make([]string, len(list))
	for i, r := range list {
		all[i] = r.uuid()
	}
	return strings.Join(all, ", ")
}

// each runs fn on every selected object. All are tried; the first failure is
// reported after the last.
func (s *session) each(ctx context.Context, class string, fn func(record) error, own ...string) error {
	list, err := s.selected(ctx, class, own...)
	if err != nil {
		return err
	}
	var first error
	for _, r := range list {
		if err := fn(r); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// one is the reference of the only object with this name or uuid.
func (s *session) one(ctx context.Context, api, name string) (string, error) {
	var ref string
	err := s.api.Call(ctx, api+".get_by_uuid", &ref, name)
	if err == nil || !client.IsCode(err, "UUID_INVALID") {
		return ref, err
	}
	var refs []string
	if err := s.api.Call(ctx, api+".get_by_name_label", &refs, name); err != nil {
		return "", err
	}
	switch len(refs) {
	case 1:
		return refs[0], nil
	case 0:
		return "", fmt.Errorf("%s %q: %w", api, name, errNoMatch)
	default:
		return "", fmt.Errorf("%d objects of class %s are named %q: give the uuid", len(refs), api, name)
	}
}
