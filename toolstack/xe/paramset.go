package xe

import (
	"context"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// write is one message that changes a record.
type write struct {
	method string
	args   []any
}

func (s *session) send(ctx context.Context, writes ...write) error {
	for _, w := range writes {
		if err := s.api.Call(ctx, w.method, nil, w.args...); err != nil {
			return err
		}
	}
	return nil
}

// setter is the message that writes the whole field.
func (f *Field) setter(c *Class) string {
	return c.API + ".set_" + f.From[strings.LastIndexByte(f.From, '.')+1:]
}

// paramSet writes each field given; every one is checked before the first is
// written.
func (s *session) paramSet(ctx context.Context, c *Class, r record) error {
	var writes []write
	whole := map[*Field]map[string]string{}
	for _, p := range s.Params.Without("uuid").Without(standard...) {
		f, key, err := c.filterField(p)
		if err != nil {
			return err
		}
		switch {
		case key == "":
			w, err := s.setField(ctx, c, r, f, p.Value)
			if err != nil {
				return err
			}
			writes = append(writes, w)
		case f.Kind == "map" && f.Put == "whole":
			if whole[f] == nil {
				whole[f] = map[string]string{}
			}
			whole[f][key] = p.Value
		default:
			w, err := setKey(c, r, f, key, p.Value)
			if err != nil {
				return err
			}
			writes = append(writes, w...)
		}
	}
	for f, m := range whole {
		writes = append(writes, write{f.setter(c), []any{r.ref, m}})
	}
	return s.send(ctx, writes...)
}

func (s *session) setField(ctx context.Context, c *Class, r record, f *Field, text string) (write, error) {
	switch {
	case f.Set:
	case f.Add:
		return write{}, usage("field %q is a %s: write %s:key=value, or use param-add", f.Name, f.Kind, f.Name)
	default:
		return write{}, usage("field %q is read-only", f.Name)
	}
	v, err := s.decode(ctx, f, text)
	return write{f.setter(c), []any{r.ref, v}}, err
}

// setKey writes one entry of a map.
func setKey(c *Class, r record, f *Field, key, value string) ([]write, error) {
	switch {
	case f.Kind != "map":
		return nil, usage("field %q is not a map", f.Name)
	case f.Put == "property":
		return []write{{c.API + ".set_property", []any{r.ref, key, value}}}, nil
	case !f.Add:
		return nil, usage("field %q is read-only", f.Name)
	}
	var writes []write
	if m, _ := r.values[f.From].(map[string]any); m[key] != nil {
		writes = append(writes, write{c.API + ".remove_from_" + f.From, []any{r.ref, key}})
	}
	return append(writes, write{c.API + ".add_to_" + f.From, []any{r.ref, key, value}}), nil
}

// decode turns the text of a parameter into the value the wire wants.
func (s *session) decode(ctx context.Context, f *Field, text string) (any, error) {
	switch f.Type {
	case "int":
		return wholeNumber(f.Name, text)
	case "float":
		return fraction(f.Name, text)
	case "bool":
		v, ok := truth(text)
		if !ok {
			return nil, usage("%s wants true or false, not %q", f.Name, text)
		}
		return v, nil
	case "ref":
		return s.refOf(ctx, f.Ref, text)
	case "set":
		return s.decodeSet(ctx, f, text)
	case "map":
		return nil, usage("field %q is a map: write %s:key=value", f.Name, f.Name)
	}
	for wire, word := range s.cat.Words[f.Words] {
		if strings.EqualFold(word, text) {
			return wire, nil
		}
	}
	if len(f.Values) > 0 {
		return oneOf(f.Name, text, f.Values)
	}
	return text, nil
}

// refOf is the reference of the object with this uuid; no uuid is no object,
// and a reference stands for itself.
func (s *session) refOf(ctx context.Context, class, uuid string) (any, error) {
	switch {
	case uuid == "" || uuid == missing:
		return nullRef, nil
	case strings.HasPrefix(uuid, "OpaqueRef:"):
		return uuid, nil
	}
	var ref string
	err := s.api.Call(ctx, class+".get_by_uuid", &ref, uuid)
	s.store.led[ref] = class
	return ref, err
}

func (s *session) decodeSet(ctx context.Context, f *Field, text string) (any, error) {
	set := []any{}
	for _, w := range words(text) {
		v, err := s.decodeElement(ctx, f, w)
		if err != nil {
			return nil, err
		}
		set = append(set, v)
	}
	return set, nil
}

func (s *session) decodeElement(ctx context.Context, f *Field, text string) (any, error) {
	switch {
	case f.Ref != "":
		return s.refOf(ctx, f.Ref, text)
	case f.Elem == "int":
		return wholeNumber(f.Name, text)
	}
	return text, nil
}

// words splits a list that commas part; nothing is an empty list.
func words(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

func fraction(name, text string) (any, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, usage("%s wants a number, not %q", name, text)
	}
	return v, nil
}

// units are the sizes a whole number may be given in.
var units = map[string]int64{"": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

// wholeNumber reads a number, for sizes with a unit: 512MiB.
func wholeNumber(name, text string) (any, error) {
	digits := strings.TrimLeft(text, "-0123456789")
	factor, known := units[strings.TrimSpace(digits)]
	n, err := strconv.ParseInt(strings.TrimSuffix(text, digits), 10, 64)
	if err != nil || !known {
		return nil, usage("%s wants a whole number, as in 512 or 512MiB, not %q", name, text)
	}
	if n > math.MaxInt64/factor || n < math.MinInt64/factor {
		return nil, usage("%s: %s is more than fits", name, text)
	}
	return n * factor, nil
}

// element is the message that adds or removes one element of a set.
func (f *Field) element(c *Class, verb string) string {
	name := f.From
	if f.One != nil {
		name = *f.One
	}
	return c.API + "." + verb + "_" + name
}

func (s *session) paramAdd(ctx context.Context, c *Class, r record) error {
	f, err := s.changeable(c)
	if err != nil {
		return err
	}
	if f.Kind == "set" {
		key, ok := s.Params.Get("param-key")
		if !ok {
			return missingParam("param-key")
		}
		return s.changeElement(ctx, c, r, f, "add", key)
	}
	pairs := s.Params.Without("uuid", "param-name", "param-key").Without(standard...)
	if len(pairs) == 0 {
		return usage("field %q is a map: give key=value", f.Name)
	}
	if f.Put == "whole" {
		return s.changeWhole(ctx, c, r, f, func(m map[string]any) {
			for _, p := range pairs {
				m[p.full()] = p.Value
			}
		})
	}
	var writes []write
	for _, p := range pairs {
		writes = append(writes, write{c.API + ".add_to_" + f.From, []any{r.ref, p.full(), p.Value}})
	}
	return s.send(ctx, writes...)
}

// changeWhole changes a map whose class has no message for one entry.
func (s *session) changeWhole(ctx context.Context, c *Class, r record, f *Field, change func(map[string]any)) error {
	m, _ := r.values[f.From].(map[string]any)
	m = maps.Clone(m)
	if m == nil {
		m = map[string]any{}
	}
	change(m)
	return s.send(ctx, write{f.setter(c), []any{r.ref, m}})
}

// changeElement adds or removes one element. Sets whose class has no message
// for that are written whole.
func (s *session) changeElement(ctx context.Context, c *Class, r record, f *Field, verb, key string) error {
	v, err := s.decodeElement(ctx, f, key)
	if err != nil {
		return err
	}
	if f.One == nil || *f.One != "" {
		return s.send(ctx, write{f.element(c, verb), []any{r.ref, v}})
	}
	set, _ := r.values[f.From].([]any)
	set = slices.DeleteFunc(slices.Clone(set), func(e any) bool { return e == v })
	if verb == "add" {
		set = append(set, v)
	}
	return s.send(ctx, write{f.setter(c), []any{r.ref, set}})
}

func (s *session) paramRemove(ctx context.Context, c *Class, r record) error {
	f, err := s.changeable(c)
	if err != nil {
		return err
	}
	key, _ := s.Params.Get("param-key")
	v, err := s.show(ctx, c, r, f)
	if err != nil {
		return err
	}
	_, inMap := v.pairs[key]
	if !inMap && !slices.Contains(v.set, key) {
		return usage("key %q is not in %s", key, f.Name)
	}
	switch {
	case f.Kind == "set":
		return s.changeElement(ctx, c, r, f, "remove", key)
	case f.Put == "whole":
		return s.changeWhole(ctx, c, r, f, func(m map[string]any) { delete(m, key) })
	}
	return s.send(ctx, write{c.API + ".remove_from_" + f.From, []any{r.ref, key}})
}

// paramClear empties a field: sets and maps entry by entry, as that is what
// roles are granted for, anything else by writing nothing.
func (s *session) paramClear(ctx context.Context, c *Class, r record) error {
	f, err := s.named(c)
	if err != nil {
		return err
	}
	switch {
	case f.Kind == "map" && f.Put == "whole":
		return s.send(ctx, write{f.setter(c), []any{r.ref, map[string]string{}}})
	case f.Kind == "map" && f.Add:
		return s.clearMap(ctx, c, r, f)
	case f.Kind == "set" && f.Add:
		return s.clearSet(ctx, c, r, f)
	case !f.Set:
		return usage("field %q is read-only", f.Name)
	}
	w, err := s.setField(ctx, c, r, f, "")
	if err != nil {
		return usage("field %q cannot be cleared", f.Name)
	}
	return s.send(ctx, w)
}

func (s *session) clearMap(ctx context.Context, c *Class, r record, f *Field) error {
	v, err := s.show(ctx, c, r, f)
	if err != nil {
		return err
	}
	keys := make([]string, 0, len(v.pairs))
	for k := range v.pairs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := s.send(ctx, write{c.API + ".remove_from_" + f.From, []any{r.ref, k}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) clearSet(ctx context.Context, c *Class, r record, f *Field) error {
	if f.Set {
		return s.send(ctx, write{f.setter(c), []any{r.ref, []any{}}})
	}
	set, _ := r.values[f.From].([]any)
	for _, e := range set {
		if err := s.send(ctx, write{f.element(c, "remove"), []any{r.ref, e}}); err != nil {
			return err
		}
	}
	return nil
}

// changeable is the set or map that param-add and param-remove are about.
func (s *session) changeable(c *Class) (*Field, error) {
	f, err := s.named(c)
	if err == nil && (!f.Add || f.Kind == "") {
		err = usage("field %q is not a set or map that can be changed", f.Name)
	}
	return f, err
}
