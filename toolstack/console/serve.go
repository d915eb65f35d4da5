package console

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"

	"cairn/toolstack/api"
	"cairn/toolstack/wire"
)

// writeTimeout bounds a write to a client whose network has gone silent.
const writeTimeout = 30 * time.Second

// Handle adds the streams to a server.
func (m *Manager) Handle(s *wire.Server) {
	s.Handle(http.MethodConnect, "/console", wire.Auth, m.serveConnect)
	s.Handle(http.MethodGet, "/console", wire.Auth, m.serveWebSocket)
	s.Handle(http.MethodGet, "/vncsnapshot", wire.Auth, m.serveSnapshot)
}

// client is the other side of a stream.
type client interface {
	read(ctx context.Context) ([]byte, error)
	write(ctx context.Context, p []byte) error
	end(err error)
}

// guest is this side of a stream: a viewer of a hub, or a screen.
type guest interface {
	// next waits for bytes, which are good until the next call.
	next() ([]byte, error)
	// enter passes on what the client sent, and reports whether somebody is there.
	enter(p []byte) (active bool, err error)
	// close makes next return.
	close(err error)
}

// view opens what a client asks for. It answers the client itself where that cannot
// be; the stream is nil then.
func (m *Manager) view(w http.ResponseWriter, r *wire.Request) (*stream, guest) {
	t, err := m.find(r.FormValue("uuid"), r.FormValue("ref"))
	if err == nil {
		err = allow(r, t.vm)
	}
	if err != nil {
		refuse(w, err)
		return nil, nil
	}
	if !m.here(t.vm.ResidentOn) {
		r.Redirect(w, t.vm.ResidentOn)
		return nil, nil
	}
	s, err := m.enter(t, r.Session)
	if err != nil {
		m.log.Warn("console-refused", "uuid", t.vm.UUID, "err", err)
		refuse(w, err)
		return nil, nil
	}
	g, err := m.guest(r.Context(), s)
	if err != nil {
		m.leave(s)
		refuse(w, err)
		return nil, nil
	}
	m.endOrphans() // session or VM may have ended before it was entered
	m.log.Info("console-open", "uuid", t.vm.UUID, "protocol", t.protocol, "remote", r.RemoteAddr)
	return s, g
}

func (m *Manager) guest(ctx context.Context, s *stream) (guest, error) {
	if s.protocol == api.ConsoleProtocolRfb {
		return m.screen(ctx, s.target)
	}
	h, err := m.hub(ctx, s.vm.UUID)
	if err != nil {
		return nil, err
	}
	v, err := h.join(s.finish)
	if err != nil {
		return nil, errNone
	}
	return &terminal{h, v}, nil
}

// serveConnect answers CONNECT: after the status line come the console's bytes,
// both ways.
func (m *Manager) serveConnect(w http.ResponseWriter, r *wire.Request) {
	s, g := m.view(w, r)
	if s == nil {
		return
	}
	defer m.leave(s)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		g.close(err)
		http.Error(w, "the connection cannot be taken over", http.StatusInternalServerError)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	raw := &rawClient{conn: conn, in: buffered.Reader}
	if err := raw.write(r.Context(), []byte("HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n\r\n")); err != nil {
		s.finish(err)
	}
	m.relay(context.WithoutCancel(r.Context()), s, g, raw)
}

