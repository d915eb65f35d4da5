package xe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cairn/toolstack/client"
)

// fakeAPI answers reads from fixture records and writes down every other call.
type fakeAPI struct {
	classes map[string]map[string]values // class → reference → record
	calls   []string
	fail    map[string]*client.Error
	answers map[string]any // of other messages
	task    string         // the message that runs as a task
	files   map[string]string
	closed  bool // the session has ended
}

func (f *fakeAPI) refuses(method string) error {
	if e := f.fail[method]; e != nil {
		return e
	}
	return nil
}

// events answers event.from: the end of the task, or the objects of a class.
func (f *fakeAPI) events(args []any) any {
	class := args[0].([]string)[0]
	var events []any
	if strings.HasPrefix(class, "task/") {
		result, _ := f.answers[f.task].(string)
		if f.task == "" {
			result = "OpaqueRef:vm1" // of an import
		}
		events = append(events, map[string]any{"operation": "mod", "ref": "OpaqueRef:task", "snapshot": map[string]any{
			"status": "success", "progress": 1, "result": "<value>" + result + "</value>"}})
	}
	for name, records := range f.classes {
		for ref, r := range records {
			if strings.EqualFold(name, class) {
				events = append(events, map[string]any{"operation": "add", "ref": ref, "snapshot": r})
			}
		}
	}
	return map[string]any{"token": "t", "events": events}
}

// Session implements API.
func (f *fakeAPI) Session() string { return "OpaqueRef:session" }

// Get implements API.
func (f *fakeAPI) Get(_ context.Context, path string, query url.Values) (io.ReadCloser, error) {
	f.calls = append(f.calls, "GET "+path+" "+query.Encode())
	if text, ok := f.files[path]; ok {
		return io.NopCloser(strings.NewReader(text)), nil
	}
	return nil, &client.StatusError{Code: 404}
}

// PutFile implements API.
func (f *fakeAPI) PutFile(_ context.Context, path string, query url.Values, file string) error {
	text, err := os.ReadFile(file)
	f.calls = append(f.calls, fmt.Sprintf("PUT %s %s %d %s", path, query.Encode(), len(text), text))
	if _, ok := f.files[path]; !ok {
		return &client.StatusError{Code: 404}
	}
	return err
}

func newFake(t *testing.T) *fakeAPI {
	t.Helper()
	text, err := os.ReadFile("testdata/pool.json")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeAPI{fail: map[string]*client.Error{}, files: map[string]string{"/audit_log": "the log\n", "/import": "", "/import_metadata": "", "/export_metadata": "the log\n"}}
	f.answers = map[string]any{
		"SR.create": "OpaqueRef:sr1", "VIF.create": "OpaqueRef:vif1", "VM_appliance.create": "OpaqueRef:app1",
		"VM.clone": "OpaqueRef:vm1", "VM.copy": "OpaqueRef:vm1", "VM.snapshot": "OpaqueRef:vm1", "VM.get_possible_hosts": []string{"OpaqueRef:h1"},
		"VDI.create": "OpaqueRef:vdi1", "VBD.create": "OpaqueRef:vbd1", "network.create": "OpaqueRef:net1",
		"VM.get_other_config": map[string]string{"disks": "<provision><disk size='1' sr='' bootable='true'/></provision>"},
		"VM.call_plugin":      "done", "host.get_cpu_info": map[string]string{"vendor": "GenuineIntel", "features": "abc"},
		"pool.ha_compute_max_host_failures_to_tolerate": 2, "session.get_all_subject_identifiers": []string{"u1", "u2"},
		"host.get_vms_which_prevent_evacuation": map[string]any{"OpaqueRef:vm1": []string{"VM_LACKS_FEATURE", "x"}},
		"VM.get_data_sources":                   []any{map[string]any{"name_label": "cpu0", "enabled": true, "max": 1.5}},
		"pool.get_default_SR":                   "OpaqueRef:sr1", "PIF.create": "", "task.create": "OpaqueRef:task",
		"auth.get_subject_identifier": "S-1", "auth.get_subject_information_from_identifier": map[string]string{"subject-name": "joe"},
		"subject.create": "OpaqueRef:subject1", "VLAN.create": "OpaqueRef:vlan1", "VLAN.get_untagged_PIF": "OpaqueRef:pif1",
	}
	f.answers["VM.import"] = []string{"OpaqueRef:vm1"}
	if err := json.Unmarshal(text, &f.classes); err != nil {
		t.Fatal(err)
	}
	return f
}

// Call implements API.
func (f *fakeAPI) Call(_ context.Context, method string, out any, args ...any) error {
	if f.closed {
		return errors.New("the session has ended")
	}
	if err := f.refuses(method); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	v, read, err := f.answer(method, args)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if !read && !strings.HasPrefix(method, "task.") {
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
	if message, ok := strings.CutPrefix(method, "Async."); ok {
		f.task = message
		return "OpaqueRef:task", false, f.refuses(message)
	}
	if v, ok := f.answers[method]; ok {
		return v, false, nil
	}
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
	case "get_all":
		return slices.Sorted(maps.Keys(records)), true, nil
	case "get_this_host":
		return "OpaqueRef:h1", true, nil
	case "from":
		return f.events(args), true, nil
	case "destroy":
		if class == "task" {
			return "", true, nil
		}
		return "", false, nil
	case "call_plugin":
		return `{"enabled":true,"present":true}`, false, nil
	default:
		return "", false, nil
	}
}

func (f *fakeAPI) named(records map[string]values, name any) []string {
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
			"settings": cmdSettings,
			"refuse": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value("fake").(*fakeAPI).fail[args[0]] = &client.Error{Code: args[1], Params: args[2:]}
			},
		},
		UpdateScripts: os.Getenv("UPDATE") != "",
	})
}

