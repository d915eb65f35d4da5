package xe

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// print shows a record: with --minimal only the first field, comma separated
// from the one before; else a line a field with the access of the field.
func (s *session) print(ctx context.Context, c *Class, r record, fields []Field, first bool) error {
	if s.Minimal {
		fields = fields[:1]
	}
	values := make([]string, len(fields))
	for i, f := range fields {
		v, err := s.value(ctx, c, r, f)
		if err != nil {
			return err
		}
		if values[i], err = s.text(ctx, f, v); err != nil {
			return err
		}
	}
	if s.Minimal {
		if !first {
			values[0] = "," + values[0]
		}
		_, err := fmt.Fprint(s.out, values[0])
		return err
	}
	_, err := fmt.Fprint(s.out, block(fields, values))
	return err
}

// end closes a list of n records.
func (s *session) end(n int) error {
	if s.Minimal && n > 0 {
		return s.line("")
	}
	return nil
}

func (s *session) line(text string) error {
	_, err := fmt.Fprintln(s.out, text)
	return err
}

// block lays a record out: the first name flush left, the others right-aligned
// under it, then two empty lines.
func block(fields []Field, values []string) string {
	labels := make([]string, len(fields))
	width := 0
	for i, f := range fields {
		labels[i] = f.Name + " " + f.access()
		width = max(width, len(labels[i]))
	}
	var b strings.Builder
	for i, l := range labels {
		pad := strings.Repeat(" ", width-len(l))
		if i == 0 {
			fmt.Fprintf(&b, "%s%s    : %s\n", l, pad, values[i])
		} else {
			fmt.Fprintf(&b, "    %s%s: %s\n", pad, l, values[i])
		}
	}
	return b.String() + "\n\n"
}

// access says how a field may be used: S set, M map; RO, RW.
func (f Field) access() string {
	mode := "RO"
	if f.Set || f.Add {
		mode = "RW"
	}
	switch f.Type {
	case "set":
		return "(S" + mode + ")"
	case "map":
		return "(M" + mode + ")"
	default:
		return "( " + mode + ")"
	}
}

// decode turns the text of a parameter into the value the wire wants.
func (f Field) decode(text string) (any, error) {
	switch f.Type {
	case "int":
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, usage("field %q wants a whole number, not %q", f.Name, text)
		}
		return v, nil
	case "float":
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, usage("field %q wants a number, not %q", f.Name, text)
		}
		return v, nil
	case "bool":
		v, err := strconv.ParseBool(text)
		if err != nil {
			return nil, usage("field %q wants true or false, not %q", f.Name, text)
		}
		return v, nil
	case "set":
		if text == "" {
			return []string{}, nil
		}
		return strings.Split(text, ","), nil
	case "map":
		return nil, usage("field %q is a map: write %s:key=value", f.Name, f.Name)
	default:
		return text, nil
	}
}
