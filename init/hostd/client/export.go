package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// ExportRequest is the body of an export.
type ExportRequest struct {
	// Layers are the volumes below, the upper ones first. The volume reads through
	// none but these.
	Layers   []string `json:"layers,omitempty"`
	Writable bool     `json:"writable,omitempty"`
	// As says that a raw volume holds an image of a format, whose content is meant; it
	// may not refer to anything outside of it. CodeDamaged where it is none.
	As Format `json:"as,omitempty"`
}

// Export is the first line of the answer: a socket on which one connection is served,
// and the volume with those it reads through, the top one first.
type Export struct {
	ID     string   `json:"id"`
	Socket string   `json:"socket"`
	Layers []string `json:"layers"`
}

// ExportEnd is the second line.
type ExportEnd struct {
	Error *Error `json:"error,omitempty"`
}

// Lent is a volume that is lent out: a connection that speaks NBD, whose export has
// no name.
type Lent struct {
	net.Conn
	// Layers are the volume and those below it, the top one first: what NBD's
	// qemu:allocation-depth counts.
	Layers []string

	id   string
	end  func() error // waits for the second line
	once sync.Once
	err  error
}

// NewLent is a volume that somebody else than hostd lends out. end is called when the
// connection is closed, and returns when that is known.
func NewLent(conn net.Conn, layers []string, end func() error) *Lent {
	return &Lent{Conn: conn, Layers: layers, end: end}
}

// endLimit is how long a volume may take to be closed; then hostd is not waited for.
const endLimit = 30 * time.Second

// ExportVolume opens a volume's content, whatever its format and its layers. A
// writable one has what was written on its medium after a flush, and is written to by
// nobody else; it must not be active, nor the backing of others. It is lent out until
// it is closed, whatever becomes of ctx, or until the caller or hostd ends; CodeInUse
// while others work on it.
func (c *Client) ExportVolume(ctx context.Context, sr, name string, req ExportRequest) (*Lent, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("hostd: export: %w", err)
	}
	// Who is lent a volume must see it given back, also when he gives up.
	all, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	l, err := c.export(all, volumePath(sr, name)+"/export", body)
	if err != nil {
		cancel()
		return nil, err
	}
	end := l.end
	l.end = func() error {
		late := time.AfterFunc(endLimit, cancel)
		defer late.Stop()
		defer cancel()
		// A server of NBD that never understood its client waits for the next one. Whether
		// this was heard is seen by the end.
		go do[struct{}](all, c, http.MethodDelete, "/v1/exports/"+url.PathEscape(l.id), "", nil)
		return end()
	}
	return l, nil
}

func (c *Client) export(ctx context.Context, path string, body []byte) (*Lent, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("hostd: %w", err)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("hostd: %w", err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return nil, fmt.Errorf("hostd: %s: %w", path, err)
		}
		return nil, asError(resp.StatusCode, data)
	}
	lines := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	var e Export
	var conn net.Conn
	if err = lines.Decode(&e); err == nil {
		conn, err = new(net.Dialer).DialContext(ctx, "unix", c.root+e.Socket)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hostd: %s: %w", path, err), resp.Body.Close())
	}
	return &Lent{Conn: conn, id: e.ID, Layers: e.Layers, end: func() error {
		defer resp.Body.Close()
		var last ExportEnd
		if err := lines.Decode(&last); err != nil {
			return fmt.Errorf("hostd: %s: %w", path, err)
		}
		if last.Error != nil {
			return last.Error
		}
		return nil
	}}, nil
}

// Close gives the volume back, and returns when nobody has it open any more. The error
// says what went wrong while it was lent out.
func (l *Lent) Close() error {
	l.once.Do(func() { l.err = errors.Join(l.Conn.Close(), l.end()) })
	return l.err
}
