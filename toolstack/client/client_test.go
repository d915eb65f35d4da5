package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/transfer/coding"
)

// host answers a few messages the way a host does.
func host(t *testing.T) (*httptest.Server, *[]request) {
	t.Helper()
	var seen []request
	mux := http.NewServeMux()
	mux.HandleFunc("POST /jsonrpc", func(w http.ResponseWriter, r *http.Request) {
		var req request
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		seen = append(seen, req)
		switch req.Method {
		case "session.login_with_password":
			if req.Params[1] != "secret" {
				io.WriteString(w, `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"SESSION_AUTHENTICATION_FAILED","data":["root","no"]}}`)
				return
			}
			io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":"OpaqueRef:s"}`)
		case "VM.get_all":
			io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":["OpaqueRef:a","OpaqueRef:b"]}`)
		case "broken":
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, "<html>no</html>")
		default:
			io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":""}`)
		}
	})
	mux.HandleFunc("/console", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.URL.Query().Get("session_id") != "OpaqueRef:s" {
			http.Error(w, "SESSION_INVALID [OpaqueRef:none]", http.StatusForbidden)
			return
		}
		w.WriteHeader(http.StatusOK)
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		buf.Flush()
		io.WriteString(conn, "hello\n")
		line, _ := buf.ReadString('\n')
		io.WriteString(conn, strings.ToUpper(line))
	})
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s, &seen
}

func dialHost(t *testing.T, s *httptest.Server, password string) (*Client, error) {
	t.Helper()
	return Dial(context.Background(), Config{
		Addr: s.Listener.Addr().String(), Username: "root", Password: password, Originator: "test",
	})
}

