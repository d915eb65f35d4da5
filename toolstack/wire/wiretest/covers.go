package wiretest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/wire"
)

// CoverageDir is the environment variable that names the directory where tests
// leave what they cover; `make api-coverage` sets it and reads what is there.
const CoverageDir = "CAIRN_API_COVERAGE"

// calls counts which messages were answered without an error.
type calls struct {
	mu       sync.Mutex
	answered map[string]bool
}

func (c *calls) note(o wire.Observation) {
	if o.Err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answered == nil {
		c.answered = map[string]bool{}
	}
	c.answered[o.Message.Method] = true
}

// Covers states that the running test asserts the effect of these messages
// ("VM.start"), which makes them count as having behaviour. It fails the test
// when one of them is unknown, or was not answered with success by the time the
// test ends; a test that fails covers nothing.
func (s *Server) Covers(methods ...string) {
	s.T.Helper()
	Covers(s.T, s.calls.has, methods...)
}

func (c *calls) has(method string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered[method]
}

// Covers is for tests that have a server of another kind; answered reports
// whether a message was answered with success.
func Covers(t testing.TB, answered func(method string) bool, methods ...string) {
	t.Helper()
	t.Cleanup(func() {
		for _, m := range methods {
			switch {
			case api.FindMessage(m) == nil:
				t.Errorf("there is no message %q to cover", m)
			case !answered(m):
				t.Errorf("the test says it covers %s, which was not answered with success", m)
			}
		}
		if t.Failed() {
			return
		}
		if err := record(t.Name(), methods); err != nil {
			t.Error(err)
		}
	})
}

// record appends lines of message and test to a file of this process.
func record(test string, methods []string) error {
	dir := os.Getenv(CoverageDir)
	if dir == "" {
		return nil
	}
	name := filepath.Join(dir, fmt.Sprintf("%s-%d.txt", filepath.Base(os.Args[0]), os.Getpid()))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	for _, m := range methods {
		fmt.Fprintf(f, "%s %s\n", m, test)
	}
	return f.Close()
}
