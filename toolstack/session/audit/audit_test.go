package audit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session"
	"cairn/toolstack/wire"
	"cairn/toolstack/wire/wiretest"
)

// newServer is a server whose calls go into an audit log in a directory.
func newServer(t *testing.T) (*wiretest.Server, *Log, api.VMRef, string) {
	t.Helper()
	var vm api.VMRef
	s := wiretest.New(t, func(reg *api.Registry, d *db.DB) {
		d.Update(context.Background(), func(tx *db.Tx) error {
			r := api.NewVM()
			r.NameLabel = "web 1"
			vm = db.Insert(tx, r)
			return nil
		})
		api.HandleVMStart(reg, func(*api.Call, api.VMRef, bool, bool) error { return nil })
		api.HandleVMDestroy(reg, func(c *api.Call, self api.VMRef) error {
			return d.Update(c, func(tx *db.Tx) error { return db.Delete(tx, self) })
		})
	})
	dir := t.TempDir()
	l, err := New(Config{DB: s.DB, Dir: dir, Who: s.Sessions.Who})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	counting := s.Wire.Observe
	s.Wire.Observe = func(o wire.Observation) {
		counting(o)
		l.Observe(o)
	}
	s.Wire.AuthorizeHTTP = l.Authorize(s.Sessions.AuthorizeHTTP)
	l.Handle(s.Wire)
	return s, l, vm, dir
}

func lines(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// has reports whether a line holds all of the parts.
func has(line string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(line, p) {
			return false
		}
	}
	return true
}

func TestWhatIsWritten(t *testing.T) {
	s, _, vm, dir := newServer(t)
	reader := s.As("read-only")
	var uuid, session string
	s.Must(&uuid, "VM.get_uuid", vm.String())
	reader.Must(&session, "session.get_uuid", reader.Session)
	s.Must(nil, "VM.start", vm.String(), false, false)
	reader.Call("VM.start", vm.String(), false, false)
	s.Must(nil, "VM.set_name_description", vm.String(), "a value nobody may see")
	s.Must(nil, "subject.create", map[string]any{"subject_identifier": "sid", "other_config": map[string]string{"k": "a value nobody may see"}})
	s.Call("session.change_password", "old secret", "new secret")
	s.Raw("session.login_with_password", "mallory", "guessed secret")
	s.Call("VM.destroy", "OpaqueRef:nothing")
	s.Must(nil, "VM.destroy", vm.String())
	s.Raw("VM.destroy", "OpaqueRef:no-session", vm.String()) // nobody's
	reader.Must(nil, "session.logout")

	got := lines(t, dir)
	want := [][]string{
		{"INFO audit call", "user=read-only", "message=session.login_with_password", "result=ok"},
		{"INFO audit call user=root role=root session=", "message=VM.start", `objects="VM:web 1/` + uuid + `"`, "result=ok", "took="},
		{"WARN audit denied user=read-only role=read-only session=" + session, "sid=read-only", "remote=127.0.0.1:", "message=VM.start", uuid, "result=RBAC_PERMISSION_DENIED"},
		{"message=VM.set_name_description", uuid, "result=ok"},
		{"message=subject.create", "result=ok"},
		{"WARN audit denied user=root", "message=session.change_password", "result=SESSION_AUTHENTICATION_FAILED"},
		{"WARN audit denied user=mallory", "message=session.login_with_password", "result=SESSION_AUTHENTICATION_FAILED"},
		{"message=VM.destroy", "objects=VM:nothing", "result=HANDLE_INVALID"},
		{"message=VM.destroy", "web 1/" + uuid, "result=ok"}, // though it is gone
		{"user=read-only", "session=" + session, "message=session.logout", "result=ok"},
	}
	if len(got) != len(want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if !has(got[i], want[i]...) {
			t.Errorf("line %d is\n%s\nwant %q", i, got[i], want[i])
		}
	}
	all := strings.Join(got, "\n")
	for _, secret := range []string{"secret", "a value nobody", s.Session, reader.Session} {
		if strings.Contains(all, strings.TrimPrefix(secret, "OpaqueRef:")) {
			t.Errorf("%q stands in\n%s", secret, all)
		}
	}
}

