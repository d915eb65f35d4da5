package wire_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/session/identity"
	"cairn/toolstack/wire"
	"cairn/toolstack/wire/wiretest"
)

// tasters are transfers that leave most of a body.
func tasters(s *wiretest.Server) {
	for path, end := range map[string]error{"/taste": nil, "/spit": api.ErrImportErrorPrematureEof(), "/away": &wire.Elsewhere{Host: "OpaqueRef:other"}} {
		s.Wire.Transfer("PUT", path, func(_ http.ResponseWriter, r *wire.Request) error {
			if _, err := io.ReadFull(r.Body, make([]byte, 5)); err != nil {
				return err
			}
			return end
		})
	}
	s.Wire.Transfer("PUT", "/cancelled", func(_ http.ResponseWriter, r *wire.Request) error {
		s.Must(nil, "task.cancel", string(r.Task.Ref()))
		_, err := io.Copy(io.Discard, r.Body)
		return err
	})
	s.Wire.Locate = func(api.HostRef) (string, error) { return "192.0.2.7", nil }
}

// overTLS serves as in production, and dials.
func overTLS(t *testing.T, s *wiretest.Server) (dial func() *tls.Conn) {
	t.Helper()
	cfg, _, err := identity.Load(t.TempDir(), identity.Options{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config, server.TLS = wire.NewHTTPServer(s.Wire, cfg, journal.Discard()), cfg
	server.StartTLS()
	t.Cleanup(server.Close)
	return func() *tls.Conn {
		conn, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

// A client that looks for an answer only when it has sent all gets it, however early it
// was given.
func TestAnswerBeforeTheBodyWasRead(t *testing.T) {
	s := wiretest.New(t, nil)
	tasters(s)
	dial := overTLS(t, s)
	for _, c := range []struct {
		path, query, text string
		mib, status       int
	}{
		{"/spit", "session_id=" + s.Session, "IMPORT_ERROR_PREMATURE_EOF", 64, 500},
		{"/taste", "session_id=" + s.Session, "", 20, 200},
		{"/cancelled", "session_id=" + s.Session, "TASK_CANCELLED", 40, 500},
		{"/away", "session_id=" + s.Session, "", 20, 302},
		{"/spit", "session_id=" + s.Session + "&task_id=OpaqueRef:none", "HANDLE_INVALID", 20, 404},
		{"/spit", "session_id=OpaqueRef:none", "SESSION_INVALID", 20, 401},
	} {
		conn, piece := dial(), make([]byte, 1<<20)
		fmt.Fprintf(conn, "PUT %s?%s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", c.path, c.query, c.mib<<20)
		for i := range c.mib {
			if _, err := conn.Write(piece); err != nil {
				t.Fatalf("%s: MiB %d: %v", c.path, i, err)
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != c.status || !resp.Close || !strings.Contains(string(text), c.text) {
			t.Errorf("%s: %s %q, %v", c.path, resp.Status, text, err)
		}
	}
}

// What nobody wants is not read for ever: neither for long, nor of many clients.
func TestRestsAreBounded(t *testing.T) {
	for _, c := range []struct {
		limit time.Duration
		most  int
	}{{50 * time.Millisecond, 1}, {time.Hour, 0}} {
		s := wiretest.New(t, nil)
		tasters(s)
		s.Wire.SetRests(c.limit, c.most)
		conn, piece := overTLS(t, s)(), make([]byte, 1<<20)
		fmt.Fprintf(conn, "PUT /spit?session_id=%s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", s.Session, int64(1)<<50)
		for err := error(nil); err == nil; { // which ends
			_, err = conn.Write(piece)
		}
	}
}
