package xe

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// answer shows what a message answered, in the way its step says.
func (s *session) answer(ctx context.Context, how string, raw json.RawMessage) error {
	how, arg, _ := strings.Cut(how, ":")
	switch how {
	case "":
		return nil
	case "text":
		return s.answerText(raw)
	case "uuid":
		var ref string
		if err := json.Unmarshal(raw, &ref); err != nil {
			return err
		}
		return s.answerUUIDs(ctx, arg, ref)
	case "uuids":
		var refs []string
		if err := json.Unmarshal(raw, &refs); err != nil {
			return err
		}
		return s.answerUUIDs(ctx, arg, refs...)
	case "lines":
		var lines []string
		err := json.Unmarshal(raw, &lines)
		s.out.list(lines...)
		return err
	case "lists":
		var lists [][]string
		err := json.Unmarshal(raw, &lists)
		for _, l := range lists {
			s.out.list(strings.Join(l, "; "))
		}
		return err
	case "records":
		return s.answerRecords(raw)
	}
	return s.answerMap(ctx, how, arg, raw)
}

func (s *session) answerText(raw json.RawMessage) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	s.out.list(strings.TrimSuffix(fmt.Sprint(v), "\n"))
	return nil
}

// answerUUIDs prints the uuids of new objects, several on one line as lists of
// a parameter are written.
func (s *session) answerUUIDs(ctx context.Context, class string, refs ...string) error {
	all := make([]string, len(refs))
	for i, ref := range refs {
		if err := s.api.Call(ctx, class+".get_uuid", &all[i], ref); err != nil {
			return err
		}
	}
	s.out.list(strings.Join(all, ","))
	return nil
}

func (s *session) answerRecords(raw json.RawMessage) error {
	var list []values
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	for _, v := range list {
		var rows []row
		for _, name := range slices.Sorted(maps.Keys(v)) {
			text, err := s.write(context.Background(), &Field{}, v[name])
			if err != nil {
				return err
			}
			rows = append(rows, row{name, text.text})
		}
		s.out.table(nameFirst(rows))
	}
	return nil
}

// nameFirst puts what names a record on top.
func nameFirst(rows []row) []row {
	i := slices.IndexFunc(rows, func(r row) bool { return r.label == "name_label" })
	if i < 1 {
		return rows
	}
	first := rows[i]
	return slices.Insert(slices.Delete(rows, i, i+1), 0, first)
}

func (s *session) answerMap(ctx context.Context, how, arg string, raw json.RawMessage) error {
	var m values
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	if how == "key" {
		s.out.list(fmt.Sprint(m[arg]))
		return nil
	}
	var rows []row
	for _, k := range slices.Sorted(maps.Keys(m)) {
		text, err := s.write(ctx, &Field{}, m[k])
		if err != nil {
			return err
		}
		label := k
		if how == "refmap" {
			if label, err = s.refText(ctx, &Field{Ref: arg}, k); err != nil {
				return err
			}
		}
		rows = append(rows, row{label, text.text})
	}
	s.out.table(rows)
	return nil
}
