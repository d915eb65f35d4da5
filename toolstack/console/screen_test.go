package console_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"image/png"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/wire/wiretest"
)

// watch opens a screen as a viewer does, up to the first picture.
func watch(t testing.TB, rw io.ReadWriter) {
	t.Helper()
	version, b := make([]byte, 12), make([]byte, 64)
	read := func(n int) {
		t.Helper()
		_, err := io.ReadFull(rw, b[:n])
		check(t, err)
	}
	write := func(p string) {
		t.Helper()
		_, err := io.WriteString(rw, p)
		check(t, err)
	}
	_, err := io.ReadFull(rw, version)
	check(t, err)
	if string(version) != "RFB 003.008\n" {
		t.Fatalf("the server says %q", version)
	}
	write(string(version))
	read(2) // one security type
	write("\x01")
	read(4) // no objection
	write("\x01")
	read(24) // the screen's size and format
	size := [2]int{int(b[0])<<8 | int(b[1]), int(b[2])<<8 | int(b[3])}
	_, err = io.CopyN(io.Discard, rw, int64(b[23])) // its name
	check(t, err)
	write(fmt.Sprintf("\x03\x00\x00\x00\x00\x00%c%c%c%c", b[0], b[1], b[2], b[3]))
	read(4)
	if b[0] != 0 || size[0] < 16 || size[1] < 16 {
		t.Fatalf("no picture of %v: % x", size, b[:4])
	}
}

// both is a connection that reads through what was read ahead.
type both struct {
	io.Reader
	io.Writer
}

// TestScreen: a VM with a screen is shown by every name but its terminal's, to
// several at once.
func TestScreen(t *testing.T) {
	s := newStackWith(t, true)
	for _, q := range []url.Values{
		s.query("uuid", s.screen), s.query("uuid", s.uuid), s.query("ref", string(s.vm)),
	} {
		conn, r, status := s.connect(q)
		if status != http.StatusOK {
			t.Fatalf("%v: status %d", q, status)
		}
		watch(t, both{r, conn})
	}
	_, r, _ := s.connect(s.query("uuid", s.console))
	expect(t, r, hypervisor.FakeGreeting)
}

// TestScreenByWebSocket as browsers open it, with and without naming the protocol.
func TestScreenByWebSocket(t *testing.T) {
	s := newStackWith(t, true)
	for _, protocols := range [][]string{{"binary"}, {"base64", "binary"}, nil} {
		conn := s.dial(t, s.screen, protocols)
		if want := len(protocols) > 0; (conn.Subprotocol() == "binary") != want {
			t.Errorf("of %v the subprotocol %q was chosen", protocols, conn.Subprotocol())
		}
		stream := websocket.NetConn(t.Context(), conn, websocket.MessageBinary)
		watch(t, stream)
		stream.Close()
	}
}