// refuse answers what is not there, what is too much, and what the role forbids.
func refuse(w http.ResponseWriter, err error) {
	var denied *api.Error
	switch {
	case errors.Is(err, errNone), errors.Is(err, errNoScreen), errors.As(err, &denied) && unnamed[denied.Code]:
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.As(err, &denied):
		http.Error(w, err.Error(), http.StatusForbidden)
	default:
		w.Header().Set("Retry-After", "10")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// unnamed are the errors of what names no console.
var unnamed = map[string]bool{api.CodeHandleInvalid: true, api.CodeUUIDInvalid: true}

// foreign tells an upgrade that a page of another origin asks for in its reader's name: a
// browser adds the cookies and passwords it keeps for this host to whatever any page asks
// for, and lets that read the answer. A session in the URL comes from who wrote the URL,
// who has proved to know it: the consoles of web clients that live elsewhere do that.
func foreign(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || r.URL.Query().Get("session_id") != "" { // no browser, or as package wire finds the session
		return false
	}
	page, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(page.Host, r.Host)
}

// serveWebSocket answers an upgrade, as browsers ask for.
func (m *Manager) serveWebSocket(w http.ResponseWriter, r *wire.Request) {
	if foreign(r.Request) {
		m.log.Warn("console-refused", "origin", r.Header.Get("Origin"), "remote", r.RemoteAddr)
		http.Error(w, "a page of another origin needs a session in the URL", http.StatusForbidden)
		return
	}
	s, g := m.view(w, r)
	if s == nil {
		return
	}
	defer m.leave(s)
	conn, err := websocket.Accept(w, r.Request, &websocket.AcceptOptions{
		Subprotocols:       []string{"binary"},
		InsecureSkipVerify: true, // its check of origins: foreign has looked
	})
	if err != nil {
		g.close(err)
		return // Accept has answered
	}
	conn.SetReadLimit(-1) // messages are read in pieces
	m.relay(context.WithoutCancel(r.Context()), s, g, &wsClient{conn: conn, b: make([]byte, readSize)})
}

// relay runs until either side ends, or the stream is finished from elsewhere.
func (m *Manager) relay(ctx context.Context, s *stream, g guest, c client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.stir()
	go func() { s.finish(s.listen(ctx, g, c)) }()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			p, err := g.next()
			if err == nil && len(p) > 0 {
				err = c.write(ctx, p)
			}
			if err != nil {
				s.finish(err)
				return
			}
		}
	}()
	<-s.done
	g.close(s.err)
	if errors.Is(s.err, io.EOF) || errors.Is(s.err, errStopped) {
		<-ended // what the guest said last still goes out
	}
	c.end(s.err) // also wakes the reader
	cancel()
	<-ended
	m.log.Info("console-closed", "uuid", s.vm.UUID, "protocol", s.protocol, "why", s.err)
}

// listen passes on what the client sends.
func (s *stream) listen(ctx context.Context, g guest, c client) error {
	for {
		p, err := c.read(ctx)
		if len(p) > 0 {
			active, eerr := g.enter(p)
			if eerr != nil {
				return eerr
			}
			if active {
				s.stir()
			}
		}
		if err != nil {
			return errGone
		}
	}
}

// errGone: the client has ended, or will send nothing any more, which is the same: a
// viewer that was shut down could not be told from one that only listens.
var errGone = errors.New("the client has gone")

// readSize is how much is read of a client at once.
const readSize = 4 << 10

// rawClient is a hijacked connection.
type rawClient struct {
	conn net.Conn
	in   *bufio.Reader
	b    [readSize]byte
}

func (c *rawClient) read(context.Context) ([]byte, error) {
	n, err := c.in.Read(c.b[:])
	return c.b[:n], err
}

func (c *rawClient) write(_ context.Context, p []byte) error {
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.conn.Write(p)
	return err
}

func (c *rawClient) end(error) { _ = c.conn.Close() }

// wsClient is a WebSocket of binary messages.
type wsClient struct {
	conn *websocket.Conn
	r    io.Reader // of the message under way
	b    []byte
}

func (c *wsClient) read(ctx context.Context) ([]byte, error) {
	if c.r == nil {
		_, r, err := c.conn.Reader(ctx)
		if err != nil {
			return nil, err
		}
		c.r = r
	}
	n, err := c.r.Read(c.b)
	if errors.Is(err, io.EOF) {
		c.r, err = nil, nil
	}
	return c.b[:n], err
}

func (c *wsClient) write(ctx context.Context, p []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return c.conn.Write(ctx, websocket.MessageBinary, p)
}

func (c *wsClient) end(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, errStopped) {
		_ = c.conn.Close(websocket.StatusNormalClosure, errStopped.Error())
		return
	}
	_ = c.conn.Close(websocket.StatusGoingAway, err.Error())
}
