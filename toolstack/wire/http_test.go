package wire_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/session/identity"
	"cairn/toolstack/wire"
	"cairn/toolstack/wire/wiretest"
)

func stream(s *wiretest.Server) {
	for _, prefix := range []string{"/thing", "/thing/inner"} {
		s.Wire.Handle("GET", prefix, wire.Auth, func(w http.ResponseWriter, r *wire.Request) {
			fmt.Fprintf(w, "%s %v", prefix, r.Session.IsNull())
		})
	}
	s.Wire.Handle("GET", "/open", wire.Public, func(w http.ResponseWriter, r *wire.Request) { fmt.Fprint(w, "open") })
}

func TestStreamsAreAuthenticated(t *testing.T) {
	s := wiretest.New(t, nil)
	stream(s)
	for _, c := range []struct {
		name, path string
		prepare    func(r *http.Request)
		status     int
		body       string
	}{
		{"public", "/open", nil, 200, "open"},
		{"query", "/thing?session_id=" + s.Session, nil, 200, "/thing false"},
		{"longest prefix", "/thing/inner/more?session_id=" + s.Session, nil, 200, "/thing/inner false"},
		{"prefix of text", "/thingamajig?session_id=" + s.Session, nil, 200, "/thing false"},
		{"cookie", "/thing", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "session_id", Value: s.Session}) }, 200, "/thing false"},
		{"basic", "/thing", func(r *http.Request) { r.SetBasicAuth("root", wiretest.Password) }, 200, "/thing false"},
		{"nobody", "/thing", nil, 401, ""},
		{"wrong session", "/thing?session_id=OpaqueRef:x", nil, 401, ""},
		{"wrong password", "/thing", func(r *http.Request) { r.SetBasicAuth("root", "x") }, 401, ""},
		{"unknown path", "/nothing", nil, 404, ""},
	} {
		req, err := http.NewRequest("GET", s.HTTP.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.prepare != nil {
			c.prepare(req)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || c.body != "" && string(body) != c.body {
			t.Errorf("%s: %d %q, %v", c.name, resp.StatusCode, body, err)
		}
		if c.status == 401 && resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no realm", c.name)
		}
	}
	if n := s.DB.Snapshot().Count(api.ClassOf[api.Session]()); n != 1 {
		t.Errorf("%d sessions after temporary logins", n)
	}
}

// A console client sends CONNECT with a path, in HTTP/1.0, and gets the raw
// connection.
func TestConnectTakesOverTheConnection(t *testing.T) {
	s := wiretest.New(t, nil)
	s.Wire.Handle("CONNECT", "/console", wire.Auth, func(w http.ResponseWriter, r *wire.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.0 200 OK\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		fmt.Fprint(rw, strings.ToUpper(line))
		rw.Flush()
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.HTTP.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "CONNECT /console?uuid=x&session_id=%s HTTP/1.0\r\n\r\nhello\n", s.Session)
	r := bufio.NewReader(conn)
	var got string
	for range 3 {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		got += line
	}
	if got != "HTTP/1.0 200 OK\r\n\r\nHELLO\n" {
		t.Errorf("got %q", got)
	}
}

func TestNetworkServerSpeaksTLS(t *testing.T) {
	s := wiretest.New(t, nil)
	stream(s)
	cfg, id, err := identity.Load(t.TempDir(), identity.Options{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = wire.NewHTTPServer(s.Wire, cfg, journal.Discard())
	server.TLS = cfg
	server.StartTLS()
	defer server.Close()
	client := server.Client()
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	resp, err := client.Get(server.URL + "/open")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 1 || resp.TLS.Version < 0x0303 {
		t.Errorf("%s over TLS %x", resp.Proto, resp.TLS.Version)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(id.CAPEM)
	for version, ok := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: version})
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			conn.Close()
		}
	}
}