func TestCall(t *testing.T) {
	s, seen := host(t)
	c, err := dialHost(t, s, "secret")
	if err != nil {
		t.Fatal(err)
	}
	var refs []string
	if err := c.Call(t.Context(), "VM.get_all", &refs); err != nil {
		t.Fatal(err)
	}
	if want := []string{"OpaqueRef:a", "OpaqueRef:b"}; !reflect.DeepEqual(refs, want) {
		t.Errorf("VM.get_all = %v, want %v", refs, want)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var calls []string
	for _, r := range *seen {
		calls = append(calls, r.Method)
		if r.Method != "session.login_with_password" && r.Params[0] != "OpaqueRef:s" {
			t.Errorf("%s: first parameter %v, want the session", r.Method, r.Params[0])
		}
	}
	if want := []string{"session.login_with_password", "VM.get_all", "session.logout"}; !reflect.DeepEqual(calls, want) {
		t.Errorf("calls %v, want %v", calls, want)
	}
}

func TestWrongPassword(t *testing.T) {
	s, _ := host(t)
	_, err := dialHost(t, s, "wrong")
	if !IsCode(err, "SESSION_AUTHENTICATION_FAILED") {
		t.Errorf("got %v", err)
	}
	var e *Error
	if !errors.As(err, &e) || !reflect.DeepEqual(e.Params, []string{"root", "no"}) {
		t.Errorf("parameters lost: %v", err)
	}
}

func TestHTTPFailureNamesTheMessage(t *testing.T) {
	s, _ := host(t)
	c, err := dialHost(t, s, "secret")
	if err != nil {
		t.Fatal(err)
	}
	err = c.Call(t.Context(), "broken", nil)
	if err == nil || !strings.Contains(err.Error(), "broken") || !strings.Contains(err.Error(), "500") {
		t.Errorf("got %v", err)
	}
}

func TestConsoleIsRawBothWays(t *testing.T) {
	s, _ := host(t)
	c, err := dialHost(t, s, "secret")
	if err != nil {
		t.Fatal(err)
	}
	con, err := c.Console(t.Context(), "OpaqueRef:vm")
	if err != nil {
		t.Fatal(err)
	}
	defer con.Close()
	if _, err := io.WriteString(con, "ping\n"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(con)
	if err != nil || string(got) != "hello\nPING\n" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestConsoleRefusedWithoutSession(t *testing.T) {
	s, _ := host(t)
	c, err := dialHost(t, s, "secret")
	if err != nil {
		t.Fatal(err)
	}
	c.session = "OpaqueRef:gone"
	if _, err := c.Console(t.Context(), "OpaqueRef:vm"); err == nil || !strings.Contains(err.Error(), "403 Forbidden: SESSION_INVALID [") {
		t.Errorf("got %v", err)
	}
}

func TestTransfersNameTheSessionAndTheirLength(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /jsonrpc", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), "local_log") {
			t.Errorf("a local session sent %s", body)
		}
		io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":"OpaqueRef:s"}`)
	})
	mux.HandleFunc("/blob", func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("session_id")
		if err != nil || c.Value != "OpaqueRef:s" || r.URL.Query().Get("ref") != "OpaqueRef:b" {
			t.Errorf("%s %s: cookie %v, %v", r.Method, r.URL, c, err)
		}
		body, _ := io.ReadAll(r.Body)
		if r.ContentLength != int64(len(body)) {
			t.Errorf("%s says %d bytes and sends %d", r.Method, r.ContentLength, len(body))
		}
		io.WriteString(w, "got "+string(body))
	})
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	c, err := Dial(t.Context(), Config{Addr: s.Listener.Addr().String(), Username: "root", Password: "x", Local: true})
	if err != nil {
		t.Fatal(err)
	}
	query := url.Values{"ref": {"OpaqueRef:b"}}
	r, err := c.Get(t.Context(), "/blob", query)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "got " {
		t.Errorf("GET: %q, %v", text, err)
	}
	for _, text := range []string{"hello", ""} {
		if err := c.Put(t.Context(), "/blob", query, strings.NewReader(text), int64(len(text))); err != nil {
			t.Error(err)
		}
	}
	var status *StatusError
	if _, err := c.Get(t.Context(), "/nothing", nil); !errors.As(err, &status) || status.Code != 404 {
		t.Errorf("unknown stream: %v", err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSparseFileToAnyHost: a host that does not say it can do without holes gets a file
// as it is, and so does any for whom a file is no disk.
func TestSparseFileToAnyHost(t *testing.T) {
	const size = 8 << 20
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	disk := url.Values{"vdi": {"OpaqueRef:vdi"}}
	for _, c := range []struct {
		says, path string
		query      url.Values
		coded      bool
	}{
		{"", "/import_raw_vdi", disk, false},
		{"gzip", "/import_raw_vdi", disk, false},
		{"zstd", "/import_raw_vdi", disk, true},
		{"zstd", "/import_raw_vdi", url.Values{"vdi": disk["vdi"], "format": {"raw"}}, true},
		{"zstd", "/import_raw_vdi", url.Values{"vdi": disk["vdi"], "format": {"qcow2"}}, false},
		{"zstd", "/import_raw_vdi", url.Values{"sr_id": {"OpaqueRef:sr"}}, false},
		{"zstd", "/import", nil, false},
	} {
		got := ""
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.Method {
			case http.MethodOptions:
				if c.says != "" {
					w.Header().Set("Accept-Encoding", c.says)
				}
			case http.MethodPut:
				n, err := io.Copy(io.Discard, r.Body)
				got = fmt.Sprint(r.Header.Get("Content-Encoding"), r.ContentLength, n, err)
			default:
				io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":"OpaqueRef:s"}`)
			}
		}))
		defer s.Close()
		api, err := dialHost(t, s, "secret")
		if err != nil {
			t.Fatal(err)
		}
		if err := api.PutFile(t.Context(), c.path, c.query, name); err != nil {
			t.Error(err)
		}
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint(size, size, nil); c.coded && coding.Sparse(info) != strings.HasPrefix(got, "zstd-1 ") || !c.coded && got != want {
			t.Errorf("%s?%v to a host that says %q: %s", c.path, c.query, c.says, got)
		}
	}
}

// TestPutOfAPipe: what is no file has its bytes sent all the same.
func TestPutOfAPipe(t *testing.T) {
	got := make(chan string, 1)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			b, err := io.ReadAll(r.Body)
			got <- fmt.Sprint(r.ContentLength, string(b), err)
			return
		}
		io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":"OpaqueRef:s"}`)
	}))
	defer s.Close()
	c, err := dialHost(t, s, "secret")
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() { io.WriteString(w, "a disk"); w.Close() }()
	if err := c.PutFile(t.Context(), "/import_raw_vdi", nil, fmt.Sprintf("/dev/fd/%d", r.Fd())); err != nil {
		t.Error(err)
	}
	if text := <-got; text != "-1a disk<nil>" {
		t.Error(text)
	}
}

// TestHostThatDoesNotAnswer: a socket that somebody else keeps open for a host which is
// down is given up.
func TestHostThatDoesNotAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Dial(t.Context(), Config{Addr: path, Username: "root", DialTimeout: 50 * time.Millisecond}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
