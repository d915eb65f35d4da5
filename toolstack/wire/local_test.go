package wire_test

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"cairn/journal"
	"cairn/toolstack/client"
	"cairn/toolstack/wire"
	"cairn/toolstack/wire/wiretest"
)

// onSocket serves s on a unix socket and returns its path.
func onSocket(t *testing.T, s *wiretest.Server) string {
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := wire.NewLocalServer(s.Wire, journal.Discard())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(wire.LocalListener{Listener: l, Log: journal.Discard()}) }()
	t.Cleanup(func() { server.Close(); <-ended })
	return path
}

// Root on the host's own socket needs no password; whoever else he says he is does, and
// whoever comes over the network.
func TestRootOnHost(t *testing.T) {
	s := wiretest.New(t, nil)
	path := onSocket(t, s)
	for _, c := range []struct {
		addr, user, password string
		ok                   bool
	}{
		{path, "", "", true},
		{path, "root", "", true},
		{path, "root", "wrong", true},
		{path, "joe", "", false},
		{path, "joe", "wrong", false},
	} {
		for _, local := range []bool{false, true} {
			api, err := client.Dial(t.Context(), client.Config{Addr: c.addr, Username: c.user, Password: c.password, Local: local})
			if (err == nil) != c.ok {
				t.Errorf("%q with %q (local %v): %v", c.user, c.password, local, err)
			}
			if err == nil {
				err = api.Close(t.Context())
			}
			if c.ok && err != nil {
				t.Error(err)
			}
		}
	}
	for _, args := range [][]any{{"root", ""}, {"", ""}} {
		if _, err := s.Raw("session.login_with_password", args...); err == nil {
			t.Errorf("%q over the network", args)
		}
		if _, err := s.Raw("session.slave_local_login_with_password", args...); err == nil {
			t.Errorf("%q over the network, of one host", args)
		}
	}
}

// TestRootsStreams: a stream without a session is root's own on the socket, and 401 over
// the network; one with a session that is none is refused on both.
func TestRootsStreams(t *testing.T) {
	s := wiretest.New(t, nil)
	stream(s)
	path := onSocket(t, s)
	onHost := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	defer onHost.CloseIdleConnections()
	for _, c := range []struct {
		client *http.Client
		url    string
		want   int
	}{
		{onHost, "http://localhost/thing", 200},
		{onHost, "http://localhost/thing?session_id=OpaqueRef:x", 401},
		{s.HTTP.Client(), s.HTTP.URL + "/thing", 401},
	} {
		resp, err := c.client.Get(c.url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", c.url, resp.StatusCode, c.want)
		}
	}
}

// stranger is a connection whose other end the kernel names nobody of.
type stranger struct{ net.Conn }

// strangers hands over one, and then what there is.
type strangers struct {
	net.Listener
	first chan net.Conn
}

func (l strangers) Accept() (net.Conn, error) {
	select {
	case c := <-l.first:
		return stranger{c}, nil
	default:
		return l.Listener.Accept()
	}
}

// TestStrangerOnSocket: who is not known to be root is not heard, and disturbs nobody.
func TestStrangerOnSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, theirs := net.Pipe()
	first := make(chan net.Conn, 1)
	first <- theirs
	own, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	c, err := wire.LocalListener{Listener: strangers{l, first}, Log: journal.Discard()}.Accept()
	if err != nil || c.RemoteAddr().String() != "local" {
		t.Fatalf("%v, %v", c, err)
	}
	c.Close()
	if _, err := ours.Read(make([]byte, 1)); err == nil {
		t.Error("the stranger is connected")
	}
}
