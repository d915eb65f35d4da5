package xe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/client"
)

// strictAPI answers every message with a value of the declared type, and
// complains of each call the description does not allow.
type strictAPI struct {
	t      *testing.T
	during string // command line at work
	called map[string]bool
}

// Call implements API.
func (a *strictAPI) Call(_ context.Context, method string, out any, args ...any) error {
	name, isTask := strings.CutPrefix(method, "Async.")
	m := api.FindMessage(name)
	if m == nil {
		a.t.Errorf("%s: there is no message %s", a.during, name)
		return errors.New("unknown")
	}
	a.called[name] = true
	if isTask && !m.Async {
		a.t.Errorf("%s: %s has no asynchronous form", a.during, name)
	}
	text, err := json.Marshal(args)
	if err != nil {
		return err
	}
	var given []any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&given); err != nil {
		return err
	}
	if len(given) > len(m.Params) || len(given) < m.RequiredParams() {
		a.t.Errorf("%s: %s wants %d to %d arguments, got %s", a.during, name, m.RequiredParams(), len(m.Params), text)
		return errors.New("count")
	}
	for i, v := range given {
		if why := mismatch(m.Params[i].Type, v, m.Op == api.OpCreate); why != "" {
			a.t.Errorf("%s: %s: parameter %s: %s", a.during, name, m.Params[i].Name, why)
		}
	}
	if out == nil {
		return nil
	}
	answer := sample(m.Result)
	switch {
	case isTask:
		answer = "OpaqueRef:task"
	case name == "event.from":
		answer = map[string]any{"token": "t", "events": []any{
			map[string]any{"operation": "mod", "ref": "OpaqueRef:task", "snapshot": map[string]any{"status": "success", "result": "<value>OpaqueRef:x</value>"}},
			map[string]any{"operation": "add", "ref": "OpaqueRef:x", "snapshot": map[string]any{"uuid": "x", "is_a_template": false}}}}
	}
	text, err = json.Marshal(answer)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, out)
}

// Console implements API.
func (a *strictAPI) Console(context.Context, string) (io.ReadWriteCloser, error) {
	a.stream("/console")
	return nil, errors.New("no console")
}

// Session implements API.
func (a *strictAPI) Session() string { return "OpaqueRef:session" }

// Get implements API.
func (a *strictAPI) Get(_ context.Context, path string, _ url.Values) (io.ReadCloser, error) {
	a.stream(path)
	return io.NopCloser(strings.NewReader("text")), nil
}

// PutFile implements API.
func (a *strictAPI) PutFile(_ context.Context, path string, _ url.Values, file string) error {
	a.stream(path)
	_, err := os.Stat(file)
	return err
}

func (a *strictAPI) stream(path string) { a.called["stream "+path] = true }

// mismatch says why a value is not of a type; "" if it is.
func mismatch(t *api.TypeInfo, v any, constructor bool) string {
	bad := fmt.Sprintf("%v is not of type %s", v, t.Text)
	switch t.Kind {
	case api.KindString, api.KindTime:
		if _, ok := v.(string); !ok {
			return bad
		}
	case api.KindEnum:
		if s, ok := v.(string); !ok || !t.Enum().Has(s) {
			return bad
		}
	case api.KindRef:
		if s, ok := v.(string); !ok || !strings.HasPrefix(s, "OpaqueRef:") {
			return bad
		}
	case api.KindInt:
		n, ok := v.(json.Number)
		if !ok || strings.ContainsAny(n.String(), ".e") {
			return bad
		}
	case api.KindFloat:
		if _, ok := v.(json.Number); !ok {
			return bad
		}
	case api.KindBool:
		if _, ok := v.(bool); !ok {
			return bad
		}
	case api.KindSet:
		set, ok := v.([]any)
		if !ok {
			return bad
		}
		for _, e := range set {
			if why := mismatch(t.Elem(), e, false); why != "" {
				return why
			}
		}
	case api.KindMap:
		m, ok := v.(map[string]any)
		if !ok {
			return bad
		}
		for _, e := range m {
			if why := mismatch(t.Elem(), e, false); why != "" {
				return why
			}
		}
	case api.KindRecord:
		m, ok := v.(map[string]any)
		if !ok {
			return bad
		}
		return recordMismatch(t.Class(), m, constructor)
	}
	return ""
}

func recordMismatch(c *api.ClassInfo, m map[string]any, constructor bool) string {
	for name, v := range m {
		i := c.FieldByName(name)
		if i < 0 {
			return fmt.Sprintf("%s has no field %s", c.Name, name)
		}
		if why := mismatch(c.Fields[i].Type, v, false); why != "" {
			return name + ": " + why
		}
	}
	for _, f := range c.Fields {
		if _, ok := m[f.Name]; constructor && f.Required && !ok {
			return fmt.Sprintf("field %s of %s is missing", f.Name, c.Name)
		}
	}
	return ""
}

// sample is a value of a type, nil being nothing.
func sample(t *api.TypeInfo) any {
	if t == nil {
		return ""
	}
	switch t.Kind {
	case api.KindInt:
		return 1
	case api.KindFloat:
		return 0.5
	case api.KindBool:
		return true
	case api.KindTime:
		return "20260101T00:00:00Z"
	case api.KindEnum:
		return t.Enum().Values[0]
	case api.KindRef:
		return "OpaqueRef:x"
	case api.KindSet:
		return []any{sample(t.Elem())}
	case api.KindMap:
		return map[string]any{fmt.Sprint(sample(t.Key())): sample(t.Elem())}
	case api.KindRecord:
		return sampleRecord(t.Class())
	}
	return ""
}

// sampleRecord is a record in which references lead somewhere, and which the
// filters of the classes let through.
func sampleRecord(c *api.ClassInfo) map[string]any {
	m := map[string]any{}
	for _, f := range c.Fields {
		switch f.Type.Kind {
		case api.KindRecord:
			m[f.Name] = map[string]any{}
		case api.KindBool:
			m[f.Name] = false
		default:
			m[f.Name] = sample(f.Type)
		}
	}
	m["uuid"] = noObject
	return m
}

// lines are command lines that make use of everything a command's plan says:
// one for each alternative, and one with all parameters.
func lines(t *testing.T, cmd *Command) [][]string {
	t.Helper()
	p, err := parsePlan(cmd.plan)
	if err != nil {
		t.Fatalf("%s: %v", cmd.Name, err)
	}
	kinds := argKinds(p)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	given := func(name string) string { return sampleParam(kinds, sampleObjects, file, name) }
	base := []string{cmd.Name, "--force"}
	if class := cmd.selects(); class != "" && !cmd.declares(class) {
		base = append(base, class+"="+noObject)
	}
	for _, name := range cmd.Required {
		base = append(base, given(name))
	}
	all := slices.Clone(base)
	for _, name := range cmd.Optional {
		all = append(all, given(name))
	}
	list := [][]string{base, all}
	for _, st := range p.alternatives {
		if st.guard != "" {
			list = append(list, append(slices.Clone(base), given(st.guard[1:])))
		}
	}
	return list
}

// sampleObjects makes every object the same: strictAPI knows them all.
var sampleObjects = map[string]string{}

// TestEveryCommandCallsWhatThereIs runs every explicit command in all its forms
// and holds what it calls to the description of the API: message, number and
// types of arguments, constructors' fields.
func TestEveryCommandCallsWhatThereIs(t *testing.T) {
	for _, cmd := range load().Commands {
		t.Run(cmd.Name, func(t *testing.T) {
			a := &strictAPI{t: t, called: map[string]bool{}}
			worked := false
			for _, line := range lines(t, cmd) {
				a.during = strings.Join(line, " ")
				worked = runStrict(t, a, line) || worked
			}
			if !worked && !refusedHere[cmd.Name] {
				t.Error("no form of it works")
			}
			if len(a.called) == 0 && !strings.HasPrefix(cmd.plan, "LATER") {
				t.Error("nothing was called")
			}
		})
	}
}

