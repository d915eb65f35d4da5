package console_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"cairn/toolstack/api"
	"cairn/toolstack/console"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/wire/wiretest"
)

// stack is an API server with one running VM on a fake hypervisor.
type stack struct {
	*wiretest.Server
	hv       *hypervisor.Fake
	consoles *console.Manager
	vm       api.VMRef
	uuid     string
	console  string // uuid of its terminal's row
	screen   string // uuid of its screen's row; the screen is there in stacks with one
}

func newStack(t *testing.T) *stack { return newStackWith(t, false) }

func newStackWith(t *testing.T, screen bool) *stack {
	t.Helper()
	s := &stack{hv: hypervisor.NewFake(), uuid: api.NewUUID(), console: api.NewUUID(), screen: api.NewUUID()}
	s.Server = wiretest.New(t, func(_ *api.Registry, d *db.DB) {
		s.consoles = console.New(d, s.hv, nil)
		check(t, d.Update(t.Context(), func(tx *db.Tx) error {
			vm := api.NewVM()
			vm.UUID, vm.PowerState = s.uuid, api.VMPowerStateRunning
			s.vm = db.Insert(tx, vm)
			c := api.NewConsole()
			c.UUID, c.VM, c.Protocol = s.console, s.vm, api.ConsoleProtocolVt100
			db.Insert(tx, c)
			if screen {
				c = api.NewConsole()
				c.UUID, c.VM, c.Protocol = s.screen, s.vm, api.ConsoleProtocolRfb
				db.Insert(tx, c)
			}
			return nil
		}))
	})
	s.consoles.Handle(s.Wire)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.consoles.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	check(t, s.hv.Start(t.Context(), hypervisor.Spec{
		UUID: s.uuid, Kind: hypervisor.Accelerated, Machine: hypervisor.DefaultMachine,
		MemoryBytes: 64 << 20, VCPUs: 1, VCPUsMax: 1, Boot: hypervisor.DirectBoot{Kernel: "/k"}, Graphics: screen,
	}, true))
	check(t, s.consoles.Attach(t.Context(), s.uuid))
	check(t, s.hv.Resume(t.Context(), s.uuid))
	return s
}

// connect opens a stream by CONNECT and returns it with the status.
func (s *stack) connect(query url.Values) (net.Conn, *bufio.Reader, int) {
	s.T.Helper()
	return s.ask("CONNECT /console?"+query.Encode(), "X-Test: 1")
}

// ask sends a request of one header and returns the connection with the status.
func (s *stack) ask(request, header string) (net.Conn, *bufio.Reader, int) {
	s.T.Helper()
	conn, err := net.Dial("tcp", s.HTTP.Listener.Addr().String())
	check(s.T, err)
	s.T.Cleanup(func() { conn.Close() })
	check(s.T, conn.SetDeadline(time.Now().Add(5*time.Second)))
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: cairn\r\n%s\r\n\r\n", request, header)
	r := bufio.NewReader(conn)
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	check(s.T, err)
	return conn, r, resp.StatusCode
}

func (s *stack) query(pairs ...string) url.Values {
	q := url.Values{"session_id": {s.Session}}
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return q
}

func expect(t testing.TB, r io.Reader, want string) {
	t.Helper()
	var got strings.Builder
	b := make([]byte, 1024)
	for !strings.Contains(got.String(), want) {
		n, err := r.Read(b)
		got.Write(b[:n])
		if err != nil {
			t.Fatalf("%v after %q, want %q", err, got.String(), want)
		}
	}
}

// TestConnect: by every name, the tail first, then bytes both ways.
func TestConnect(t *testing.T) {
	s := newStack(t)
	for _, q := range []url.Values{
		s.query("uuid", s.uuid), s.query("uuid", s.console), s.query("ref", string(s.vm)),
	} {
		conn, r, status := s.connect(q)
		if status != http.StatusOK {
			t.Fatalf("%v: status %d", q, status)
		}
		expect(t, r, hypervisor.FakeGreeting)
		_, err := io.WriteString(conn, "hello")
		check(t, err)
		expect(t, r, "hello")
		conn.Close()
	}
}

func TestViewersShare(t *testing.T) {
	s := newStack(t)
	one, r1, _ := s.connect(s.query("uuid", s.uuid))
	_, r2, _ := s.connect(s.query("uuid", s.uuid))
	expect(t, r1, hypervisor.FakeGreeting)
	expect(t, r2, hypervisor.FakeGreeting)
	_, err := io.WriteString(one, "typed by one")
	check(t, err)
	expect(t, r1, "typed by one")
	expect(t, r2, "typed by one")
}

