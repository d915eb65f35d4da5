package debug

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// wire is a serial line with all requests already on it.
type wire struct {
	io.Reader
	bytes.Buffer
}

func (p *wire) Read(b []byte) (int, error) { return p.Reader.Read(b) }

func ask(t *testing.T, requests ...Request) []Answer {
	t.Helper()
	var in bytes.Buffer
	for _, r := range requests {
		if err := json.NewEncoder(&in).Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	p := &wire{Reader: &in}
	if err := Serve(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	var answers []Answer
	for _, line := range strings.Split(strings.TrimSpace(p.String()), "\n") {
		var a Answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		answers = append(answers, a)
	}
	if answers[0].ID != Ready {
		t.Errorf("first answer is %+v", answers[0])
	}
	return answers[1:]
}

func TestServe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a/b")
	file := filepath.Join(dir, "f")
	self := strconv.Itoa(os.Getpid())
	got := ask(t,
		Request{ID: 1, Verb: "ping"},
		Request{ID: 2, Verb: "mkdir", Args: []string{dir}},
		Request{ID: 3, Verb: "write", Args: []string{file, "hello"}},
		Request{ID: 4, Verb: "read", Args: []string{file}},
		Request{ID: 5, Verb: "run", Args: []string{os.Args[0], "-test.list", "TestServe"}},
		Request{ID: 6, Verb: "kill", Args: []string{self, "0"}},
		Request{ID: 7, Verb: "kill", Args: []string{"-1", "9"}},
		Request{ID: 8, Verb: "kill", Args: []string{"x", "9"}},
		Request{ID: 9, Verb: "read", Args: []string{"/does/not/exist"}},
		Request{ID: 10, Verb: "dance"},
		Request{ID: 11, Verb: "run"},
	)
	for i, a := range got {
		if a.ID != i+1 || (a.Error != "") != (a.ID >= 7) {
			t.Errorf("answer %+v", a)
		}
	}
	if got[3].Output != "hello" || !strings.HasPrefix(got[4].Output, "TestServe\n") {
		t.Errorf("outputs %q, %q", got[3].Output, got[4].Output)
	}
}

// TestFiles lists trees; one that is not there is empty, and a file is itself.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a/f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got := ask(t, Request{ID: 1, Verb: "files", Args: []string{filepath.Join(dir, "a"), filepath.Join(dir, "x"), filepath.Join(dir, "c")}})[0]
	want := strings.Join([]string{"a/", "a/b/", "a/f", "c/", ""}, "\n")
	if rest := strings.ReplaceAll(got.Output, dir+"/", ""); rest != want || got.Error != "" {
		t.Errorf("%q, %q; want %q", rest, got.Error, want)
	}
}

// TestAskHostd passes a request on as it is, and the answer back with its status.
func TestAskHostd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL, r.Header.Get("Content-Type"), body)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	status, text, err := askHostd(t.Context(), socket, "PUT", "/v1/x?y=1", "{}")
	if err != nil || status != http.StatusConflict || text != "PUT /v1/x?y=1 application/json {}" {
		t.Errorf("%d %q %v", status, text, err)
	}
	if _, _, err := askHostd(t.Context(), socket+"x", "GET", "/", ""); err == nil {
		t.Error("an answer from nobody")
	}
}

func TestProcesses(t *testing.T) {
	a := ask(t, Request{ID: 1, Verb: "processes"})[0]
	for _, p := range a.Processes {
		if p.PID == os.Getpid() {
			if p.RSSKiB == 0 || p.PSSKiB == 0 || p.Parent == 0 || !strings.Contains(p.Argv, "debug.test") {
				t.Errorf("self: %+v", p)
			}
			return
		}
	}
	t.Errorf("own process is not among %d", len(a.Processes))
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"id":1,"verb":"ping"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.Contains(line, []byte("kill")) || bytes.Contains(line, []byte("run")) || bytes.Contains(line, []byte("write")) ||
			bytes.Contains(line, []byte("mkdir")) || bytes.Contains(line, []byte("read")) ||
			bytes.Contains(line, []byte("files")) || bytes.Contains(line, []byte("rules")) || bytes.Contains(line, []byte("hostd")) || bytes.Contains(line, []byte(`\u`)) {
			return // never carried out by a fuzzer
		}
		answer(context.Background(), line)
	})
}
