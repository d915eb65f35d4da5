package wire_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire"
	"cairn/toolstack/wire/wiretest"
)

// transfers are handlers that do what those of imports and exports do.
func transfers(s *wiretest.Server) (begun chan struct{}) {
	begun = make(chan struct{}, 1)
	s.Wire.Transfer("PUT", "/import", func(w http.ResponseWriter, r *wire.Request) error {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return err
		}
		r.Result = api.StringResult(fmt.Sprint(n, " bytes"))
		return nil
	})
	s.Wire.Transfer("PUT", "/wait", func(w http.ResponseWriter, r *wire.Request) error {
		io.ReadFull(r.Body, make([]byte, 100))
		begun <- struct{}{}
		_, err := io.Copy(io.Discard, r.Body)
		return err
	})
	s.Wire.Transfer("GET", "/export", func(w http.ResponseWriter, r *wire.Request) error {
		r.Task.Set(0.5)
		fmt.Fprint(w, "half")
		if r.URL.Query().Has("broken") {
			http.NewResponseController(w).Flush()
			return errors.New("the disk is gone")
		}
		return nil
	})
	s.Wire.Transfer("GET", "/lost", func(http.ResponseWriter, *wire.Request) error {
		return api.ErrHandleInvalid("VM", "OpaqueRef:x")
	})
	s.Wire.Transfer("GET", "/crash", func(http.ResponseWriter, *wire.Request) error { panic("boom") })
	s.Wire.Transfer("GET", "/away", func(http.ResponseWriter, *wire.Request) error { return &wire.Elsewhere{Host: "OpaqueRef:other"} })
	return begun
}

// newTask creates a task as a client does.
func newTask(s *wiretest.Server) (ref string) {
	s.T.Helper()
	s.Must(&ref, "task.create", "transfer", "")
	return ref
}

func taskOf(s *wiretest.Server, ref string) *api.Task {
	s.T.Helper()
	t, err := db.Get(s.DB.Snapshot(), api.TaskRef(ref))
	if err != nil {
		s.T.Fatal(err)
	}
	return t
}

func send(t *testing.T, method, url string, body io.Reader, length int64) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = length
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, string(text), err
}

func TestTransferEndsItsTask(t *testing.T) {
	s := wiretest.New(t, nil)
	transfers(s)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string // status, progress, result, error of the task
	}{
		{"PUT", "/import", "12345", 200, "success 1 <value>5 bytes</value> []"},
		{"GET", "/export", "", 200, "success 1  []"},
		{"GET", "/lost", "", 404, "failure 1  [HANDLE_INVALID VM OpaqueRef:x]"},
		{"GET", "/crash", "", 500, "failure 1  [INTERNAL_ERROR boom]"},
		{"GET", "/export?broken", "", 0, "failure 1  [INTERNAL_ERROR the disk is gone]"},
	} {
		ref := newTask(s)
		sep := "?"
		if strings.Contains(c.path, "?") {
			sep = "&"
		}
		url := s.HTTP.URL + c.path + sep + "session_id=" + s.Session + "&task_id=" + ref
		resp, text, err := send(t, c.method, url, strings.NewReader(c.body), int64(len(c.body)))
		if c.status == 0 && err == nil {
			t.Errorf("%s: a broken transfer looks complete: %q", c.path, text)
		} else if c.status != 0 && (err != nil || resp.StatusCode != c.status) {
			t.Errorf("%s: %v, %v", c.path, resp, err)
		}
		r := taskOf(s, ref)
		if got := fmt.Sprint(r.Status, " ", r.Progress, " ", r.Result, " ", r.ErrorInfo); got != c.want {
			t.Errorf("%s: task %s, want %s", c.path, got, c.want)
		}
	}
	if n := s.DB.Snapshot().Count(api.ClassOf[api.Task]()); n != 5 {
		t.Errorf("%d tasks are left of 5", n)
	}
}

