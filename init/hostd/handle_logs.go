package hostd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"cairn/init/hostd/client"
)

// Bounds of one answer.
const (
	defaultLines = 100
	maxLines     = 1000
	maxTail      = 1 << 20
)

func (h *Host) getLogs(w http.ResponseWriter, r *http.Request) {
	service, lines := r.URL.Query().Get("service"), defaultLines
	if !serviceName(service) {
		h.refuse(w, r, badRequest("service must be a name of lower-case letters, digits and hyphens"))
		return
	}
	if s := r.URL.Query().Get("lines"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxLines {
			h.refuse(w, r, badRequest(fmt.Sprintf("lines must be a number from 1 to %d", maxLines)))
			return
		}
		lines = n
	}
	logs, err := tail(filepath.Join(h.Paths.Logs, service+".log"), lines)
	if errors.Is(err, fs.ErrNotExist) {
		h.refuse(w, r, &client.Error{Status: http.StatusNotFound, Code: client.CodeNotFound, Message: "no log of service " + service})
		return
	}
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	logs.Service = service
	h.answer(w, logs)
}

// serviceName keeps the path inside the log directory.
func serviceName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' && i > 0) {
			return false
		}
	}
	return true
}

// tail reads the last n lines of a file, from its last MiB.
func tail(path string, n int) (client.Logs, error) {
	f, err := os.Open(path)
	if err != nil {
		return client.Logs{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return client.Logs{}, err
	}
	from := max(info.Size()-maxTail, 0)
	b, err := io.ReadAll(io.NewSectionReader(f, from, maxTail))
	if err != nil {
		return client.Logs{}, fmt.Errorf("read %s: %w", path, err)
	}
	logs := client.Logs{Lines: []string{}, Truncated: from > 0}
	if from > 0 { // the first line is cut
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	lines := bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
	if len(lines) > n {
		lines, logs.Truncated = lines[len(lines)-n:], true
	}
	if len(b) == 0 {
		return logs, nil
	}
	for _, l := range lines {
		logs.Lines = append(logs.Lines, string(l))
	}
	return logs, nil
}
