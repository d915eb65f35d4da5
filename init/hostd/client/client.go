// Package client is the typed client of hostd's local socket, and the types
// that travel over it; hostd's server uses the same types.
//
// It is the one part of init that the toolstack may import, besides the types
// of cairn/init/config. A Client is safe for concurrent use, keeps a few
// connections open and holds no other state, so a restart of hostd only costs
// the calls in flight.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Socket is where PID 1 listens on behalf of hostd.
const Socket = "/run/cairn/hostd.sock"

// URL is what the path of a request is put behind.
const URL = "http://hostd"

// maxAnswer bounds what the client reads of one answer; the largest, a tail of
// a log, is bounded to 1 MiB by the server.
const maxAnswer = 8 << 20

// Codes of Error that a caller may branch on.
const (
	CodeConfigInvalid = "CONFIG_INVALID"
	CodeBadRequest    = "BAD_REQUEST"
	CodeNotFound      = "NOT_FOUND"
	CodeTooLarge      = "TOO_LARGE"
	CodeNotDurable    = "NOT_DURABLE"
	CodeInternal      = "INTERNAL"
)

// Error is how hostd answers a request it did not fulfil.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
	// Line is the line of the document an error is about, else 0.
	Line int `json:"line,omitempty"`
}

func (e *Error) Error() string { return fmt.Sprintf("hostd: %s: %s", e.Code, e.Message) }

// Client calls hostd.
type Client struct {
	http *http.Client
	root string // where the root of a host that is not this machine is seen, as labs have it
}

// New returns a client of the hostd listening on the unix socket at path.
func New(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	c := Over(&http.Transport{
		DialContext:         dial,
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     30 * time.Second,
	})
	if root, ok := strings.CutSuffix(path, Socket); ok {
		c.root = root
	}
	return c
}

// Over returns a client whose requests take another way to hostd than its socket.
func Over(way http.RoundTripper) *Client { return &Client{http: &http.Client{Transport: way}} }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Version asks for the versions of hostd, product and kernel.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return get[Version](ctx, c, "/v1/version")
}

// Inventory asks for the hardware as it is now.
func (c *Client) Inventory(ctx context.Context) (Inventory, error) {
	return get[Inventory](ctx, c, "/v1/inventory")
}

// Config asks for the configuration document in force, password hash included.
func (c *Client) Config(ctx context.Context) (Config, error) {
	return get[Config](ctx, c, "/v1/config")
}

// PutConfig replaces the configuration document by the given YAML text. A
// wrong document is an *Error with CodeConfigInvalid and the line, and changes
// nothing; success means the document is on disk and being applied.
func (c *Client) PutConfig(ctx context.Context, text []byte) (Config, error) {
	return do[Config](ctx, c, http.MethodPut, "/v1/config", "application/yaml", text)
}

// Network asks for the management network as it is now.
func (c *Client) Network(ctx context.Context) (Network, error) {
	return get[Network](ctx, c, "/v1/network")
}

// Power asks PID 1 to power off or reboot; it returns before that happens.
func (c *Client) Power(ctx context.Context, action PowerAction) error {
	body, err := json.Marshal(PowerRequest{Action: action})
	if err != nil {
		return fmt.Errorf("power: %w", err)
	}
	_, err = do[struct{}](ctx, c, http.MethodPost, "/v1/power", "application/json", body)
	return err
}

// LoadKVM says that guests are about to run: KVM's module is loaded now rather
// than some seconds later. It returns at once; Inventory has the verdict.
func (c *Client) LoadKVM(ctx context.Context) error {
	_, err := do[struct{}](ctx, c, http.MethodPost, "/v1/kvm", "application/json", nil)
	return err
}

// Logs asks for the last lines of a service's log; lines ≤ 0 means the default.
func (c *Client) Logs(ctx context.Context, service string, lines int) (Logs, error) {
	q := url.Values{"service": {service}}
	if lines > 0 {
		q.Set("lines", strconv.Itoa(lines))
	}
	return get[Logs](ctx, c, "/v1/logs?"+q.Encode())
}

// GuestLogs lists, by UUID, the guests of which there are logs: what QEMU said of
// them, and what they said on their consoles.
func (c *Client) GuestLogs(ctx context.Context) ([]string, error) {
	return get[[]string](ctx, c, "/v1/guest-logs")
}

// DeleteGuestLogs removes the logs of a guest that does not run. It is idempotent.
func (c *Client) DeleteGuestLogs(ctx context.Context, uuid string) error {
	_, err := do[struct{}](ctx, c, http.MethodDelete, "/v1/guest-logs/"+url.PathEscape(uuid), "", nil)
	return err
}

// KernelLog asks for the messages of the kernel.
func (c *Client) KernelLog(ctx context.Context) (KernelLog, error) {
	return get[KernelLog](ctx, c, "/v1/kernel-log")
}

// ClearKernelLog asks for the messages of the kernel and drops them there.
func (c *Client) ClearKernelLog(ctx context.Context) (KernelLog, error) {
	return do[KernelLog](ctx, c, http.MethodDelete, "/v1/kernel-log", "", nil)
}

// OutOfMemory asks which guests the kernel killed for lack of memory.
func (c *Client) OutOfMemory(ctx context.Context) (OutOfMemory, error) {
	return get[OutOfMemory](ctx, c, "/v1/out-of-memory")
}

// Time asks how well the host's clock is kept.
func (c *Client) Time(ctx context.Context) (Time, error) {
	return get[Time](ctx, c, "/v1/time")
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return do[T](ctx, c, http.MethodGet, path, "", nil)
}

func do[T any](ctx context.Context, c *Client, method, path, contentType string, body []byte) (T, error) {
	var out T
	data, err := c.exchange(ctx, method, path, contentType, body, maxAnswer)
	if err != nil || len(data) == 0 {
		return out, err
	}
	if err := json.Unmarshal(data, &out); err != nil {
		return out, fmt.Errorf("hostd: %s %s: %w", method, path, err)
	}
	return out, nil
}

// exchange sends a request and reads at most limit bytes of the answer.
func (c *Client) exchange(ctx context.Context, method, path, contentType string, body []byte, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("hostd: %w", err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("hostd: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		return nil, fmt.Errorf("hostd: %s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 300 {
		return nil, asError(resp.StatusCode, data)
	}
	return data, nil
}

// asError makes the best of an answer that is not a success: some come from
// net/http itself and carry plain text.
func asError(status int, data []byte) *Error {
	e := &Error{Status: status}
	if err := json.Unmarshal(data, e); err != nil || e.Code == "" {
		e.Code = CodeInternal
		e.Message = fmt.Sprintf("status %d: %s", status, bytes.TrimSpace(data[:min(len(data), 200)]))
	}
	return e
}