func TestTransferWithoutATaskHasOneWhileItRuns(t *testing.T) {
	s := wiretest.New(t, nil)
	begun := transfers(s)
	parent := newTask(s)
	body, feed := io.Pipe()
	done := make(chan error)
	go func() {
		_, _, err := send(t, "PUT", s.HTTP.URL+"/wait?session_id="+s.Session+"&subtask_of="+parent, body, 200)
		done <- err
	}()
	feed.Write(make([]byte, 100))
	<-begun
	var part *api.Task
	for ref, task := range db.All[api.Task](s.DB.Snapshot()) {
		if string(ref) != parent {
			part = task
		}
	}
	if part == nil || string(part.SubtaskOf) != parent || part.NameLabel != "PUT /wait" || part.Progress != 0.5 {
		t.Errorf("running: %+v", part)
	}
	feed.Write(make([]byte, 100))
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := s.DB.Snapshot().Count(api.ClassOf[api.Task]()); n != 1 {
		t.Errorf("%d tasks are left", n)
	}
}

func TestCancelledTaskEndsItsTransfer(t *testing.T) {
	s := wiretest.New(t, nil)
	begun := transfers(s)
	ref := newTask(s)
	body, feed := io.Pipe()
	defer feed.Close()
	type end struct {
		resp *http.Response
		text string
		err  error
	}
	done := make(chan end, 1)
	go func() {
		resp, text, err := send(t, "PUT", s.HTTP.URL+"/wait?session_id="+s.Session+"&task_id="+ref, body, 1<<50)
		done <- end{resp, text, err}
	}()
	feed.Write(make([]byte, 1000))
	<-begun
	s.Must(nil, "task.cancel", ref)
	e := <-done
	if e.err != nil || e.resp.StatusCode != 500 || !strings.Contains(e.text, "TASK_CANCELLED ["+ref+"]") {
		t.Errorf("%+v", e)
	}
	if r := taskOf(s, ref); r.Status != api.TaskStatusTypeCancelled || fmt.Sprint(r.ErrorInfo) != "[TASK_CANCELLED "+ref+"]" {
		t.Errorf("task %v %v", r.Status, r.ErrorInfo)
	}
	for id, want := range map[string]int{ref: 500, "OpaqueRef:none": 404} {
		resp, text, err := send(t, "GET", s.HTTP.URL+"/export?session_id="+s.Session+"&task_id="+id, nil, 0)
		if err != nil || resp.StatusCode != want {
			t.Errorf("a task that cannot be used: %q, %v", text, err)
		}
	}
}

