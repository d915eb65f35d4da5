package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
)

// StatusError is a transfer the host refused.
type StatusError struct {
	Code int
	Text string // what the host said about it, shortened
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("HTTP %d %s: %s", e.Code, http.StatusText(e.Code), e.Text)
}

// Get opens a stream of the host, such as /audit_log. The caller closes it.
func (c *Client) Get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	return c.transfer(ctx, http.MethodGet, path, query, nil, 0)
}

// Put sends size bytes to a stream of the host, such as /blob.
func (c *Client) Put(ctx context.Context, path string, query url.Values, body io.Reader, size int64) error {
	if size == 0 {
		body = http.NoBody // not chunked, which hosts do not take
	}
	r, err := c.transfer(ctx, http.MethodPut, path, query, body, size)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// PutFile is Put of a file's content.
func (c *Client) PutFile(ctx context.Context, path string, query url.Values, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return c.Put(ctx, path, query, f, info.Size())
}

// transfer names the session in a cookie, so that it stays out of logs.
func (c *Client) transfer(ctx context.Context, method, path string, query url.Values, body io.Reader, size int64) (io.ReadCloser, error) {
	target := c.base
	target.Path, target.RawQuery = path, query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	req.AddCookie(&http.Cookie{Name: "session_id", Value: c.session})
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return nil, &StatusError{Code: resp.StatusCode, Text: string(bytes.TrimSpace(text))}
}
