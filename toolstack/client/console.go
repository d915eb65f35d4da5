package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// handshakeTimeout bounds the answer to CONNECT; the stream itself has no limit.
const handshakeTimeout = 30 * time.Second

// Console opens the console of a VM or a console record by its reference and
// returns the raw bytes both ways. The stream ends with the VM or the session.
func (c *Client) Console(ctx context.Context, ref string) (io.ReadWriteCloser, error) {
	conn, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	s, err := c.connect(conn, ref)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("console of %s: %w", ref, err)
	}
	return s, nil
}

// open is a connection of its own.
func (c *Client) open(ctx context.Context) (net.Conn, error) {
	if c.onHost() {
		return c.dial(ctx, "", "")
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: c.cfg.DialTimeout}, Config: c.tls}
	return d.DialContext(ctx, "tcp", c.cfg.Addr)
}

func (c *Client) connect(conn net.Conn, ref string) (io.ReadWriteCloser, error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	query := url.Values{"ref": {ref}, "session_id": {c.session}}
	if _, err := fmt.Fprintf(conn, "CONNECT /console?%s HTTP/1.1\r\nHost: %s\r\n\r\n", query.Encode(), c.base.Host); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(resp)
	}
	return &stream{Conn: conn, r: r}, conn.SetDeadline(time.Time{})
}

// stream reads through the buffer that may already hold console bytes.
type stream struct {
	net.Conn
	r *bufio.Reader
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }
