package xe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cairn/toolstack/client"
)

// fakeAPI answers reads from fixture records and writes down every other call.
type fakeAPI struct {
	classes map[string]map[string]map[string]any // class → reference → record
	calls   []string
	fail    map[string]*client.Error
}

func newFake(t *testing.T) *fakeAPI {
	t.Helper()
	text, err := os.ReadFile("testdata/pool.json")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeAPI{fail: map[string]*client.Error{}}
	if err := json.Unmarshal(text, &f.classes); err != nil {
		t.Fatal(err)
	}
	return f
}

// Call implements API.
func (f *fakeAPI) Call(_ context.Context, method string, out any, args ...any) error {
	if err := f.fail[method]; err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	v, read, err := f.answer(method, args)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if !read {
		text, _ := json.Marshal(args)
		f.calls = append(f.calls, method+" "+string(text))
	}
	if out == nil {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, out)
}

func (f *fakeAPI) answer(method string, args []any) (v any, read bool, err error) {
	class, verb, _ := strings.Cut(method, ".")
	records := f.classes[class]
	switch verb {
	case "get_all_records":
		return records, true, nil
	case "get_record":
		return records[args[0].(string)], true, nil
	case "get_uuid":
		return records[args[0].(string)]["uuid"], true, nil
	case "get_by_uuid":
		for ref, r := range records {
			if r["uuid"] == args[0] {
				return ref, true, nil
			}
		}
		return nil, true, &client.Error{Code: "UUID_INVALID", Params: []string{class, fmt.Sprint(args[0])}}
	case "get_by_name_label":
		return f.named(records, args[0]), true, nil
	case "clone":
		return "OpaqueRef:vm1", false, nil
	case "call_plugin":
		return `{"enabled":true,"present":true}`, false, nil
	default:
		return "", false, nil
	}
}

func (f *fakeAPI) named(records map[string]map[string]any, name any) []string {
	refs := []string{}
	for ref, r := range records {
		if r["name_label"] == name {
			refs = append(refs, ref)
		}
	}
	sort.Strings(refs)
	return refs
}

// Console implements API: a console that greets and echoes.
func (f *fakeAPI) Console(_ context.Context, ref string) (io.ReadWriteCloser, error) {
	if ref != "OpaqueRef:vm1" {
		return nil, errors.New("no console")
	}
	r, w := io.Pipe()
	return &echo{io.MultiReader(strings.NewReader("login: "), r), w}, nil
}

type echo struct {
	io.Reader
	w *io.PipeWriter
}

func (e *echo) Write(p []byte) (int, error) { return e.w.Write(p) }
func (e *echo) Close() error                { return e.w.Close() }

// TestScripts runs testdata/*.txtar: each line `xe …` runs one command against
// the fixture; `calls` prints what reached the host since the last time;
// `refuse METHOD CODE PARAM…` makes the host refuse a message.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Values["fake"] = newFake(t)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"xe": cmdXe,
			"calls": func(ts *testscript.TestScript, _ bool, _ []string) {
				f := ts.Value("fake").(*fakeAPI)
				fmt.Fprintln(ts.Stdout(), strings.Join(f.calls, "\n"))
				f.calls = nil
			},
			"refuse": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value("fake").(*fakeAPI).fail[args[0]] = &client.Error{Code: args[1], Params: args[2:]}
			},
		},
		UpdateScripts: os.Getenv("UPDATE") != "",
	})
}

func cmdXe(ts *testscript.TestScript, neg bool, args []string) {
	f := ts.Value("fake").(*fakeAPI)
	var in io.Reader = strings.NewReader("")
	if text, err := os.ReadFile(ts.MkAbs("stdin")); err == nil {
		in = bytes.NewReader(text)
	}
	status := Run(context.Background(), Config{
		Args: args, Stdin: in, Stdout: ts.Stdout(), Stderr: ts.Stderr(), Getenv: ts.Getenv,
		Connect: func(context.Context, Invocation) (API, func(), error) { return f, func() {}, nil },
	})
	if (status != 0) != neg {
		ts.Fatalf("xe %s: exit status %d", strings.Join(args, " "), status)
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		line string
		want string // of the fields, or the error
	}{
		{"vm-list", "localhost:443 root vm-list []"},
		{"-s h -p 8443 -u joe -pw x vm-list params=all", "h:8443 joe vm-list [{params  all}]"},
		{"vm-list -s h params=a,b other-config:k=v", "h:443 root vm-list [{params  a,b} {other-config k v}]"},
		{"vm-param-set uuid=u name-label=a=b", "localhost:443 root vm-param-set [{uuid  u} {name-label  a=b}]"},
		{"", "no command given; try: xe help"},
		{"vm-list -p no", `"no" is not a port number`},
		{"vm-list -p 70000", `"70000" is not a port number`},
		{"vm-list -s", "-s wants a value"},
		{"vm-list --frobnicate", "unknown switch --frobnicate"},
		{"vm-list stray", `"stray" is not of the form name=value`},
		{"vm-list =x", `"=x" names no parameter`},
	}
	for _, tt := range tests {
		inv, err := Parse(strings.Fields(tt.line))
		server := inv.Server
		if server == "" {
			server = "localhost"
		}
		got := fmt.Sprintf("%s:%d %s %s %v", server, inv.Port, inv.Username, inv.Command, inv.Params)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q:\n got %s\nwant %s", tt.line, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("-s h vm-list params=all a:b=c --minimal")
	f.Fuzz(func(t *testing.T, line string) {
		inv, err := Parse(strings.Split(line, " "))
		if err == nil && inv.Command == "" && !inv.Help {
			t.Error("accepted without a command")
		}
		if err == nil && (inv.Port < 1 || inv.Port > 65535) {
			t.Errorf("port %d", inv.Port)
		}
	})
}

// TestCatalogue holds the data to what the code relies on.
func TestCatalogue(t *testing.T) {
	c := load()
	if len(c.Commands) != 387 || len(c.Classes) != 54 {
		t.Errorf("%d commands, %d classes", len(c.Commands), len(c.Classes))
	}
	for name := range commands {
		if _, ok := c.explicit[name]; !ok {
			t.Errorf("%s has code but is not in commands.json", name)
		}
	}
	for _, class := range c.Classes {
		for _, column := range class.Columns {
			if _, err := class.Field(column); err != nil {
				t.Error(err)
			}
		}
		for field := range class.Filter {
			if _, err := class.Field(field); err != nil {
				t.Error(err)
			}
		}
	}
}