// cmdSettings prints which settings a command line ends with.
func cmdSettings(ts *testscript.TestScript, neg bool, args []string) {
	inv, err := settle(Config{Args: args, Getenv: ts.Getenv, Stderr: ts.Stderr()})
	if inv.PasswordFile != "" && !filepath.IsAbs(inv.PasswordFile) { // this process is elsewhere
		args = append(args, "passwordfile="+ts.MkAbs(inv.PasswordFile))
		inv, err = settle(Config{Args: args, Getenv: ts.Getenv, Stderr: ts.Stderr()})
	}
	if err != nil {
		fmt.Fprintln(ts.Stderr(), err)
	} else {
		fmt.Fprintln(ts.Stdout(), inv.addr(), inv.Username, inv.Password)
	}
	if (err != nil) != neg {
		ts.Fatalf("settings %v: %v", args, err)
	}
}

func cmdXe(ts *testscript.TestScript, neg bool, args []string) {
	f := ts.Value("fake").(*fakeAPI)
	var in io.Reader = strings.NewReader("")
	if text, err := os.ReadFile(ts.MkAbs("stdin")); err == nil {
		in = bytes.NewReader(text)
	}
	for i, a := range args { // this process is elsewhere
		if name, file, _ := strings.Cut(a, "="); name == "filename" && file != "-" {
			args[i] = name + "=" + ts.MkAbs(file)
		}
	}
	status := Run(context.Background(), Config{
		Args: args, Stdin: in, Stdout: ts.Stdout(), Stderr: ts.Stderr(), Getenv: ts.Getenv,
		Connect: func(context.Context, Settings, bool) (API, func(), error) {
			f.closed = false
			return f, func() { f.closed = true }, nil
		},
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
		{"vm-list", ":443 root vm-list []"},
		{"-s h -p 8443 -u joe -pw x vm-list params=all", "h:8443 joe vm-list [{params  all}]"},
		{"vm-list -s h params=a,b other-config:k=v", "h:443 root vm-list [{params  a,b} {other-config k v}]"},
		{"vm-list server=h port=1 username=u", "h:1 u vm-list []"},
		{"pool-sync-updates username=u", ":443 root pool-sync-updates [{username  u}]"},
		{"vm-param-set uuid=u name-label=a=b", ":443 root vm-param-set [{uuid  u} {name-label  a=b}]"},
		{"uuid=u vm-start --force", ":443 root vm-start [{uuid  u} {force  true}]"},
		{"", ":443 root  []"},
		{"vm-list -p no", `"no" is not a port number`},
		{"vm-list -p 70000", `"70000" is not a port number`},
		{"vm-list -s", "-s wants a value"},
		{"vm-list -x", "unknown switch -x"},
		{"vm-list stray", `"stray" is not of the form name=value`},
		{"vm-list =x", `"=x" names no parameter`},
		{"vm-list nossl=true", "nossl: hosts answer over TLS only"},
		{"vm-list --debug=maybe", `debug is true or false, not "maybe"`},
	}
	for _, tt := range tests {
		inv, err := Parse(strings.Fields(tt.line))
		got := fmt.Sprintf("%s:%d %s %s %v", inv.Server, inv.Port, inv.Username, inv.Command, inv.Params)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q:\n got %s\nwant %s", tt.line, got, tt.want)
		}
	}
}

func TestExtraArgs(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "[]",
		"server=h,username=u":        "[server=h|username=u]",
		",,a=b,":                     "[a=b]",
		`password=a\,b\\c,port=8443`: `[password=a,b\c|port=8443]`,
		`a=b\`:                       `[a=b\]`,
	} {
		if got := "[" + strings.Join(extraArgs(in), "|") + "]"; got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestWholeNumbers(t *testing.T) {
	for in, want := range map[string]any{
		"0": int64(0), "-5": int64(-5), "512MiB": int64(512 << 20), "1 TiB": int64(1 << 40), "7bytes": int64(7),
		"8388608TiB": nil, "1.5GiB": nil, "": nil, "GiB": nil, "12MB": nil, "9223372036854775808": nil,
	} {
		if got, err := wholeNumber("size", in); got != want || (err == nil) != (want != nil) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
}

func TestTaskResults(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "",
		"<value>OpaqueRef:a</value>": "OpaqueRef:a",
		"<value><string>a&amp;b</string></value>":                                                         "a&b",
		"<value><array><data><value>OpaqueRef:a</value><value>OpaqueRef:b</value></data></array></value>": "OpaqueRef:a OpaqueRef:b",
		"<value>": "", "no XML < at all": "",
	} {
		if got := strings.Join(valueTexts(in), " "); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestCatalogue holds the data to what the code relies on.
func TestCatalogue(t *testing.T) {
	c := load()
	generic := 0
	for _, class := range c.Classes {
		generic += len(class.Commands)
		for _, column := range class.Columns {
			if _, err := class.field(column); err != nil {
				t.Error(err)
			}
		}
		for field := range class.Filter {
			if _, err := class.field(field); err != nil {
				t.Error(err)
			}
		}
	}
	// Of the 54 classes and 285 commands of the list, and the roles.
	if len(c.Commands) != 387 || len(c.Classes) != 54+1 || generic != 285+3 {
		t.Errorf("%d commands, %d classes, %d generic commands", len(c.Commands), len(c.Classes), generic)
	}
	for name := range inGo {
		if c.explicit[name] == nil || strings.TrimSpace(c.explicit[name].plan) != "code" {
			t.Errorf("%s has code that calls.txt does not want", name)
		}
	}
}