func TestRefused(t *testing.T) {
	s := newStack(t)
	tests := []struct {
		name   string
		query  url.Values
		status int
	}{
		{"no session", url.Values{"uuid": {s.uuid}}, http.StatusUnauthorized},
		{"wrong session", url.Values{"uuid": {s.uuid}, "session_id": {"OpaqueRef:x"}}, http.StatusUnauthorized},
		{"nothing named", s.query(), http.StatusNotFound},
		{"no such VM", s.query("uuid", api.NewUUID()), http.StatusNotFound},
		{"a path", s.query("uuid", "../../etc/passwd"), http.StatusNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, status := s.connect(tt.query); status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
		})
	}
}

func TestEndsWithDomain(t *testing.T) {
	s := newStack(t)
	_, r, _ := s.connect(s.query("uuid", s.uuid))
	expect(t, r, hypervisor.FakeGreeting)
	s.hv.End(s.uuid, hypervisor.ByGuest)
	if rest, err := io.ReadAll(r); err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestEndsWithSession(t *testing.T) {
	s := newStack(t)
	_, r, _ := s.connect(s.query("uuid", s.uuid))
	expect(t, r, hypervisor.FakeGreeting)
	s.Must(nil, "session.logout")
	if rest, err := io.ReadAll(r); err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestWebSocket(t *testing.T) {
	s := newStack(t)
	address := "ws" + strings.TrimPrefix(s.HTTP.URL, "http") + "/console?" + s.query("uuid", s.uuid).Encode()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, address, &websocket.DialOptions{
		Subprotocols: []string{"binary"}, HTTPHeader: http.Header{"Origin": {"https://elsewhere.example"}},
	})
	check(t, err)
	defer conn.CloseNow()
	if conn.Subprotocol() != "binary" {
		t.Errorf("subprotocol %q", conn.Subprotocol())
	}
	stream := websocket.NetConn(ctx, conn, websocket.MessageBinary)
	expect(t, stream, hypervisor.FakeGreeting)
	_, err = io.WriteString(stream, "ping")
	check(t, err)
	expect(t, stream, "ping")
	s.hv.End(s.uuid, hypervisor.ByGuest)
	if _, err := io.Copy(io.Discard, stream); err != nil {
		t.Errorf("end: %v", err)
	}
}

// TestWebSocketOfOtherPages: a browser adds its cookies and the passwords it knows to what
// any page asks for, so these count for pages of this host alone; a session in the URL is
// known to who wrote that.
func TestWebSocketOfOtherPages(t *testing.T) {
	s := newStack(t)
	session := s.query().Encode()
	cookie := "Cookie: session_id=" + s.Session
	basic := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("root:"+wiretest.Password))
	for _, c := range []struct {
		name, query, credentials, origin string
		want                             int
	}{
		{"no page at all", "", cookie, "", 101},
		{"a page of this host", "", cookie, "https://cairn", 101},
		{"in capitals", "", cookie, "https://CAIRN", 101},
		{"another page", "", cookie, "https://elsewhere.example", 403},
		{"of another port", "", cookie, "https://cairn:8443", 403},
		{"this host as a part of its name", "", cookie, "https://cairn.example", 403},
		{"a page of no origin", "", cookie, "null", 403},
		{"no address", "", cookie, "https://%zz", 403},
		{"with a password", "", basic, "https://elsewhere.example", 403},
		{"with an empty session in the URL", "session_id=", cookie, "https://elsewhere.example", 403},
		{"with an empty one first", "session_id=&" + session, cookie, "https://elsewhere.example", 403},
		{"with the session in the URL", session, "X-Test: 1", "https://elsewhere.example", 101},
		{"with the session in the URL, too", session, cookie, "https://elsewhere.example", 101},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers := c.credentials + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
			if c.origin != "" {
				headers += "\r\nOrigin: " + c.origin
			}
			conn, _, status := s.ask("GET /console?uuid="+s.uuid+"&"+c.query, headers)
			conn.Close()
			if status != c.want {
				t.Errorf("status %d, want %d", status, c.want)
			}
		})
	}
}

// TestNoConsoleHasAReason: what is not found is named.
func TestNoConsoleHasAReason(t *testing.T) {
	s := newStack(t)
	gone := api.NewUUID()
	for _, c := range []struct {
		name  string
		query url.Values
		want  string
	}{
		{"nothing named", s.query(), "HANDLE_INVALID [console, OpaqueRef:NULL]"},
		{"the null reference", s.query("ref", api.NullRef), "HANDLE_INVALID [console, OpaqueRef:NULL]"},
		{"a reference to nothing", s.query("ref", "OpaqueRef:x"), "HANDLE_INVALID [console, OpaqueRef:x]"},
		{"a uuid of nothing", s.query("uuid", gone), "UUID_INVALID [console, " + gone + "]"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodConnect} {
			conn, r, status := s.ask(method+" /console?"+c.query.Encode(), "Connection: close")
			check(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
			if status != http.StatusNotFound {
				t.Errorf("%s, %s: status %d", method, c.name, status)
			}
			expect(t, r, c.want)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
