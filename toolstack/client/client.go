// Package client is a XenAPI client over JSON-RPC 2.0, as `xe` and the lab use
// it. It knows the wire and the session, not the classes: values travel as
// plain Go values.
//
// A Client may be used by many goroutines at once.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"
)

// LocalSocket is where a host serves its root.
const LocalSocket = "/run/cairn/api.sock"

// Config says where a host is and who is calling.
type Config struct {
	// Addr is host:port of the HTTPS service, or the path of a host's own socket, where
	// root needs no password.
	Addr     string
	Username string
	Password string
	// Originator is recorded in the session, for example "xe".
	Originator string
	// TLS overrides the TLS settings; nil accepts any certificate, because a
	// host's own CA is not known before the first contact.
	TLS *tls.Config
	// DialTimeout bounds connecting; 0 means 10 s.
	DialTimeout time.Duration
	// Local opens a session of this one host, which works without its pool.
	Local bool
}

// Client is a logged-in session on one host.
type Client struct {
	cfg     Config
	tls     *tls.Config
	base    url.URL // of the host
	http    *http.Client
	session string
	nextID  atomic.Int64
}

// Error is a failure the host answered: a code of the API and its parameters.
type Error struct {
	Code   string
	Params []string
}

// Error implements error.
func (e *Error) Error() string {
	if len(e.Params) == 0 {
		return e.Code
	}
	return e.Code + ": " + strings.Join(e.Params, ", ")
}

// IsCode reports whether err is the host's answer with this code.
func IsCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// Dial connects and logs in. A pool member answers HOST_IS_SLAVE with the
// coordinator's address; Dial follows it once.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	c, err := dial(ctx, cfg)
	var e *Error
	if errors.As(err, &e) && e.Code == "HOST_IS_SLAVE" && len(e.Params) == 1 {
		_, port, err := net.SplitHostPort(cfg.Addr)
		if err != nil { // a socket
			port = "443"
		}
		cfg.Addr = net.JoinHostPort(e.Params[0], port)
		return dial(ctx, cfg)
	}
	return c, err
}

func dial(ctx context.Context, cfg Config) (*Client, error) {
	c := unauthenticated(cfg)
	message, args := "session.login_with_password", []any{cfg.Username, cfg.Password, "2.23", cfg.Originator}
	if cfg.Local {
		message, args = "session.slave_local_login_with_password", args[:2]
	}
	if c.onHost() { // it is PID 1 that listens, whether or not there is a toolstack
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.DialTimeout)
		defer cancel()
	}
	err := c.rpc(ctx, message, &c.session, args...)
	if err != nil {
		return nil, fmt.Errorf("log in to %s as %s: %w", cfg.Addr, cfg.Username, err)
	}
	return c, nil
}

func unauthenticated(cfg Config) *Client {
	t := cfg.TLS
	if t == nil {
		t = &tls.Config{InsecureSkipVerify: true}
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 10 * time.Second
	}
	c := &Client{cfg: cfg, tls: t, base: url.URL{Scheme: "https", Host: cfg.Addr}}
	if c.onHost() {
		c.base = url.URL{Scheme: "http", Host: "localhost"}
	}
	c.http = &http.Client{Transport: &http.Transport{TLSClientConfig: t, DialContext: c.dial, TLSHandshakeTimeout: cfg.DialTimeout}}
	return c
}

// onHost: the address is a socket of this machine.
func (c *Client) onHost() bool { return path.IsAbs(c.cfg.Addr) }

// dial opens a connection, without TLS.
func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if c.onHost() {
		network, addr = "unix", c.cfg.Addr
	}
	return (&net.Dialer{Timeout: c.cfg.DialTimeout}).DialContext(ctx, network, addr)
}

// Session returns the reference of the session.
func (c *Client) Session() string { return c.session }

// Close logs out and drops idle connections.
func (c *Client) Close(ctx context.Context) error {
	defer c.http.CloseIdleConnections()
	if c.cfg.Local {
		return c.rpc(ctx, "session.local_logout", nil, c.session)
	}
	return c.rpc(ctx, "session.logout", nil, c.session)
}

// Call sends one message with the session as its first parameter and decodes
// the result into out, a pointer, unless out is nil.
func (c *Client) Call(ctx context.Context, method string, out any, args ...any) error {
	if err := c.rpc(ctx, method, out, append([]any{c.session}, args...)...); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

type request struct {
	Version string `json:"jsonrpc"`
	Method  string `json:"method"`
	Params  []any  `json:"params"`
	ID      int64  `json:"id"`
}

type response struct {
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string   `json:"message"`
		Data    []string `json:"data"`
	} `json:"error"`
}

func (c *Client) rpc(ctx context.Context, method string, out any, params ...any) error {
	body, err := json.Marshal(request{Version: "2.0", Method: method, Params: params, ID: c.nextID.Add(1)})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.JoinPath("/jsonrpc").String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("HTTP %s: %s", resp.Status, bytes.TrimSpace(text))
	}
	return decode(resp.Body, out)
}

func decode(r io.Reader, out any) error {
	var answer response
	if err := json.NewDecoder(r).Decode(&answer); err != nil {
		return fmt.Errorf("answer is not JSON-RPC: %w", err)
	}
	if answer.Error != nil {
		return &Error{Code: answer.Error.Message, Params: answer.Error.Data}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, out)
}
