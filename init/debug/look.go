package debug

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cairn/init/hostd/client"
)

// Files lists what is below directories, one path a line; directories end in a
// slash. One that is not there holds nothing. Of control groups only the directories
// are told: the rest is the kernel's and the same in each.
func Files(dirs ...string) (string, error) {
	var b strings.Builder
	for _, dir := range dirs {
		groups := isControl(dir)
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // gone meanwhile
			case err != nil:
				return err
			case e.IsDir():
				b.WriteString(path + "/\n")
			case !groups:
				b.WriteString(path + "\n")
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return clip(b.String()), nil
}

func isControl(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// askHostd sends a request to hostd and returns the status and the body of its answer.
func askHostd(ctx context.Context, socket, method, path, body string) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, client.URL+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxOutput))
	return resp.StatusCode, string(b), err
}