func runStrict(t *testing.T, a *strictAPI, line []string) bool {
	t.Helper()
	var out, errOut strings.Builder
	status := Run(t.Context(), Config{
		Args: line, Stdin: strings.NewReader("yes\n"), Stdout: &out, Stderr: &errOut, Getenv: func(string) string { return "" },
		Connect: func(context.Context, Settings, bool) (API, func(), error) { return a, func() {}, nil },
	})
	expected := strings.Contains(errOut.String(), "needs one of") || strings.Contains(errOut.String(), "parameter not found") ||
		strings.Contains(errOut.String(), "cannot be cleared") // numbers, truths and enumerations cannot be nothing
	if status != 0 && !refusedHere[line[0]] && !expected {
		t.Errorf("%s: %s", a.during, errOut.String())
	}
	return status == 0
}

// refusedHere are commands that want more than samples, or are not there yet.
var refusedHere = map[string]bool{
	"console": true, "hostdriver-select": true, "vm-cd-insert": true, "vm-disk-remove": true, "vm-migrate": true, "host-all-editions": true,
}

// TestEveryGenericCommandCallsWhatThereIs does the same for the commands all
// classes have, for every field.
func TestEveryGenericCommandCallsWhatThereIs(t *testing.T) {
	a := &strictAPI{t: t, called: map[string]bool{}}
	for _, class := range load().Classes {
		for _, name := range class.Commands {
			for _, line := range genericLines(class, name) {
				a.during = strings.Join(line, " ")
				runStrict(t, a, line)
			}
		}
	}
}

func genericLines(class *Class, name string) [][]string {
	verb := strings.TrimPrefix(name, class.Name+"-")
	base := []string{name, "uuid=x"}
	list := [][]string{}
	if verb == "list" || verb == "param-list" {
		list = append(list, base, append(slices.Clone(base), "params=all"))
	}
	for _, f := range class.Fields {
		line := slices.Clone(base)
		switch {
		case verb == "param-get":
			line = append(line, "param-name="+f.Name)
		case verb == "param-set" && f.Kind == "map" && (f.Add || f.Put != ""):
			line = append(line, f.Name+":"+fieldKey(class, f)+"=value")
		case verb == "param-set" && f.Set:
			line = append(line, f.Name+"="+fieldText(class, f))
		case verb == "param-clear" && (f.Set || f.Add):
			line = append(line, "param-name="+f.Name)
		case verb == "param-add" && f.Add:
			line = append(line, "param-name="+f.Name, fieldKey(class, f)+"="+fieldText(class, f), "param-key="+fieldText(class, f))
		case verb == "param-remove" && f.Add:
			line = append(line, "param-name="+f.Name, "param-key="+removable(class, f))
		default:
			continue
		}
		list = append(list, line)
	}
	return list
}

// fieldKey is a key a map takes.
func fieldKey(class *Class, f *Field) string {
	info := api.FindClass(class.API)
	if i := info.FieldByName(f.From); i >= 0 && info.Fields[i].Type.Kind == api.KindMap && info.Fields[i].Type.Key().Kind == api.KindEnum {
		return info.Fields[i].Type.Key().Enum().Values[0]
	}
	return "key"
}

// removable is an element or key that a sample record holds.
func removable(class *Class, f *Field) string {
	if f.Kind == "map" {
		return strings.TrimPrefix(fieldKey(class, f), "key")
	}
	return fieldText(class, f)
}

// fieldText is a text a field takes, and that a sample record of it holds.
func fieldText(class *Class, f *Field) string {
	switch f.Type {
	case "int", "float":
		return "1"
	case "bool":
		return "true"
	}
	if f.Elem == "int" {
		return "1"
	}
	if f.Ref != "" {
		return noObject
	}
	info := api.FindClass(class.API)
	if i := info.FieldByName(f.From); i >= 0 {
		t := info.Fields[i].Type
		if t.Kind == api.KindSet {
			t = t.Elem()
		}
		if t.Kind == api.KindEnum {
			return t.Enum().Values[0]
		}
	}
	return ""
}

var _ API = (*client.Client)(nil)
