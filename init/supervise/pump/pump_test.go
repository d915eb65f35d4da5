package pump

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// lines is a console that tells of each line.
type lines struct{ c chan string }

func (l lines) Write(p []byte) (int, error) { l.c <- string(p); return len(p), nil }

func TestServiceToFileAndConsole(t *testing.T) {
	dir := t.TempDir()
	console := lines{make(chan string, 16)}
	p := New(console)
	w, err := p.Pipe("hostd", true)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(w, "before the log directory is there")
	<-console.c
	p.Begin(dir)
	fmt.Fprintln(w, "after")
	if got := <-console.c; got != "after\n" {
		t.Errorf("console got %q", got)
	}
	if err := p.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "hostd.log"))
	if err != nil || string(got) != "before the log directory is there\nafter\n" {
		t.Errorf("file has %q, %v", got, err)
	}
}

func TestPipeIsKeptOverRestarts(t *testing.T) {
	p := New(io.Discard)
	a, err := p.Pipe("a", false)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Pipe("a", false)
	if err != nil || a != b {
		t.Errorf("a second start got another pipe, %v", err)
	}
}

func TestLongLineIsCut(t *testing.T) {
	console := lines{make(chan string, 16)}
	w, err := New(console).Pipe("a", true)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(w, strings.Repeat("x", maxLine+5))
	if a, b := <-console.c, <-console.c; len(a) != maxLine+1 || b != "xxxxx\n" {
		t.Errorf("got %d bytes and %q", len(a), b)
	}
}

func TestQueueDropsTheOldestAndSaysSo(t *testing.T) {
	q := queue{limit: 30, wake: make(chan struct{}, 1)}
	for i := range 10 {
		q.push(fmt.Appendf(nil, "line %d\n", i))
	}
	got := string(bytes.Join(q.take(), nil))
	want := "log-dropped lines=6\nline 6\nline 7\nline 8\nline 9\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if rest := q.take(); len(rest) != 0 {
		t.Errorf("taken twice: %q", rest)
	}
}

// stuck is a terminal that takes nothing until it is let go.
type stuck struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

// One queue may be with the writer while the next one fills.
func TestStuckConsoleHoldsNobodyUp(t *testing.T) {
	s := &stuck{}
	s.mu.Lock()
	c := NewConsole(s)
	line := []byte(strings.Repeat("y", 1023) + "\n")
	for range 4 * consoleQueue / len(line) {
		if _, err := c.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Unlock()
	c.Flush(t.Context())
	if !strings.Contains(s.buf.String(), "log-dropped lines=") || s.buf.Len() > 2*consoleQueue+2*len(line) {
		t.Errorf("%d bytes came out", s.buf.Len())
	}
}

func TestFlushGivesUp(t *testing.T) {
	s := &stuck{}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := NewConsole(s)
	fmt.Fprintln(c, "never taken")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Flush(ctx)
}

func TestRotation(t *testing.T) {
	l := &logFile{path: filepath.Join(t.TempDir(), "a.log"), limit: 20}
	for i := range 7 {
		if err := l.write(fmt.Appendf(nil, "line %d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	l.close()
	for path, want := range map[string]string{l.path: "line 6\n", l.path + ".1": "line 4\nline 5\n"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(l.path)); err != nil || len(entries) != 2 {
		t.Errorf("%d files, %v", len(entries), err)
	}
}

func TestRotationContinuesAFileOfTheLastBoot(t *testing.T) {
	l := &logFile{path: filepath.Join(t.TempDir(), "a.log"), limit: 20}
	if err := os.WriteFile(l.path, []byte("from the last boot\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := l.write([]byte("new\n")); err != nil {
		t.Fatal(err)
	}
	if err := l.write([]byte("more\n")); err != nil {
		t.Fatal(err)
	}
	l.close()
	if got, err := os.ReadFile(l.path); err != nil || string(got) != "more\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

// What a service prints last is in the pipe when it has ended.
func TestEndDrainsThePipes(t *testing.T) {
	dir := t.TempDir()
	p := New(io.Discard)
	p.Begin(dir)
	w, err := p.Pipe("a", false)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "last words")
	if err := p.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a.log")); err != nil || string(got) != "last words\n" {
		t.Errorf("got %q, %v", got, err)
	}
}