func (s *stack) dial(t *testing.T, uuid string, protocols []string) *websocket.Conn {
	t.Helper()
	address := "ws" + strings.TrimPrefix(s.HTTP.URL, "http") + "/console?" + s.query("uuid", uuid).Encode()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, address, &websocket.DialOptions{Subprotocols: protocols})
	check(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// TestWhoMayLook: by session in the query or a cookie, or by name and password; with
// a role that reaches so far.
func TestWhoMayLook(t *testing.T) {
	s := newStackWith(t, true)
	basic := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("root:"+wiretest.Password))
	var dom0 api.VMRef
	check(t, s.DB.Update(t.Context(), func(tx *db.Tx) error {
		vm := api.NewVM()
		vm.IsControlDomain, vm.PowerState = true, api.VMPowerStateRunning
		dom0 = db.Insert(tx, vm)
		return nil
	}))
	in := func(role string) string { return "Cookie: session_id=" + s.As(role).Session }
	tests := []struct {
		name, header, ref string
		status            int
	}{
		{"cookie", "Cookie: session_id=" + s.Session, string(s.vm), http.StatusOK},
		{"password", basic, string(s.vm), http.StatusOK},
		{"nobody", "X-Nothing: x", string(s.vm), http.StatusUnauthorized},
		{"an operator", in("vm-operator"), string(s.vm), http.StatusOK},
		{"a reader", in("read-only"), string(s.vm), http.StatusForbidden},
		{"an operator at the host's console", in("pool-operator"), string(dom0), http.StatusForbidden},
		{"root at the host's console", "Cookie: session_id=" + s.Session, string(dom0), http.StatusNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, r, status := s.ask("CONNECT /console?ref="+url.QueryEscape(tt.ref), tt.header)
			if status != tt.status {
				t.Errorf("CONNECT: status %d, want %d", status, tt.status)
			}
			if status == http.StatusOK {
				watch(t, both{r, conn})
			}
			if tt.status == http.StatusOK {
				return // a GET without an upgrade is told to upgrade
			}
			if _, _, status := s.ask("GET /console?ref="+url.QueryEscape(tt.ref), tt.header); status != tt.status {
				t.Errorf("GET: status %d, want %d", status, tt.status)
			}
		})
	}
	if _, _, status := s.ask("GET /console?ref="+url.QueryEscape(string(s.vm)), basic); status != http.StatusUpgradeRequired {
		t.Errorf("without an upgrade: status %d", status)
	}
}

// TestElsewhere: the client of a VM on another host is sent there.
func TestElsewhere(t *testing.T) {
	s := newStackWith(t, true)
	s.consoles.ServeOnly(func(ref api.HostRef) bool { return ref == s.Host })
	check(t, s.DB.Update(t.Context(), func(tx *db.Tx) error {
		h := api.NewHost()
		h.Address = "192.0.2.7"
		vm, err := db.Edit(tx, s.vm)
		vm.ResidentOn = db.Insert(tx, h)
		return err
	}))
	for _, path := range []string{"/console", "/vncsnapshot"} {
		resp, err := noRedirect.Get(s.HTTP.URL + path + "?" + s.query("uuid", s.uuid).Encode())
		check(t, err)
		resp.Body.Close()
		want := "https://192.0.2.7" + path + "?" + s.query("uuid", s.uuid).Encode()
		if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || got != want {
			t.Errorf("%s: %s to %s", path, resp.Status, got)
		}
	}
	if _, _, status := s.connect(s.query("uuid", s.uuid)); status != http.StatusFound {
		t.Errorf("CONNECT: status %d", status)
	}
}

var noRedirect = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// TestFiftyViewers: all see the terminal and all see the screen.
func TestFiftyViewers(t *testing.T) {
	s := newStackWith(t, true)
	type viewer struct {
		net.Conn
		r io.Reader
	}
	var all []viewer
	for range 50 {
		conn, r, status := s.connect(s.query("uuid", s.console))
		if status != http.StatusOK {
			t.Fatalf("viewer %d: status %d", len(all), status)
		}
		all = append(all, viewer{conn, r})
	}
	for _, v := range all {
		expect(t, v.r, hypervisor.FakeGreeting)
	}
	_, err := io.WriteString(all[49], "said to all")
	check(t, err)
	for _, v := range all {
		expect(t, v.r, "said to all")
		v.Close()
	}
	s.until("they are gone", s.screen)
	done := make(chan error, 50)
	for range cap(done) {
		conn, r, status := s.connect(s.query("uuid", s.screen))
		go func() {
			if status != http.StatusOK {
				done <- fmt.Errorf("status %d", status)
				return
			}
			_, err := io.CopyN(io.Discard, r, 12)
			if err == nil {
				_, err = io.WriteString(conn, "RFB 003.008\n")
			}
			done <- err
		}()
	}
	for range cap(done) {
		check(t, <-done)
	}
}

