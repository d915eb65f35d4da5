package console

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"cairn/toolstack/wire"
)

// writeTimeout bounds a write to a client whose network has gone silent.
const writeTimeout = 30 * time.Second

// Handle adds the streams to a server.
func (m *Manager) Handle(s *wire.Server) {
	s.Handle(http.MethodConnect, "/console", wire.Auth, m.serveConnect)
	s.Handle(http.MethodGet, "/console", wire.Auth, m.serveWebSocket)
}

// client is the other side of a stream.
type client interface {
	read(ctx context.Context) ([]byte, error)
	write(ctx context.Context, p []byte) error
	end(err error)
}

// serveConnect answers CONNECT: after the status line come the console's bytes,
// both ways.
func (m *Manager) serveConnect(w http.ResponseWriter, r *wire.Request) {
	h, v, err := m.view(r.Context(), r.FormValue("uuid"), r.FormValue("ref"), r.Session)
	if err != nil {
		refuse(w, err)
		return
	}
	defer m.leave(h, v)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "the connection cannot be taken over", http.StatusInternalServerError)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	raw := &rawClient{conn: conn, in: buffered.Reader}
	if err := raw.write(r.Context(), []byte("HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n\r\n")); err != nil {
		raw.end(err)
		return
	}
	relay(context.WithoutCancel(r.Context()), h, v, raw)
}

func refuse(w http.ResponseWriter, err error) {
	if errors.Is(err, errNone) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}

// serveWebSocket answers an upgrade, as browsers ask for. A page of another origin
// may use it only with a session in the URL, which it cannot have by accident.
func (m *Manager) serveWebSocket(w http.ResponseWriter, r *wire.Request) {
	h, v, err := m.view(r.Context(), r.FormValue("uuid"), r.FormValue("ref"), r.Session)
	if err != nil {
		refuse(w, err)
		return
	}
	defer m.leave(h, v)
	conn, err := websocket.Accept(w, r.Request, &websocket.AcceptOptions{
		Subprotocols:       []string{"binary"},
		InsecureSkipVerify: r.URL.Query().Has("session_id"),
	})
	if err != nil {
		return // Accept has answered
	}
	relay(context.WithoutCancel(r.Context()), h, v, &wsClient{conn})
}

// relay runs until either side ends.
func relay(ctx context.Context, h *hub, v *viewer, c client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			p, err := c.read(ctx)
			if err == nil {
				err = h.enter(p)
			}
			if err != nil {
				v.finish(err)
				return
			}
		}
	}()
	for {
		p, err := v.next()
		if err == nil {
			err = c.write(ctx, p)
		}
		if err != nil {
			c.end(err) // also wakes the reader
			return
		}
	}
}

// rawClient is a hijacked connection.
type rawClient struct {
	conn io.WriteCloser
	in   *bufio.Reader
}

func (c *rawClient) read(context.Context) ([]byte, error) {
	b := make([]byte, 4<<10)
	n, err := c.in.Read(b)
	return b[:n], err
}

func (c *rawClient) write(_ context.Context, p []byte) error {
	if d, ok := c.conn.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = d.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	_, err := c.conn.Write(p)
	return err
}

func (c *rawClient) end(error) { _ = c.conn.Close() }

// wsClient is a WebSocket of binary messages.
type wsClient struct{ conn *websocket.Conn }

func (c *wsClient) read(ctx context.Context) ([]byte, error) {
	_, p, err := c.conn.Read(ctx)
	return p, err
}

func (c *wsClient) write(ctx context.Context, p []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return c.conn.Write(ctx, websocket.MessageBinary, p)
}

func (c *wsClient) end(err error) {
	if errors.Is(err, io.EOF) {
		_ = c.conn.Close(websocket.StatusNormalClosure, "the VM has stopped")
		return
	}
	_ = c.conn.Close(websocket.StatusGoingAway, err.Error())
}