func TestTransferOfAnotherHostIsSentThere(t *testing.T) {
	s := wiretest.New(t, nil)
	transfers(s)
	ref := newTask(s)
	path := "/away?session_id=" + s.Session + "&task_id=" + ref
	if resp, text, err := send(t, "GET", s.HTTP.URL+"/away?session_id="+s.Session, nil, 0); err != nil || resp.StatusCode != 500 || !strings.Contains(text, "HOST_OFFLINE") {
		t.Errorf("a host nobody knows: %q, %v", text, err)
	}
	if err := s.DB.Update(t.Context(), func(tx *db.Tx) error {
		other := api.NewHost()
		other.Address = "10.0.0.9"
		db.InsertAs(tx, "OpaqueRef:other", other)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if resp, _, err := send(t, "GET", s.HTTP.URL+path, nil, 0); err != nil || resp.Header.Get("Location") != "https://10.0.0.9"+path {
		t.Errorf("by the host's record: %v, %v", resp, err)
	}
	for address, want := range map[string]string{"10.0.0.7": "https://10.0.0.7", "fd00::7": "https://[fd00::7]", "host7": "https://host7"} {
		s.Wire.Locate = func(host api.HostRef) (string, error) {
			if host != "OpaqueRef:other" {
				t.Errorf("asked for %s", host)
			}
			return address, nil
		}
		resp, _, err := send(t, "GET", s.HTTP.URL+path, nil, 0)
		if err != nil || resp.StatusCode != 302 || resp.Header.Get("Location") != want+path {
			t.Errorf("%v, %v", resp, err)
		}
	}
	if r := taskOf(s, ref); r.Status != api.TaskStatusTypePending {
		t.Errorf("the task is %s before the other host had it", r.Status)
	}
}

func TestStreamsAskForTheirRole(t *testing.T) {
	s := wiretest.New(t, nil)
	transfers(s)
	s.Wire.Handle("GET", "/vncsnapshot", wire.Auth, func(w http.ResponseWriter, r *wire.Request) {
		if err := r.Authorize("host_console"); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})
	var asked []string
	s.Wire.AuthorizeHTTP = func(session api.SessionRef, action string) error {
		asked = append(asked, action)
		if string(session) != s.Session || action == "put_import" || action == "host_console" {
			return api.ErrRBACPermissionDenied("http/"+action, "no")
		}
		return nil
	}
	for _, c := range []struct {
		method, path string
		status       int
	}{{"PUT", "/import", 403}, {"GET", "/export", 200}, {"GET", "/vncsnapshot", 403}, {"GET", "/lost", 404}} {
		resp, text, err := send(t, c.method, s.HTTP.URL+c.path+"?session_id="+s.Session, nil, 0)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%s: %d %q, %v", c.path, resp.StatusCode, text, err)
		}
	}
	if got := fmt.Sprint(asked); got != "[put_import get_export get_vncsnapshot host_console]" {
		t.Errorf("asked for %s", got)
	}
}

func TestMethodsOfStreams(t *testing.T) {
	s := wiretest.New(t, nil)
	stream(s)
	transfers(s)
	for _, c := range []struct {
		method, path, allow string
		status              int
	}{
		{"HEAD", "/open", "", 200},
		{"HEAD", "/export", "GET", 405},
		{"GET", "/import", "PUT", 405},
		{"DELETE", "/export", "GET", 405},
		{"GET", "/jsonrpc", "OPTIONS, POST", 405},
		{"PUT", "/nothing", "", 404},
		{"OPTIONS", "/export", "", 200},
		{"OPTIONS", "/jsonrpc", "", 200},
	} {
		resp, text, err := send(t, c.method, s.HTTP.URL+c.path, nil, 0)
		if err != nil || resp.StatusCode != c.status || resp.Header.Get("Allow") != c.allow || c.method == "HEAD" && text != "" {
			t.Errorf("%s %s: %v %q, %v", c.method, c.path, resp, text, err)
		}
	}
}

// Credentials are looked for in the documented order; the first kind given
// decides.
func TestOrderOfCredentials(t *testing.T) {
	s := wiretest.New(t, nil)
	stream(s)
	secret, err := s.Raw("session.login_with_password", "root", wiretest.Password)
	if err != nil {
		t.Fatal(err)
	}
	pool := strings.Trim(string(secret), `"`)
	s.Wire.PoolSession = func(_ context.Context, secret string) (api.SessionRef, error) {
		if secret != "pool" {
			return "", api.ErrSessionAuthenticationFailed()
		}
		return api.SessionRef(pool), nil
	}
	for _, c := range []struct {
		name, session, cookie, pool, password string
		status                                int
	}{
		{"session before the rest", s.Session, "", "wrong", "wrong", 200},
		{"wrong session, right password", "OpaqueRef:x", "", "pool", wiretest.Password, 401},
		{"query before cookie", s.Session, "OpaqueRef:x", "", "", 200},
		{"cookie before pool", "", "OpaqueRef:x", "pool", "", 401},
		{"pool before password", "", "", "wrong", wiretest.Password, 401},
		{"password", "", "", "", wiretest.Password, 200},
		{"pool", "", "", "pool", "wrong", 200}, // ends that session: the last
	} {
		req, err := http.NewRequest("GET", s.HTTP.URL+"/thing?session_id="+c.session, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"session_id": c.cookie, "pool_secret": c.pool} {
			if value != "" {
				req.AddCookie(&http.Cookie{Name: name, Value: value})
			}
		}
		if c.password != "" {
			req.SetBasicAuth("root", c.password)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		realm := resp.Header.Get("WWW-Authenticate")
		if resp.StatusCode != c.status || (c.status == 401) != (realm == `Basic realm="Cairn"`) {
			t.Errorf("%s: %s, realm %q", c.name, resp.Status, realm)
		}
	}
	if n := s.DB.Snapshot().Count(api.ClassOf[api.Session]()); n != 1 {
		t.Errorf("%d sessions after temporary ones", n)
	}
}

// A client that does not know how much it sends claims a large length, waits for
// the answer to begin, and hangs up when it is done.
func TestUploadWithoutATrueLength(t *testing.T) {
	s := wiretest.New(t, nil)
	s.Wire.Transfer("PUT", "/import_raw_vdi", func(w http.ResponseWriter, r *wire.Request) error {
		w.WriteHeader(200)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, r.Body)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
		r.Result = api.StringResult(fmt.Sprint(n))
		return err
	})
	ref := newTask(s)
	conn, err := net.Dial("tcp", s.HTTP.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /import_raw_vdi?session_id=%s&task_id=%s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", s.Session, ref, int64(1)<<50)
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	w := s.DB.Watch()
	defer w.Close()
	conn.Write(make([]byte, 400<<10))
	conn.(*net.TCPConn).CloseWrite()
	for taskOf(s, ref).Status == api.TaskStatusTypePending {
		<-w.C()
		w.Changes()
	}
	if r := taskOf(s, ref); r.Status != api.TaskStatusTypeSuccess || r.Result != fmt.Sprintf("<value>%d</value>", 400<<10) {
		t.Errorf("%s %s %v", r.Status, r.Result, r.ErrorInfo)
	}
}

// What a handler leaves of a body ends the connection: it is no request.
func TestBodyThatIsLeft(t *testing.T) {
	s := wiretest.New(t, nil)
	s.Wire.Transfer("PUT", "/taste", func(_ http.ResponseWriter, r *wire.Request) error {
		_, err := io.ReadFull(r.Body, make([]byte, 5))
		return err
	})
	for _, length := range []int64{5, 9, -1, 5} {
		resp, _, err := send(t, "PUT", s.HTTP.URL+"/taste?session_id="+s.Session, strings.NewReader("123456789"[:max(5, length)]), length)
		if err != nil || resp.StatusCode != 200 || length == 9 && !resp.Close {
			t.Errorf("%d bytes: %+v, %v", length, resp, err)
		}
	}
}

// A connection serves the next request after a transfer that went well.
func TestConnectionOutlivesATransfer(t *testing.T) {
	s := wiretest.New(t, nil)
	transfers(s)
	conn, err := net.Dial("tcp", s.HTTP.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range 3 {
		fmt.Fprintf(conn, "PUT /import?session_id=%s HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12345", s.Session)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		io.Copy(io.Discard, resp.Body)
	}
}

// How a body failed is told by every further read: the connection itself would say that
// it has ended.
func TestBodyFailsForGood(t *testing.T) {
	s := wiretest.New(t, nil)
	begun, errs := make(chan struct{}), make(chan error, 2)
	s.Wire.Transfer("PUT", "/reset", func(_ http.ResponseWriter, r *wire.Request) error {
		b := make([]byte, 3)
		io.ReadFull(r.Body, b)
		close(begun)
		for range cap(errs) {
			_, err := r.Body.Read(b)
			errs <- err
		}
		return nil
	})
	conn, err := net.Dial("tcp", s.HTTP.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PUT /reset?session_id=%s HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n123", s.Session)
	<-begun
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
	if first, second := <-errs, <-errs; first == nil || errors.Is(first, io.EOF) || !errors.Is(second, first) {
		t.Errorf("%v, then %v", first, second)
	}
}
