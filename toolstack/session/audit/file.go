package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cairn/toolstack/wire"
)

// The file is rotated when it would exceed its size; as many old ones are kept.
const (
	maxFileBytes = 8 << 20
	keptFiles    = 5
	fileName     = "audit.log"
)

// maxLine bounds what is taken for one line when the log is read; lines are
// shorter by their making.
const maxLine = 64 << 10

// file is a log file that is rotated. Each Write is one line. A line that cannot
// be written is lost here, and was told to the process's log beside this one.
type file struct {
	path     string
	maxBytes int64
	kept     int

	mu   sync.Mutex
	f    *os.File
	size int64
}

func openFile(dir string, maxBytes int64, kept int) (*file, error) {
	f := &file{path: filepath.Join(dir, fileName), maxBytes: maxBytes, kept: kept}
	return f, f.open()
}

func (f *file) open() error {
	out, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	info, err := out.Stat()
	if err != nil {
		out.Close()
		return fmt.Errorf("audit log: %w", err)
	}
	f.f, f.size = out, info.Size()
	return nil
}

func (f *file) old(n int) string { return fmt.Sprintf("%s.%d", f.path, n) }

// Write implements io.Writer.
func (f *file) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f != nil && f.size > 0 && f.size+int64(len(line)) > f.maxBytes {
		f.rotate()
	}
	if f.f == nil {
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	n, err := f.f.Write(line)
	f.size += int64(n)
	return n, err
}

// rotate makes room for a new file. If the old one cannot be moved away, it is
// written on, over its size, rather than lost.
func (f *file) rotate() {
	f.f.Close()
	f.f = nil
	for n := f.kept; n > 1; n-- {
		os.Rename(f.old(n-1), f.old(n)) // there may not be so many yet
	}
	os.Rename(f.path, f.old(1))
}

// Close closes the file.
func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}

// readers opens all files, the oldest first, as they are now.
func (f *file) readers() ([]io.Reader, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var open []io.Reader
	var files []*os.File
	closeAll := func() {
		for _, in := range files {
			in.Close()
		}
	}
	for n := f.kept; n >= 0; n-- {
		name, limit := f.path, f.size
		if n > 0 {
			name, limit = f.old(n), f.maxBytes*2
		}
		in, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("audit log: %w", err)
		}
		files, open = append(files, in), append(open, io.LimitReader(in, limit))
	}
	return open, closeAll, nil
}

// copySince writes the lines since a time.
func (f *file) copySince(w io.Writer, since time.Time) error {
	readers, done, err := f.readers()
	if err != nil {
		return err
	}
	defer done()
	for _, in := range readers {
		lines := bufio.NewScanner(in)
		lines.Buffer(make([]byte, 0, 4<<10), maxLine)
		for lines.Scan() {
			if !isSince(lines.Bytes(), since) {
				continue
			}
			if _, err := fmt.Fprintf(w, "%s\n", lines.Bytes()); err != nil {
				return err
			}
		}
		if err := lines.Err(); err != nil {
			return err
		}
	}
	return nil
}

// isSince reads the time a line begins with; a line without one counts.
func isSince(line []byte, since time.Time) bool {
	if since.IsZero() {
		return true
	}
	stamp, _, _ := bytes.Cut(line, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	return err != nil || !at.Before(since)
}

// parseSince reads a date as clients write them; "" is the beginning.
func parseSince(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{"20060102T15:04:05Z", "20060102T15:04:05", time.RFC3339Nano, "2006-01-02"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("since: %q is no date", text)
}

// Handle adds GET /audit_log, the whole log or what is in it since a date.
func (l *Log) Handle(s *wire.Server) {
	s.Handle(http.MethodGet, "/audit_log", wire.Auth, func(w http.ResponseWriter, r *wire.Request) {
		since, err := parseSince(r.URL.Query().Get("since"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if l.file == nil {
			return
		}
		out := bufio.NewWriter(w)
		if l.file.copySince(out, since) == nil {
			out.Flush()
		}
	})
}
