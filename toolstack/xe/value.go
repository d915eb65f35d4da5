package xe

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sort"
	"strconv"
	"strings"

	"cairn/toolstack/client"
)

const nullRef = "OpaqueRef:NULL"

// What a field shows when there is nothing to show.
const (
	missing   = "<not in database>"
	costly    = "<expensive field>"
	sharedFor = "<shared>"
)

// values are the fields of one record as the wire carries them. Numbers keep
// their digits: a 64-bit integer does not fit a float.
type values map[string]any

// UnmarshalJSON implements json.Unmarshaler.
func (v *values) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode((*map[string]any)(v))
}

func (v values) text(name string) string {
	s, _ := v[name].(string)
	return s
}

// record is one object with its reference.
type record struct {
	ref string
	values
}

func (r record) uuid() string { return r.text("uuid") }

// store remembers the records a run has read.
type store struct {
	of    map[string]map[string]values // class → reference → fields
	led   map[string]string            // reference a parameter led to → class
	asked map[string]int               // class → records asked for one by one
	whole map[string]bool              // classes read as a whole
}

func newStore() store {
	return store{of: map[string]map[string]values{}, led: map[string]string{}, asked: map[string]int{}, whole: map[string]bool{}}
}

func (st store) keep(class, ref string, v values) {
	if st.of[class] == nil {
		st.of[class] = map[string]values{}
	}
	st.of[class][ref] = v
}

// records reads all objects of a class, in the order of their uuid so that
// output can be compared.
func (s *session) records(ctx context.Context, class string) ([]record, error) {
	if err := s.readAll(ctx, class); err != nil {
		return nil, err
	}
	list := make([]record, 0, len(s.store.of[class]))
	for ref, v := range s.store.of[class] {
		list = append(list, record{ref, v})
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i].uuid(), list[j].uuid()
		return a < b || a == b && list[i].ref < list[j].ref
	})
	return list, nil
}

func (s *session) readAll(ctx context.Context, class string) error {
	if s.store.whole[class] {
		return nil
	}
	var all map[string]values
	if err := s.api.Call(ctx, class+".get_all_records", &all); err != nil {
		return err
	}
	s.store.of[class], s.store.whole[class] = all, true
	return nil
}

// byUUID reads one object.
func (s *session) byUUID(ctx context.Context, class, uuid string) (record, error) {
	r := record{}
	if err := s.api.Call(ctx, class+".get_by_uuid", &r.ref, uuid); err != nil {
		return r, err
	}
	if err := s.api.Call(ctx, class+".get_record", &r.values, r.ref); err != nil {
		return r, err
	}
	s.store.keep(class, r.ref, r.values)
	return r, nil
}

// manyReads is how many records of a class are read one by one before it pays
// to read them all.
const manyReads = 4

// target reads the record a reference leads to; nil when there is none.
func (s *session) target(ctx context.Context, class, ref string) (values, error) {
	if ref == "" || ref == nullRef {
		return nil, nil
	}
	if v, ok := s.store.of[class][ref]; ok || s.store.whole[class] {
		return v, nil
	}
	if s.store.asked[class]++; s.store.asked[class] > manyReads {
		err := s.readAll(ctx, class)
		return s.store.of[class][ref], err
	}
	var v values
	err := s.api.Call(ctx, class+".get_record", &v, ref)
	if err != nil && !client.IsCode(err, "HANDLE_INVALID") {
		return nil, err
	}
	s.store.keep(class, ref, v)
	return v, nil
}

// shown is a field written out: its text, and its elements where it is a set
// or a map.
type shown struct {
	text  string
	set   []string
	pairs map[string]string
}

func plain(text string) shown { return shown{text: text} }

// absent is what a field shows that no record holds.
func (f *Field) absent() shown {
	if f.Absent != "" {
		return plain(f.Absent)
	}
	return plain(missing)
}

// show writes out one field of a record.
func (s *session) show(ctx context.Context, c *Class, r record, f *Field) (shown, error) {
	switch f.How {
	case "sr-host":
		return s.showSRHost(ctx, r)
	case "resolution":
		return plain(s.number(f, r.values["max_resolution_x"]) + "x" + s.number(f, r.values["max_resolution_y"])), nil
	}
	v, err := s.raw(ctx, r, f)
	if err != nil || v == nil {
		return f.absent(), err
	}
	out, err := s.write(ctx, f, v)
	if err != nil {
		return out, err
	}
	switch f.How {
	case "is-self":
		out.text = strconv.FormatBool(v == r.ref)
	case "quoted":
		out.text = "'" + out.text + "'"
	case "mbits":
		out.text += " Mbit/s"
	case "duplex":
		out.text = s.duplex(ctx, r, v)
	}
	return out, nil
}

