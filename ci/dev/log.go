package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
)

// logFile keeps what all daemons print, and hears when the API is ready. Several
// goroutines may write.
type logFile struct {
	path  string
	ready chan struct{} // closed by the line that says so

	mu   sync.Mutex
	file *os.File
	rest []byte   // of a line
	tail []string // the last lines
	said bool
}

// tailLines is what is shown of the log when a start fails.
const tailLines = 30

func openLog(path string) (*logFile, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &logFile{path: path, file: f, ready: make(chan struct{})}, nil
}

// Write implements io.Writer.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			break
		}
		l.note(string(line))
		l.rest = rest
	}
	return l.file.Write(p)
}

func (l *logFile) note(line string) {
	l.tail = append(l.tail, line)
	l.tail = l.tail[max(0, len(l.tail)-tailLines):]
	if !l.said && strings.Contains(line, " api-ready ") {
		l.said = true
		close(l.ready)
	}
}

// explain is the end of the log as an error.
func (l *logFile) explain() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Errorf("the last lines of %s:\n%s", l.path, strings.Join(l.tail, "\n"))
}

func (l *logFile) Close() error { return l.file.Close() }