// until waits until as many look at the VM as its limit allows for one more, by
// asking for a stream under a rule of one at a time.
func (s *stack) until(what, uuid string) {
	s.T.Helper()
	for range 1000 {
		conn, _, status := s.connect(s.query("uuid", uuid))
		conn.Close()
		if status == http.StatusOK {
			return
		}
	}
	s.T.Fatalf("not so: %s", what)
}

// pool sets the pool's rules for consoles.
func (s *stack) pool(exclusive bool, idle int64) {
	s.T.Helper()
	check(s.T, s.DB.Update(s.T.Context(), func(tx *db.Tx) error {
		p := api.NewPool()
		p.LimitConsoleSessions, p.VMConsoleIdleTimeout = exclusive, idle
		db.Insert(tx, p)
		return nil
	}))
}

// TestOneAtATime: where the pool wants so, a second viewer is refused until the first
// is gone, and one that has shut down its sending side is.
func TestOneAtATime(t *testing.T) {
	s := newStackWith(t, true)
	s.pool(true, 0)
	first, r, status := s.connect(s.query("uuid", s.screen))
	if status != http.StatusOK {
		t.Fatalf("the first: status %d", status)
	}
	watch(t, both{r, first})
	if _, _, status := s.connect(s.query("uuid", s.screen)); status != http.StatusServiceUnavailable {
		t.Errorf("the second: status %d", status)
	}
	if _, _, status := s.connect(s.query("uuid", s.console)); status != http.StatusOK {
		t.Errorf("the terminal is another console: status %d", status)
	}
	check(t, first.(*net.TCPConn).CloseWrite())
	if rest, err := io.ReadAll(r); err != nil {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
	s.until("the first is gone", s.screen)
}

// TestLimit: so many look at one VM, and no more; others are not concerned.
func TestLimit(t *testing.T) {
	s := newStackWith(t, true)
	for n := range 64 {
		if _, _, status := s.connect(s.query("uuid", s.console)); status != http.StatusOK {
			t.Fatalf("viewer %d: status %d", n+1, status)
		}
	}
	for _, uuid := range []string{s.console, s.screen} {
		if _, _, status := s.connect(s.query("uuid", uuid)); status != http.StatusServiceUnavailable {
			t.Errorf("one more: status %d", status)
		}
	}
}

// TestIdle: where the pool wants so, a viewer that only looks is shown out, whatever
// its program asks for by itself.
func TestIdle(t *testing.T) {
	s := newStackWith(t, true)
	s.pool(false, 1)
	conn, r, _ := s.connect(s.query("uuid", s.screen))
	watch(t, both{r, conn})
	var err error
	for err == nil { // the next picture when one has come, as viewers do
		if _, err = io.WriteString(conn, "\x03\x00\x00\x00\x00\x00\x00\x10\x00\x10"); err == nil {
			_, err = io.CopyN(io.Discard, r, 4+12+4*64*48)
		}
	}
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		t.Error("it goes on for ever")
	}
}

// TestStreamsEndWithTheVM, when the row says so and when QEMU is gone.
func TestStreamsEndWithTheVM(t *testing.T) {
	for name, stop := range map[string]func(*stack){
		"QEMU is gone": func(s *stack) { s.hv.End(s.uuid, hypervisor.ByCrash) },
		"it is halted": func(s *stack) {
			check(s.T, db.Modify(s.T.Context(), s.DB, s.vm, func(_ *db.Tx, vm *api.VM) error {
				vm.PowerState = api.VMPowerStateHalted
				return nil
			}))
		},
		"it is destroyed": func(s *stack) {
			check(s.T, s.DB.Update(s.T.Context(), func(tx *db.Tx) error { return db.Delete(tx, s.vm) }))
		},
		"its viewer has logged out": func(s *stack) { s.Must(nil, "session.logout") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStackWith(t, true)
			conn, r, _ := s.connect(s.query("uuid", s.screen))
			watch(t, both{r, conn})
			_, text, _ := s.connect(s.query("uuid", s.console))
			expect(t, text, hypervisor.FakeGreeting)
			ws := s.dial(t, s.screen, []string{"binary"})
			stop(s)
			for _, r := range []io.Reader{r, text} {
				if _, err := io.Copy(io.Discard, r); err != nil {
					t.Error(err)
				}
			}
			for {
				if _, _, err := ws.Read(t.Context()); err != nil {
					if websocket.CloseStatus(err) == -1 {
						t.Errorf("the WebSocket ends without a word: %v", err)
					}
					break
				}
			}
		})
	}
}

