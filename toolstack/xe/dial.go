package xe

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/term"

	"cairn/toolstack/client"
)

// connect logs in and hands back what ends the session.
func (s *session) connect(ctx context.Context, local bool) (func(), error) {
	s.onHost()
	if err := s.askPassword(); err != nil {
		return nil, err
	}
	dial := s.cfg.Connect
	if dial == nil {
		dial = s.dial
	}
	api, done, err := dial(ctx, s.Settings, local)
	if err != nil {
		return nil, err
	}
	s.api = api
	if s.Debug {
		s.api = &traced{api, s.errOut}
	}
	return done, nil
}

// onHost takes the host's own socket where nothing was said of a server or a user and
// the caller may connect to it: root, who needs no password there.
func (s *session) onHost() {
	if s.hasPassword || s.where() != defaults().where() {
		return
	}
	if c, err := net.Dial("unix", s.cfg.Socket); err == nil {
		c.Close()
		s.Server = s.cfg.Socket
	}
}

// dial connects over the network. Without a server it is the local host.
func (s *session) dial(ctx context.Context, set Settings, local bool) (API, func(), error) {
	trust, err := s.trust(ctx)
	if err != nil {
		return nil, nil, err
	}
	c, err := client.Dial(ctx, client.Config{
		Addr: set.addr(), Username: set.Username, Password: set.Password, Originator: "xe", TLS: trust, Local: local,
	})
	if err != nil {
		return nil, nil, err
	}
	return c, func() { _ = c.Close(context.WithoutCancel(ctx)) }, nil
}

// where is the server, and who the user is there.
func (s Settings) where() [3]string { return [3]string{s.Server, strconv.Itoa(s.Port), s.Username} }

func (s Settings) addr() string {
	server := s.Server
	if path.IsAbs(server) {
		return server
	}
	if server == "" {
		server = "localhost"
	}
	return net.JoinHostPort(server, strconv.Itoa(s.Port))
}

// askPassword asks on the terminal when no password was given.
func (s *session) askPassword() error {
	f, ok := s.in.(*os.File)
	if s.hasPassword || path.IsAbs(s.Server) && s.Username == defaults().Username || !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	fmt.Fprintf(s.errOut, "Password of %s on %s: ", s.Username, s.addr())
	text, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(s.errOut)
	s.Password, s.hasPassword = string(text), true
	return err
}

// traced says on stderr what is called, how long it took and what went wrong.
// Arguments are left out: some are secrets.
type traced struct {
	API
	w io.Writer
}

// Call implements API.
func (t *traced) Call(ctx context.Context, method string, out any, args ...any) error {
	start := time.Now()
	err := t.API.Call(ctx, method, out, args...)
	t.line(method, start, err)
	return err
}

// Get implements API.
func (t *traced) Get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	start := time.Now()
	r, err := t.API.Get(ctx, path, query)
	t.line("GET "+path, start, err)
	return r, err
}

// PutFile implements API.
func (t *traced) PutFile(ctx context.Context, path string, query url.Values, file string) error {
	start := time.Now()
	err := t.API.PutFile(ctx, path, query, file)
	t.line("PUT "+path, start, err)
	return err
}

func (t *traced) line(what string, start time.Time, err error) {
	text := ""
	if err != nil {
		text = " " + err.Error()
	}
	fmt.Fprintf(t.w, "%s %v%s\n", what, time.Since(start).Round(time.Microsecond), text)
}
