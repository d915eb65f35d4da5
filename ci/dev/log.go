package main

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"cairn/journal"
)

// logFile keeps what all daemons print, and hears when the API is ready. Several
// goroutines may write.
type logFile struct {
	path  string
	ready chan struct{} // closed by the line that says so

	mu   sync.Mutex
	file *os.File
	cut  journal.Lines
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
	l.cut.Cut(p, l.note)
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