func get(t *testing.T, s *wiretest.Server, query string) (int, string) {
	t.Helper()
	resp, err := http.Get(s.HTTP.URL + "/audit_log?session_id=" + url.QueryEscape(s.Session) + query)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestDownload(t *testing.T) {
	s, l, vm, _ := newServer(t)
	l.file.maxBytes = 1500 // a few lines
	for range 20 {
		s.Must(nil, "VM.start", vm.String(), false, false)
	}
	status, text := get(t, s, "")
	n := strings.Count(text, "message=VM.start")
	if status != 200 || n < 10 || n > 20 {
		t.Errorf("status %d, %d lines:\n%s", status, n, text)
	}
	stamps := strings.Split(strings.TrimSpace(text), "\n")
	for i := 1; i < len(stamps); i++ {
		if stamps[i][:24] < stamps[i-1][:24] {
			t.Errorf("line %d is older than the one before", i)
		}
	}
	if status, text := get(t, s, "&since=20990101T00:00:00Z"); status != 200 || text != "" {
		t.Errorf("since 2099: %d, %q", status, text)
	}
	if _, text := get(t, s, "&since=20200101T00:00:00Z"); strings.Count(text, "message=VM.start") < 10 {
		t.Errorf("since 2020: %q", text)
	}
	if status, _ := get(t, s, "&since=yesterday"); status != 400 {
		t.Errorf("since yesterday: %d", status)
	}
	s.Session = "OpaqueRef:x"
	if status, _ := get(t, s, ""); status != 401 {
		t.Errorf("without a session: %d", status)
	}
}

// A stream beside the messages needs its own permission, and its denial is
// written down.
func TestStreams(t *testing.T) {
	s, _, _, dir := newServer(t)
	served := 0
	for path, method := range map[string]string{"/host_backup": http.MethodGet, "/rrd_updates": http.MethodGet, "/host_restore": http.MethodPut} {
		s.Wire.Handle(method, path, wire.Auth, func(http.ResponseWriter, *wire.Request) { served++ })
	}
	ask := func(user *wiretest.Server, method, path string) int {
		req, err := http.NewRequest(method, s.HTTP.URL+path+"?session_id="+url.QueryEscape(user.Session), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	operator := s.As("pool-operator")
	for _, c := range []struct {
		user         *wiretest.Server
		method, path string
		status       int
	}{
		{operator, "GET", "/host_backup", 403},
		{operator, "PUT", "/host_restore", 403},
		{operator, "GET", "/rrd_updates", 200},
		{s, "GET", "/host_backup", 200},
		{s, "PUT", "/host_restore", 200},
	} {
		if got := ask(c.user, c.method, c.path); got != c.status {
			t.Errorf("%s %s answers %d, want %d", c.method, c.path, got, c.status)
		}
	}
	if served != 3 {
		t.Errorf("%d were served", served)
	}
	got := lines(t, dir)
	want := [][]string{
		{"message=session.login_with_password"},
		{"denied user=pool-operator", "message=http/get_host_backup result=RBAC_PERMISSION_DENIED"},
		{"denied user=pool-operator", "message=http/put_host_restore result=RBAC_PERMISSION_DENIED"},
		{"call user=root", "message=http/put_host_restore result=ok"},
	}
	if len(got) != len(want) {
		t.Fatalf("the log is\n%s", strings.Join(got, "\n"))
	}
	for i := range want {
		if !has(got[i], want[i]...) {
			t.Errorf("line %d is\n%s\nwant %q", i, got[i], want[i])
		}
	}
}

// The file never grows beyond its bound, and a restart goes on where it was.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		f, err := openFile(dir, 100, 2)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 10 {
			fmt.Fprintf(f, "2026-01-02T03:04:05.000Z line %02d %02d\n", round, n)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 3 {
		t.Errorf("files %v, %v", files, err)
	}
	for _, name := range files {
		if info, err := os.Stat(name); err != nil || info.Size() > 100 {
			t.Errorf("%s: %v, %v", name, info.Size(), err)
		}
	}
	f, err := openFile(dir, 100, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all bytes.Buffer
	if err := f.copySince(&all, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := all.String(); !strings.HasSuffix(got, "line 02 08\n2026-01-02T03:04:05.000Z line 02 09\n") || strings.Contains(got, "line 00") {
		t.Errorf("kept are\n%s", got)
	}
}

// Whoever is denied again and again cannot wash the log out.
func TestDenialsAreBounded(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	dir := t.TempDir()
	l, err := New(Config{Dir: dir, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for n := range 10 * denialsPerMinute {
		l.write(true, "mallory", identity(who("mallory", n), ""))
	}
	for n := range 10 * allDenialsPerMinute {
		l.write(true, fmt.Sprint("user ", n), nil)
	}
	l.write(false, "alice", identity(who("alice", 0), ""))
	got := lines(t, dir)
	if n := strings.Count(strings.Join(got, "\n"), "mallory"); n != denialsPerMinute || len(got) != allDenialsPerMinute+1 {
		t.Errorf("%d lines of one user, %d in all", n, len(got))
	}
	if !has(got[len(got)-1], "user=alice") {
		t.Errorf("the last line is %s", got[len(got)-1])
	}
	now = now.Add(time.Minute)
	l.write(true, "mallory", nil)
	got = lines(t, dir)
	if omitted := 9*denialsPerMinute + 9*allDenialsPerMinute + denialsPerMinute; !has(got[len(got)-2], fmt.Sprintf("denied-omitted count=%d", omitted)) {
		t.Errorf("the line before the last is %s", got[len(got)-2])
	}
}

func FuzzSince(f *testing.F) {
	for _, s := range []string{"", "20260102T03:04:05Z", "2026-01-02T03:04:05.5+01:00", "2026-01-02", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, err := parseSince(s)
		if err != nil && !at.IsZero() {
			t.Error("an error and a date")
		}
	})
}

func who(user string, n int) session.Identity {
	return session.Identity{User: user, Session: fmt.Sprint(n)}
}
