package wire_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

// The tests of this file hold every class to the description: one object of
// each, every field with a value of its own that is no default, every implicit
// message by both encodings.

// surface is a server with one object of each class.
type surface struct {
	*wiretest.Server
	objects map[int]string // reference by class
}

// sampleTime and its other are what dates are set to.
var sampleTimes = [2]string{"20260102T03:04:05Z", "20270203T04:05:06Z"}

// sample is a value of a type; n chooses one of two, different where the type
// allows it.
func (s *surface) sample(t *api.TypeInfo, name string, n int) api.Value {
	text := func(text string) api.Value { return api.Value{Kind: api.StringValue, Text: text} }
	switch t.Kind {
	case api.KindString:
		return text(fmt.Sprintf("%s <%d> & ü", name, n))
	case api.KindInt:
		return api.Value{Kind: api.IntValue, Text: strconv.Itoa(1<<40 + len(name) + n)}
	case api.KindFloat:
		return api.Value{Kind: api.FloatValue, Text: strconv.FormatFloat(float64(len(name)+n)+0.25, 'g', -1, 64)}
	case api.KindBool:
		return api.Value{Kind: api.BoolValue, Text: strconv.Itoa(1 - n)}
	case api.KindTime:
		return api.Value{Kind: api.TimeValue, Text: sampleTimes[n]}
	case api.KindEnum:
		values := t.Enum().Values
		return text(values[(len(values)-1+n)%len(values)])
	case api.KindRef:
		if n == 1 {
			return text(api.NullRef)
		}
		return text(api.RefText(s.objects[t.Class().ID]))
	case api.KindSet:
		return api.Value{Kind: api.ArrayValue, Items: []api.Value{s.sample(t.Elem(), name, 0)}}
	case api.KindMap:
		key := s.sample(t.Key(), name, n)
		return api.Value{Kind: api.StructValue, Keys: []string{key.Text}, Items: []api.Value{s.sample(t.Elem(), name, n)}}
	}
	panic("no sample of " + t.Text)
}