// raw finds the value of a field: by a message of its own, or in the record,
// following one reference where its path says so. nil means no record has it.
func (s *session) raw(ctx context.Context, r record, f *Field) (any, error) {
	if f.Call != "" {
		return s.asked(ctx, r, f)
	}
	first, second, nested := strings.Cut(f.From, ".")
	v, ok := r.values[first]
	if f.From == "" || !ok {
		return nil, nil
	}
	if !nested {
		return v, nil
	}
	ref, _ := v.(string)
	t, err := s.target(ctx, f.Via, ref)
	return t[second], err
}

// asked answers a field by its message. What the host has no behaviour for is
// absent, not an error: the other fields are still worth showing.
func (s *session) asked(ctx context.Context, r record, f *Field) (any, error) {
	args := []any{r.ref}
	if f.Call == "SR.get_supported_types" {
		args = nil
	}
	var v struct{ V values }
	v.V = values{}
	var raw json.RawMessage
	err := s.api.Call(ctx, f.Call, &raw, args...)
	var refused *client.Error
	switch {
	case asError(err, &refused) && f.Call == "VBD.assert_attachable" && refused.Code != "NOT_IMPLEMENTED":
		return false, nil
	case asError(err, &refused):
		return nil, nil
	case err != nil:
		return nil, err
	case f.Call == "VBD.assert_attachable":
		return true, nil
	}
	err = v.V.UnmarshalJSON([]byte(`{"v":` + string(raw) + `}`))
	return v.V["v"], err
}

// write writes a value out, references as uuids.
func (s *session) write(ctx context.Context, f *Field, v any) (shown, error) {
	switch v := v.(type) {
	case []any:
		return s.writeSet(ctx, f, v)
	case map[string]any:
		return s.writeMap(ctx, f, v)
	default:
		text, err := s.scalar(ctx, f, v)
		return plain(text), err
	}
}

func (s *session) writeSet(ctx context.Context, f *Field, set []any) (shown, error) {
	out := shown{set: make([]string, 0, len(set))}
	for _, e := range set {
		text, err := s.scalar(ctx, f, e)
		if err != nil {
			return out, err
		}
		out.set = append(out.set, text)
	}
	sep := "; "
	if f.Comma {
		sep = ", "
	}
	out.text = strings.Join(out.set, sep)
	return out, nil
}

func (s *session) writeMap(ctx context.Context, f *Field, m map[string]any) (shown, error) {
	out := shown{pairs: make(map[string]string, len(m))}
	parts := make([]string, 0, len(m))
	for k, e := range m {
		text, err := s.scalar(ctx, f, e)
		if err != nil {
			return out, err
		}
		out.pairs[k] = text
		if f.How == "values" {
			out.set = append(out.set, text)
			continue
		}
		parts = append(parts, k+": "+text)
	}
	slices.Sort(parts)
	slices.Sort(out.set)
	out.text = strings.Join(append(parts, out.set...), "; ")
	return out, nil
}

func (s *session) scalar(ctx context.Context, f *Field, v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return missing, nil
	case string:
		if f.Ref != "" {
			return s.refText(ctx, f, v)
		}
		if word, ok := s.cat.Words[f.Words][v]; ok {
			return word, nil
		}
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case json.Number:
		return s.number(f, v), nil
	default:
		text, err := json.Marshal(v)
		return string(text), err
	}
}

// number shows integers as they are and fractions to three places, as
// percentages and progress read best.
func (s *session) number(f *Field, v any) string {
	n, ok := v.(json.Number)
	if !ok {
		return missing
	}
	if _, err := n.Int64(); err == nil && f.Type != "float" {
		return n.String()
	}
	x, err := n.Float64()
	if err != nil {
		return n.String()
	}
	return strconv.FormatFloat(x, 'f', 3, 64)
}

func (s *session) refText(ctx context.Context, f *Field, ref string) (string, error) {
	t, err := s.target(ctx, f.Ref, ref)
	if err != nil || t == nil {
		return missing, err
	}
	if f.How == "names" {
		return t.text("name_label"), nil
	}
	return t.text("uuid"), nil
}

// showSRHost names the host an SR is attached to.
func (s *session) showSRHost(ctx context.Context, r record) (shown, error) {
	pbds, _ := r.values["PBDs"].([]any)
	switch len(pbds) {
	case 0:
		return plain(missing), nil
	case 1:
	default:
		return plain(sharedFor), nil
	}
	ref, _ := pbds[0].(string)
	pbd, err := s.target(ctx, "PBD", ref)
	if err != nil {
		return shown{}, err
	}
	host, err := s.target(ctx, "host", pbd.text("host"))
	if err != nil || host == nil {
		return plain(missing), err
	}
	return plain(host.text("name_label")), nil
}

func (s *session) duplex(ctx context.Context, r record, full any) string {
	t, _ := s.target(ctx, "PIF_metrics", r.text("metrics"))
	switch {
	case full == true:
		return "full"
	case t["carrier"] == true:
		return "half"
	}
	return "unknown"
}
