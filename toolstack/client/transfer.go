package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"

	"cairn/toolstack/transfer/coding"
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
	resp, err := c.transfer(ctx, http.MethodGet, path, query, http.Header{"Accept-Encoding": {coding.Name}}, nil, 0)
	if err != nil {
		return nil, err
	}
	if resp.Header.Get("Content-Encoding") == coding.Name {
		return coding.NewBody(resp.Body), nil
	}
	return resp.Body, nil
}

// Put sends size bytes to a stream of the host, such as /blob.
func (c *Client) Put(ctx context.Context, path string, query url.Values, body io.Reader, size int64) error {
	if size == 0 {
		body = http.NoBody // not chunked, which hosts do not take
	}
	return c.put(ctx, path, query, nil, body, size)
}

func (c *Client) put(ctx context.Context, path string, query url.Values, header http.Header, body io.Reader, size int64) error {
	resp, err := c.transfer(ctx, http.MethodPut, path, query, header, body, size)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// PutFile is Put of a file's content, or a device's; of what nobody knows the length of,
// such as a pipe, it is sent until it ends. The holes of a raw disk are not sent to a host
// that can do without.
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
	if !info.Mode().IsRegular() {
		return c.putSpecial(ctx, path, query, f)
	}
	if !rawDisk(path, query) || !coding.Sparse(info) || !c.takesCoding(ctx, path) {
		return c.Put(ctx, path, query, f, info.Size())
	}
	stream, err := coding.NewFile(f)
	if err != nil {
		return err
	}
	return c.put(ctx, path, query, http.Header{"Content-Encoding": {coding.Name}}, stream, -1)
}

// putSpecial is PutFile of what has its length elsewhere, or nowhere.
func (c *Client) putSpecial(ctx context.Context, path string, query url.Values, f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size > 0 { // a disk
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return c.Put(ctx, path, query, f, size)
	}
	return c.put(ctx, path, query, nil, f, -1)
}

// rawDisk tells whether a file's bytes become those of a disk that is there. Of others
// the host wants to know how long they are, which a coding does not say.
func rawDisk(path string, query url.Values) bool {
	format := query.Get("format")
	return path == "/import_raw_vdi" && query.Get("vdi") != "" && (format == "" || format == "raw") && query.Get("chunked") == ""
}

// takesCoding asks the host whether what is sent may come in a coding. One that does not
// understand the question says no.
func (c *Client) takesCoding(ctx context.Context, path string) bool {
	target := c.base
	target.Path = path
	req, err := http.NewRequestWithContext(ctx, http.MethodOptions, target.String(), nil)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false // which is told of the request that follows
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096)) // so that the connection can be used again
	return resp.StatusCode == http.StatusOK && coding.Accepted(resp.Header.Get("Accept-Encoding"))
}

// transfer names the session in a cookie, so that it stays out of logs.
func (c *Client) transfer(ctx context.Context, method, path string, query url.Values, header http.Header, body io.Reader, size int64) (*http.Response, error) {
	target := c.base
	target.Path, target.RawQuery = path, query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	maps.Copy(req.Header, header)
	req.AddCookie(&http.Cookie{Name: "session_id", Value: c.session})
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	return nil, refusal(resp)
}

// refusal is the error of an answer, which it closes.
func refusal(resp *http.Response) error {
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return &StatusError{Code: resp.StatusCode, Text: string(bytes.TrimSpace(text))}
}