// TestVNCSnapshot: a picture of the screen, for those who may see it.
func TestVNCSnapshot(t *testing.T) {
	s := newStackWith(t, true)
	for _, q := range []url.Values{s.query("uuid", s.uuid), s.query("ref", string(s.vm)), s.query("uuid", s.screen)} {
		resp, err := http.Get(s.HTTP.URL + "/vncsnapshot?" + q.Encode())
		check(t, err)
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		check(t, err)
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "image/png" {
			t.Fatalf("%s %s: %s", resp.Status, resp.Header, text)
		}
		picture, err := png.Decode(bytes.NewReader(text))
		check(t, err)
		if b := picture.Bounds(); b.Dx() < 16 || b.Dy() < 16 {
			t.Errorf("a picture of %v", b)
		}
	}
	plain := newStack(t)
	reader := s.query("uuid", s.uuid)
	reader.Set("session_id", s.As("read-only").Session)
	for _, tt := range []struct {
		s      *stack
		name   string
		query  url.Values
		status int
	}{
		{s, "no such VM", s.query("uuid", api.NewUUID()), http.StatusNotFound},
		{s, "nobody", url.Values{"uuid": {s.uuid}}, http.StatusUnauthorized},
		{s, "a reader", reader, http.StatusForbidden},
		{plain, "no screen", plain.query("uuid", plain.uuid), http.StatusNotFound},
	} {
		resp, err := http.Get(tt.s.HTTP.URL + "/vncsnapshot?" + tt.query.Encode())
		check(t, err)
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s: %s, want %d", tt.name, resp.Status, tt.status)
		}
	}
	s.hv.FailNext("Screenshot", hypervisor.ErrUnavailable)
	resp, err := http.Get(s.HTTP.URL + "/vncsnapshot?" + s.query("uuid", s.uuid).Encode())
	check(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("while libvirt is away: %s", resp.Status)
	}
}

// TestNoScreen: a screen that a row promises and the domain lacks.
func TestNoScreen(t *testing.T) {
	s := newStack(t)
	check(t, s.DB.Update(t.Context(), func(tx *db.Tx) error {
		c := api.NewConsole()
		c.UUID, c.VM, c.Protocol = s.screen, s.vm, api.ConsoleProtocolRfb
		db.Insert(tx, c)
		return nil
	}))
	if _, _, status := s.connect(s.query("uuid", s.screen)); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
}

// TestViewerThatDoesNotRead is cut off; the guest and another viewer do not notice.
func TestViewerThatDoesNotRead(t *testing.T) {
	s := newStack(t)
	slow, _, _ := s.connect(s.query("uuid", s.uuid))
	check(t, slow.(*net.TCPConn).SetReadBuffer(4<<10))
	fast, r, _ := s.connect(s.query("uuid", s.uuid))
	expect(t, r, hypervisor.FakeGreeting)
	check(t, fast.SetDeadline(time.Now().Add(20*time.Second)))
	chunk, heard := bytes.Repeat([]byte("x"), 4<<10), make([]byte, 4<<10)
	for range 8 << 20 / len(chunk) { // more than all buffers on the way
		_, err := fast.Write(chunk)
		check(t, err)
		_, err = io.ReadFull(r, heard)
		check(t, err)
	}
	s.pool(true, 0)
	fast.Close()
	s.until("the slow one is gone, too", s.console)
}
