package console_test

import (
	"bufio"
	"context"
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

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