func newSurface(t *testing.T) *surface {
	s := &surface{objects: map[int]string{}}
	s.Server = wiretest.New(t, nil)
	err := s.DB.Update(context.Background(), func(tx *db.Tx) error {
		classes := api.Classes()
		for i := range classes {
			if classes[i].New != nil && classes[i].InDB {
				s.objects[i] = "OpaqueRef:" + api.NewUUID()
			}
		}
		for i, ref := range s.objects {
			if err := s.insert(tx, &classes[i], ref); err != nil {
				return fmt.Errorf("%s: %w", classes[i].Name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *surface) insert(tx *db.Tx, class *api.ClassInfo, ref string) error {
	r := class.New()
	for i := range class.Fields {
		if class.Fields[i].Derived {
			continue
		}
		v := s.sample(class.Fields[i].Type, class.Fields[i].Name, 0)
		if err := r.SetField(i, &v); err != nil {
			return fmt.Errorf("%s: %w", class.Fields[i].Name, err)
		}
	}
	tx.InsertRecord(ref, r)
	return nil
}

// field is what a field must hold.
func (s *surface) field(class *api.ClassInfo, i int) api.Value {
	if !class.Fields[i].Derived {
		return s.sample(class.Fields[i].Type, class.Fields[i].Name, 0)
	}
	set := api.Value{Kind: api.ArrayValue}
	for _, l := range class.Reverse {
		if l.Field == i {
			set.Items = append(set.Items, api.Value{Kind: api.StringValue, Text: s.objects[l.Other().ID]})
		}
	}
	return set
}

// wireTime marks a date that came typed.
type wireTime string

// wanted is a value of a type as a client must find it: in JSON a number is a
// number; in XML an integer is untyped text.
func wanted(v api.Value, t *api.TypeInfo, e api.Encoding) any {
	switch t.Kind {
	case api.KindInt:
		if e == api.JSON {
			return json.Number(v.Text)
		}
		return v.Text
	case api.KindFloat:
		f, _ := strconv.ParseFloat(v.Text, 64)
		return f
	case api.KindBool:
		return v.Text == "1"
	case api.KindTime:
		if e == api.JSON {
			return v.Text
		}
		return wireTime(v.Text)
	case api.KindSet:
		out := []any{}
		for i := range v.Items {
			out = append(out, wanted(v.Items[i], t.Elem(), e))
		}
		return out
	case api.KindMap:
		out := map[string]any{}
		for i, k := range v.Keys {
			out[k] = wanted(v.Items[i], t.Elem(), e)
		}
		return out
	}
	return v.Text
}

// record is a class's object as a client must find it.
func (s *surface) record(class *api.ClassInfo, e api.Encoding) map[string]any {
	out := map[string]any{}
	for i := range class.Fields {
		out[class.Fields[i].Name] = wanted(s.field(class, i), class.Fields[i].Type, e)
	}
	return out
}

// call sends a message by one of the encodings and decodes the answer.
func (s *surface) call(e api.Encoding, method string, args ...api.Value) any {
	s.T.Helper()
	session := api.Value{Kind: api.StringValue, Text: s.Session}
	args = append([]api.Value{session}, args...)
	if e == api.XML {
		return s.callXML(method, args)
	}
	params := make([]any, len(args))
	for i := range args {
		params[i] = plain(&args[i])
	}
	text, err := s.Raw(method, params...)
	if err != nil {
		s.T.Errorf("%s: %v", method, err)
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var out any
	if err := d.Decode(&out); err != nil {
		s.T.Errorf("%s: %v", method, err)
	}
	return out
}

// plain is a value as a JSON client sends it.
func plain(v *api.Value) any {
	switch v.Kind {
	case api.IntValue, api.FloatValue:
		return json.Number(v.Text)
	case api.BoolValue:
		return v.Text == "1"
	case api.ArrayValue:
		out := []any{}
		for i := range v.Items {
			out = append(out, plain(&v.Items[i]))
		}
		return out
	case api.StructValue:
		out := map[string]any{}
		for i, k := range v.Keys {
			out[k] = plain(&v.Items[i])
		}
		return out
	}
	return v.Text
}

func (s *surface) callXML(method string, args []api.Value) any {
	s.T.Helper()
	var b strings.Builder
	b.WriteString("<methodCall><methodName>" + method + "</methodName><params>")
	for i := range args {
		b.WriteString("<param>")
		writeXML(&b, &args[i])
		b.WriteString("</param>")
	}
	b.WriteString("</params></methodCall>")
	resp, err := http.Post(s.HTTP.URL+"/", "text/xml", strings.NewReader(b.String()))
	if err != nil {
		s.T.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.T.Fatal(err)
	}
	answer, err := readXML(text)
	if err != nil {
		s.T.Errorf("%s: %v in %s", method, err, text)
		return nil
	}
	if answer["Status"] != "Success" {
		s.T.Errorf("%s: %v", method, answer["ErrorDescription"])
	}
	return answer["Value"]
}

func escape(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text))
	return b.String()
}

// writeXML writes a value as a client does.
func writeXML(b *strings.Builder, v *api.Value) {
	b.WriteString("<value>")
	switch v.Kind {
	case api.BoolValue:
		b.WriteString("<boolean>" + v.Text + "</boolean>")
	case api.FloatValue:
		b.WriteString("<double>" + v.Text + "</double>")
	case api.TimeValue:
		b.WriteString("<dateTime.iso8601>" + v.Text + "</dateTime.iso8601>")
	case api.ArrayValue:
		b.WriteString("<array><data>")
		for i := range v.Items {
			writeXML(b, &v.Items[i])
		}
		b.WriteString("</data></array>")
	case api.StructValue:
		b.WriteString("<struct>")
		for i, k := range v.Keys {
			b.WriteString("<member><name>" + escape(k) + "</name>")
			writeXML(b, &v.Items[i])
			b.WriteString("</member>")
		}
		b.WriteString("</struct>")
	default:
		b.WriteString("<string>" + escape(v.Text) + "</string>")
	}
	b.WriteString("</value>")
}

// element is any XML element.
type element struct {
	XMLName  xml.Name
	Text     string    `xml:",chardata"`
	Children []element `xml:",any"`
}

// readXML decodes a response; it is no part of what it tests.
func readXML(text []byte) (map[string]any, error) {
	var root element
	if err := xml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	for root.XMLName.Local != "value" {
		if len(root.Children) != 1 {
			return nil, fmt.Errorf("%s has %d children", root.XMLName.Local, len(root.Children))
		}
		root = root.Children[0]
	}
	v, err := readValue(&root)
	m, ok := v.(map[string]any)
	if err == nil && !ok {
		err = fmt.Errorf("no struct")
	}
	return m, err
}

func readValue(v *element) (any, error) {
	if len(v.Children) == 0 {
		return v.Text, nil
	}
	switch typed := &v.Children[0]; typed.XMLName.Local {
	case "boolean":
		return typed.Text == "1", nil
	case "double":
		return strconv.ParseFloat(typed.Text, 64)
	case "dateTime.iso8601":
		return wireTime(typed.Text), nil
	case "array":
		out := []any{}
		for i := range typed.Children[0].Children {
			item, err := readValue(&typed.Children[0].Children[i])
			if err != nil {
				return nil, err
			}
			out = append(out, item)
		}
		return out, nil
	case "struct":
		out := map[string]any{}
		for _, m := range typed.Children {
			item, err := readValue(&m.Children[1])
			if err != nil {
				return nil, err
			}
			out[m.Children[0].Text] = item
		}
		return out, nil
	default:
		return nil, fmt.Errorf("a value typed %s", typed.XMLName.Local)
	}
}

// same compares what came with what must come; numbers of JSON by value.
func same(got, want any) bool {
	switch w := want.(type) {
	case float64:
		if n, ok := got.(json.Number); ok {
			f, err := n.Float64()
			return err == nil && f == w
		}
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for k := range w {
			if !same(g[k], w[k]) {
				return false
			}
		}
		return true
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			if !same(g[i], w[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(got, want)
}

var encodings = []struct {
	name string
	e    api.Encoding
}{{"JSON", api.JSON}, {"XML", api.XML}}

// implicit calls f for every implicit message there is still.
func (s *surface) implicit(f func(m *api.MessageInfo, self api.Value)) {
	messages := api.Messages()
	for i := range messages {
		m := &messages[i]
		if m.Op != api.OpExplicit && m.State != api.Removed && !m.Hidden {
			f(m, api.Value{Kind: api.StringValue, Text: s.objects[m.Class.ID]})
		}
	}
}

func TestEveryClassAnswersItsRecords(t *testing.T) {
	s := newSurface(t)
	var covered []string
	s.implicit(func(m *api.MessageInfo, self api.Value) {
		for _, enc := range encodings {
			record := func() any { return s.record(m.Class, enc.e) }
			var got, want any
			switch m.Op {
			case api.OpGetRecord:
				got, want = s.call(enc.e, m.Method, self), record()
			case api.OpGetAll:
				got, want = s.mine(s.call(enc.e, m.Method), self.Text), []any{self.Text}
			case api.OpGetAllRecords:
				all, _ := s.call(enc.e, m.Method).(map[string]any)
				got, want = all[self.Text], record()
			default:
				return
			}
			if !same(got, want) {
				t.Errorf("%s by %s:\n got %v\nwant %v", m.Method, enc.name, got, want)
			}
		}
		covered = append(covered, m.Method)
	})
	if len(covered) < 180 {
		t.Errorf("only %d messages about records", len(covered))
	}
	s.Covers(covered...)
}

// mine leaves one reference of a set: sessions and tasks have others too.
func (s *surface) mine(set any, ref string) []any {
	items, _ := set.([]any)
	out := []any{}
	for _, item := range items {
		if item == ref {
			out = append(out, item)
		}
	}
	return out
}

func TestEveryFieldHasItsGetter(t *testing.T) {
	s := newSurface(t)
	var covered []string
	s.implicit(func(m *api.MessageInfo, self api.Value) {
		args, want := []api.Value{self}, any(nil)
		for _, enc := range encodings {
			switch m.Op {
			case api.OpGet:
				want = wanted(s.field(m.Class, m.Field), m.Class.Fields[m.Field].Type, enc.e)
			case api.OpGetByUUID:
				args, want = []api.Value{s.field(m.Class, m.Class.UUIDField)}, self.Text
			case api.OpGetByName:
				args, want = []api.Value{s.field(m.Class, m.Class.NameField)}, []any{self.Text}
			default:
				return
			}
			if got := s.call(enc.e, m.Method, args...); !same(got, want) {
				t.Errorf("%s by %s: got %v, want %v", m.Method, enc.name, got, want)
			}
		}
		covered = append(covered, m.Method)
	})
	s.Covers(covered...)
}

func TestEverySetterIsSeenByItsGetter(t *testing.T) {
	s := newSurface(t)
	var covered []string
	s.implicit(func(m *api.MessageInfo, self api.Value) {
		if m.Op < api.OpSet || m.Op > api.OpRemoveElem {
			return
		}
		for _, enc := range encodings {
			s.changeAndLook(enc.e, m, self)
		}
		covered = append(covered, m.Method)
	})
	if len(covered) < 230 {
		t.Errorf("only %d setters", len(covered))
	}
	s.Covers(covered...)
}

// changeAndLook sends one setter and compares what its getter says then.
func (s *surface) changeAndLook(e api.Encoding, m *api.MessageInfo, self api.Value) {
	field := &m.Class.Fields[m.Field]
	set, get := m.Class.Name+".set_"+field.Name, m.Class.Name+".get_"+field.Name
	first, other := s.sample(field.Type, field.Name, 0), s.sample(field.Type, field.Name, 1)
	want := first
	switch m.Op {
	case api.OpSet:
		s.call(e, set, self, first)
		s.call(e, set, self, other)
		want = other
	case api.OpAddKey:
		s.call(e, set, self, first)
		s.call(e, m.Method, self, api.Value{Kind: api.StringValue, Text: other.Keys[0]}, other.Items[0])
		want = api.Value{Kind: api.StructValue, Keys: append(first.Keys, other.Keys...), Items: append(first.Items, other.Items...)}
	case api.OpRemoveKey:
		s.call(e, set, self, first)
		s.call(e, m.Method, self, api.Value{Kind: api.StringValue, Text: first.Keys[0]})
		want = api.Value{Kind: api.StructValue}
	case api.OpAddElem:
		s.call(e, set, self, api.Value{Kind: api.ArrayValue})
		s.call(e, m.Method, self, first.Items[0])
	case api.OpRemoveElem:
		s.call(e, set, self, first)
		s.call(e, m.Method, self, first.Items[0])
		want = api.Value{Kind: api.ArrayValue}
	}
	if got := s.call(e, get, self); !same(got, wanted(want, field.Type, e)) {
		s.T.Errorf("after %s: got %v, want %v", m.Method, got, wanted(want, field.Type, e))
	}
	s.call(e, set, self, first)
}

func TestRemovedMessagesSaySo(t *testing.T) {
	s := wiretest.New(t, nil)
	n := 0
	for _, m := range api.Messages() {
		if m.State != api.Removed {
			continue
		}
		n++
		if _, err := s.Call(m.Method); !isCode(err, api.CodeMessageRemoved) {
			t.Errorf("%s: %v, want MESSAGE_REMOVED", m.Method, err)
		}
	}
	if n < 80 {
		t.Errorf("only %d removed messages", n)
	}
}

func isCode(err error, code string) bool {
	known, ok := err.(*api.Error)
	return ok && known.Code == code
}
