package xe

import (
	"context"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
)

const nullRef = "OpaqueRef:NULL"

// missing is what a field shows when no record holds it.
const missing = "<not in database>"

// record is one object as the wire carries it, with its reference.
type record struct {
	ref    string
	values map[string]any
}

func (r record) uuid() string {
	s, _ := r.values["uuid"].(string)
	return s
}

// records reads all objects of a class, in the order of their uuid so that
// output can be compared.
func (s *session) records(ctx context.Context, api string) ([]record, error) {
	var all map[string]map[string]any
	if err := s.api.Call(ctx, api+".get_all_records", &all); err != nil {
		return nil, err
	}
	list := make([]record, 0, len(all))
	for ref, values := range all {
		list = append(list, record{ref, values})
		s.uuids[ref], _ = values["uuid"].(string)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].uuid() < list[j].uuid() })
	return list, nil
}

// byUUID reads one object.
func (s *session) byUUID(ctx context.Context, api, uuid string) (record, error) {
	r := record{}
	if err := s.api.Call(ctx, api+".get_by_uuid", &r.ref, uuid); err != nil {
		return r, err
	}
	return r, s.api.Call(ctx, api+".get_record", &r.values, r.ref)
}

// value finds a field, following one reference where its source says so.
func (s *session) value(ctx context.Context, c *Class, r record, f Field) (any, error) {
	if f.Source == "" {
		return missing, nil
	}
	first, second, nested := strings.Cut(f.Source, ".")
	v, ok := r.values[first]
	if !ok {
		return missing, nil
	}
	if !nested {
		return v, nil
	}
	ref, _ := v.(string)
	if ref == "" || ref == nullRef {
		return missing, nil
	}
	target, err := s.target(ctx, refClass(c, first), ref)
	if err != nil {
		return nil, err
	}
	return target[second], nil
}

// target reads the record a reference leads to, once.
func (s *session) target(ctx context.Context, api, ref string) (map[string]any, error) {
	if t, ok := s.nested[ref]; ok {
		return t, nil
	}
	var t map[string]any
	if err := s.api.Call(ctx, api+".get_record", &t, ref); err != nil {
		return nil, err
	}
	s.nested[ref] = t
	return t, nil
}

// refClass names the class the first step of a source leads to.
func refClass(c *Class, first string) string {
	switch first {
	case "metrics", "guest_metrics":
		return c.API + "_" + first
	}
	for _, f := range c.Fields {
		if f.Source == first && f.Ref != "" {
			return f.Ref
		}
	}
	return c.API
}

// text shows a value: references as uuids, sets and maps joined by "; ".
func (s *session) text(ctx context.Context, f Field, v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return missing, nil
	case string:
		return s.refText(ctx, f, v)
	case bool:
		return strconv.FormatBool(v), nil
	case float64:
		return number(f, v), nil
	case []any:
		return s.setText(ctx, f, v)
	case map[string]any:
		return s.mapText(ctx, f, v)
	default:
		return fmt.Sprint(v), nil
	}
}

// number shows integers whole and fractions to three places, as percentages
// and progress read best.
func number(f Field, v float64) string {
	if f.Type == "float" || v != math.Trunc(v) {
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
	return strconv.FormatInt(int64(v), 10)
}

func (s *session) refText(ctx context.Context, f Field, v string) (string, error) {
	if f.Ref == "" || v == "" {
		return v, nil
	}
	if v == nullRef {
		return missing, nil
	}
	if uuid, ok := s.uuids[v]; ok {
		return uuid, nil
	}
	var uuid string
	if err := s.api.Call(ctx, f.Ref+".get_uuid", &uuid, v); err != nil {
		return "", err
	}
	s.uuids[v] = uuid
	return uuid, nil
}

func (s *session) setText(ctx context.Context, f Field, set []any) (string, error) {
	parts := make([]string, 0, len(set))
	for _, e := range set {
		t, err := s.text(ctx, f, e)
		if err != nil {
			return "", err
		}
		parts = append(parts, t)
	}
	return strings.Join(parts, "; "), nil
}

func (s *session) mapText(ctx context.Context, f Field, m map[string]any) (string, error) {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for i, k := range keys {
		t, err := s.text(ctx, f, m[k])
		if err != nil {
			return "", err
		}
		keys[i] = k + ": " + t
	}
	return strings.Join(keys, "; "), nil
}
