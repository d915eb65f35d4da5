package wire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cairn/golden"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

// fixture is a server with one object of each kind the transcripts use, under
// fixed references.
func fixture(t testing.TB) *wiretest.Server {
	return wiretest.New(t, func(reg *api.Registry, d *db.DB) {
		api.HandleVMStart(reg, func(_ *api.Call, vm api.VMRef, _, _ bool) error {
			return api.ErrVMBadPowerState(vm.String(), "halted", "running")
		})
		api.HandleHostCallPlugin(reg, func(_ *api.Call, _ api.HostRef, plugin, fn string, args map[string]string) (string, error) {
			if fn == "control" {
				return "a\x00\x01\x1b\tb\r\n\x7f", nil
			}
			return fmt.Sprint(plugin, "/", fn, " ", args), nil
		})
		api.HandleHostDisable(reg, func(_ *api.Call, _ api.HostRef, autoEnable bool) error {
			return api.ErrInvalidValue("auto_enable", fmt.Sprint(autoEnable))
		})
		api.HandleVMCreate(reg, func(*api.Call, *api.VM) (api.VMRef, error) { return "", nil })
		api.HandleVMClone(reg, func(*api.Call, api.VMRef, string) (api.VMRef, error) { return "OpaqueRef:clone", nil })
		api.HandleVMDestroy(reg, func(*api.Call, api.VMRef) error { panic("boom") })
		err := d.Update(t.Context(), func(tx *db.Tx) error {
			vm := api.NewVM()
			vm.UUID, vm.NameLabel = "11111111-2222-4333-8444-555555555555", "one <&> \"two\""
			vm.OtherConfig = map[string]string{"b": "2", "a": "1"}
			vm.VCPUsMax, vm.HVMShadowMultiplier = 9007199254740993, 1.5
			vm.Tags = []string{"x", "y"}
			db.InsertAs(tx, "OpaqueRef:vm", vm)
			console := api.NewConsole()
			console.UUID, console.VM, console.Location = "c", "OpaqueRef:vm", "https://h/console?uuid=c"
			db.InsertAs(tx, "OpaqueRef:console", console)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// freshRef is the reference of something made by the call.
var freshRef = regexp.MustCompile(`OpaqueRef:[0-9a-f]{8}-[0-9a-f-]{27}`)

// transcripts sends each testdata/*.in as it is and compares what comes back
// with the .out beside it. The first line is "POST <path>", SESSION stands for
// the open session, <NUL> for that byte.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".in"), func(t *testing.T) { transcript(t, file) })
	}
}

func transcript(t *testing.T, file string) {
	s := fixture(t)
	sent, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(sent), "\n")
	method, path, _ := strings.Cut(head, " ")
	body = strings.NewReplacer("SESSION", s.Session, "<NUL>", "\x00").Replace(body)
	req, err := http.NewRequest(method, s.HTTP.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", resp.StatusCode)
	for _, h := range []string{"Content-Type", "Access-Control-Allow-Origin", "Access-Control-Allow-Headers", "Access-Control-Allow-Methods"} {
		if v := resp.Header.Get(h); v != "" {
			fmt.Fprintf(&b, "%s: %s\n", h, v)
		}
	}
	text := strings.ReplaceAll(string(answer), s.Session, "SESSION")
	fmt.Fprintf(&b, "\n%s\n", freshRef.ReplaceAllString(text, "FRESH"))
	golden.Equal(t, strings.TrimSuffix(file, ".in")+".out", b.String())
}

func code(err error) string {
	var known *api.Error
	if errors.As(err, &known) {
		return known.Error()
	}
	return fmt.Sprint(err)
}

func TestErrors(t *testing.T) {
	s := fixture(t)
	for _, c := range []struct {
		want, method string
		args         []any
	}{
		{"MESSAGE_METHOD_UNKNOWN [VM.fly]", "VM.fly", nil},
		{"MESSAGE_PARAMETER_COUNT_MISMATCH [VM.start, 4, 2]", "VM.start", []any{"OpaqueRef:vm"}},
		{"MESSAGE_PARAMETER_COUNT_MISMATCH [VM.get_record, 2, 3]", "VM.get_record", []any{"OpaqueRef:vm", "x"}},
		{"HANDLE_INVALID [VM, OpaqueRef:nothing]", "VM.get_record", []any{"OpaqueRef:nothing"}},
		{"HANDLE_INVALID [VM, OpaqueRef:NULL]", "VM.get_record", []any{""}},
		{"HANDLE_INVALID [VM, OpaqueRef:console]", "VM.get_record", []any{"OpaqueRef:console"}},
		{"UUID_INVALID [VM, u]", "VM.get_by_uuid", []any{"u"}},
		{"NOT_IMPLEMENTED [VM.suspend]", "VM.suspend", []any{"OpaqueRef:vm"}},
		{"MESSAGE_REMOVED", "VIF_metrics.get_all_records", nil},
		{"VM_BAD_POWER_STATE [OpaqueRef:vm, halted, running]", "VM.start", []any{"OpaqueRef:vm", false, false}},
		{"VM_BAD_POWER_STATE [OpaqueRef:vm, halted, running]", "VM_start", []any{"OpaqueRef:vm", false, false}},
		{"FIELD_TYPE_ERROR [start_paused]", "VM.start", []any{"OpaqueRef:vm", "perhaps", false}},
		{"FIELD_TYPE_ERROR [value]", "VM.set_actions_after_reboot", []any{"OpaqueRef:vm", "explode"}},
		{"FIELD_TYPE_ERROR [value]", "VM.set_user_version", []any{"OpaqueRef:vm", "1.5"}},
		{"FIELD_TYPE_ERROR [user_version]", "VM.create", []any{map[string]any{}}},
		{"MAP_DUPLICATE_KEY [pool, other_config, OpaqueRef:pool, a]", "pool.add_to_other_config", []any{"OpaqueRef:pool", "a", "2"}},
		{"RBAC_PERMISSION_DENIED [host.tickle_heartbeat, only the hosts of a pool may send this message]", "host.tickle_heartbeat", []any{"OpaqueRef:h", map[string]string{}}},
		{"INTERNAL_ERROR [boom]", "VM.destroy", []any{"OpaqueRef:vm"}},
		{"MESSAGE_METHOD_UNKNOWN [Async.VM.get_record]", "Async.VM.get_record", []any{"OpaqueRef:vm"}},
	} {
		if c.method == "pool.add_to_other_config" {
			s.DB.Update(t.Context(), func(tx *db.Tx) error {
				p := api.NewPool()
				p.OtherConfig = map[string]string{"a": "1"}
				db.InsertAs(tx, "OpaqueRef:pool", p)
				return nil
			})
		}
		if _, err := s.Call(c.method, c.args...); code(err) != c.want {
			t.Errorf("%s: %v, want %s", c.method, code(err), c.want)
		}
	}
	for _, session := range []string{"", "OpaqueRef:other"} {
		want := "SESSION_INVALID [" + api.RefText(session) + "]"
		if _, err := s.Raw("VM.get_all", session); code(err) != want {
			t.Errorf("session %q: %v", session, err)
		}
	}
}

func TestSetters(t *testing.T) {
	s := fixture(t)
	s.Must(nil, "VM.set_name_label", "OpaqueRef:vm", "new")
	s.Must(nil, "VM.set_PV_args", "OpaqueRef:vm", "quiet")
	s.Must(nil, "VM.add_to_HVM_boot_params", "OpaqueRef:vm", "order", "cd")
	s.Must(nil, "VM.add_to_HVM_boot_params", "OpaqueRef:vm", "x", "y")
	s.Must(nil, "VM.remove_from_HVM_boot_params", "OpaqueRef:vm", "x")
	s.Must(nil, "VM.remove_from_HVM_boot_params", "OpaqueRef:vm", "absent")
	s.Must(nil, "VM.add_tags", "OpaqueRef:vm", "z")
	s.Must(nil, "VM.add_tags", "OpaqueRef:vm", "z")
	s.Must(nil, "VM.remove_tags", "OpaqueRef:vm", "x")
	s.Must(nil, "VM.set_user_version", "OpaqueRef:vm", "12")
	vm, err := db.Get(s.DB.Snapshot(), api.VMRef("OpaqueRef:vm"))
	if err != nil {
		t.Fatal(err)
	}
	if vm.NameLabel != "new" || vm.PVArgs != "quiet" || vm.UserVersion != 12 || len(vm.HVMBootParams) != 1 ||
		vm.HVMBootParams["order"] != "cd" || !slices.Equal(vm.Tags, []string{"y", "z"}) {
		t.Errorf("record is %s", api.AppendRecord(nil, api.JSON, vm))
	}
}

// A value that leads to an object there is not, or one of another class, is
// refused and changes nothing; the null reference leads nowhere.
func TestSettersCheckReferences(t *testing.T) {
	s := fixture(t)
	s.Refused(api.ErrHandleInvalid("host", "OpaqueRef:vm"), "VM.set_affinity", "OpaqueRef:vm", "OpaqueRef:vm")
	s.Refused(api.ErrHandleInvalid("SR", "OpaqueRef:none"), "VM.set_suspend_SR", "OpaqueRef:vm", "OpaqueRef:none")
	s.Refused(api.ErrHandleInvalid("VM", "OpaqueRef:none"), "VM.set_suspend_SR", "OpaqueRef:none", "OpaqueRef:NULL")
	var got string
	s.Must(&got, "VM.get_affinity", "OpaqueRef:vm")
	if got != "OpaqueRef:NULL" {
		t.Errorf("affinity %s", got)
	}
	s.Must(nil, "VM.set_affinity", "OpaqueRef:vm", "OpaqueRef:NULL")
}

func TestPlainConstructors(t *testing.T) {
	s := fixture(t)
	var ref, value string
	s.Must(&ref, "secret.create", map[string]any{"value": "v", "other_config": map[string]string{}, "uuid": "mine"})
	s.Must(&value, "secret.get_value", ref)
	if value != "v" {
		t.Errorf("value is %q", value)
	}
	var uuid string
	s.Must(&uuid, "secret.get_uuid", ref)
	if len(uuid) != 36 {
		t.Errorf("uuid is %q", uuid)
	}
	s.Must(nil, "secret.destroy", ref)
	if _, err := s.Call("secret.get_record", ref); code(err) != "HANDLE_INVALID [secret, "+ref+"]" {
		t.Error(err)
	}
	if _, err := s.Call("VBD.create", map[string]any{}); code(err) != "NOT_IMPLEMENTED [VBD.create]" {
		t.Error(err)
	}
}

func TestObjectsByExpression(t *testing.T) {
	s := fixture(t)
	const expr = `(field "name__label" = "one <&> \"two\"") and not (field "is_a_template" = "true")`
	for e, want := range map[string]int{expr: 1, "false": 0, "true": 1} {
		var refs []string
		s.Must(&refs, "VM.get_all_where", e)
		var records map[string]map[string]any
		s.Must(&records, "VM.get_all_records_where", e)
		if len(refs) != want || len(records) != want {
			t.Errorf("%s: %v, %d records", e, refs, len(records))
		}
		if want == 1 && (refs[0] != "OpaqueRef:vm" || records[refs[0]]["VCPUs_max"] != 9007199254740993.0) {
			t.Errorf("%s: %v, %v", e, refs, records[refs[0]]["VCPUs_max"])
		}
	}
	for _, m := range []string{"VM.get_all_where", "VM.get_all_records_where"} {
		if _, err := s.Call(m, "nonsense"); code(err) != "INVALID_VALUE [expr, nonsense]" {
			t.Errorf("%s: %v", m, err)
		}
	}
	s.Covers("VM.get_all_where", "VM.get_all_records_where")
}

func TestListMethods(t *testing.T) {
	s := fixture(t)
	result, err := s.Raw("system.listMethods")
	if err != nil {
		t.Fatal(err)
	}
	var methods []string
	if err := json.Unmarshal(result, &methods); err != nil {
		t.Fatal(err)
	}
	if len(methods) != 2007 || !slices.Contains(methods, "VM.get_all_records") || slices.Contains(methods, "VM.get_all_where") {
		t.Errorf("%d methods", len(methods))
	}
	call := "<methodCall><methodName>system.listMethods</methodName></methodCall>"
	resp, err := http.Post(s.HTTP.URL+"/", "text/xml", strings.NewReader(call))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	want := "<?xml version=\"1.0\"?><methodResponse><params><param><value><array><data><value>" +
		strings.Join(methods, "</value><value>") + "</value></data></array></value></param></params></methodResponse>"
	if err != nil || string(text) != want {
		t.Errorf("XML: %.200s, %v", text, err)
	}
}
