// Package wiretest runs a whole API server in memory for tests: memory database,
// root with a known password, an HTTP listener on loopback. It is meant for one
// test at a time.
package wiretest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/event"
	"cairn/toolstack/session"
	"cairn/toolstack/task"
	"cairn/toolstack/wire"
)

// Password is root's, until a test changes it, and that of the users of As.
const Password = "secret"

// Server is a running server with one session open.
type Server struct {
	T       testing.TB
	DB      *db.DB
	Engine  *db.Memory // below DB; its Fail refuses commits
	Wire    *wire.Server
	HTTP    *httptest.Server
	Session string
	Host    api.HostRef
	// Sessions is the session manager; see also As.
	Sessions *session.Manager
	// Directories are what external authentication can be enabled with; a
	// test may add to them.
	Directories map[string]session.OpenFunc

	calls *calls
}

// noWait is the real time without delays for wrong passwords.
type noWait struct{}

func (noWait) Now() time.Time                                   { return time.Now() }
func (noWait) Sleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// New starts a server. The function binds behaviour and fills the database
// before the first call; it may be nil.
func New(t testing.TB, prepare func(*api.Registry, *db.DB)) *Server {
	t.Helper()
	engine := db.NewMemory()
	d, err := db.Open(context.Background(), engine, db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{T: t, DB: d, Engine: engine, Host: api.NewRef[api.Host](), calls: &calls{}}
	s.Directories = map[string]session.OpenFunc{directoryType: openDirectory}
	reg := api.NewRegistry()
	var password atomic.Pointer[string]
	first := Password
	password.Store(&first)
	sessions := session.New(session.Config{
		DB:       d,
		RootHash: func(context.Context) (string, error) { return *password.Load(), nil },
		Verify:   func(hash, password string) bool { return hash == password },
		ThisHost: func() api.HostRef { return s.Host },
		SetRootPassword: func(_ context.Context, p string) error {
			password.Store(&p)
			return nil
		},
		Directories: s.Directories,
		Clock:       noWait{},
	})
	s.Sessions = sessions
	tasks := task.New(task.Config{DB: d, ThisHost: func() api.HostRef { return s.Host }, Who: sessions.Owner})
	sessions.Register(reg)
	tasks.Register(reg)
	event.New(d, sessions.Check).Register(reg)
	if prepare != nil {
		prepare(reg, d)
	}
	s.Wire = wire.NewServer(wire.Config{
		DB: d, Registry: reg, Sessions: sessions, Tasks: tasks, Observe: s.calls.note,
		Authorize: sessions.Authorize, AuthorizeHTTP: sessions.AuthorizeHTTP,
	})
	s.HTTP = httptest.NewServer(s.Wire)
	t.Cleanup(func() {
		s.HTTP.CloseClientConnections()
		s.Wire.Close()
		s.HTTP.Close()
		d.Close()
	})
	login, err := s.Raw("session.login_with_password", "root", Password)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(login, &s.Session); err != nil {
		t.Fatal(err)
	}
	return s
}

// Call sends a message with the open session by JSON-RPC 2.0. The error is an
// *api.Error where the server answered one.
func (s *Server) Call(method string, args ...any) (json.RawMessage, error) {
	return s.Raw(method, append([]any{s.Session}, args...)...)
}

// Must is Call where an error fails the test; the result is decoded into out
// unless that is nil.
func (s *Server) Must(out any, method string, args ...any) {
	s.T.Helper()
	result, err := s.Call(method, args...)
	if err != nil {
		s.T.Fatalf("%s: %v", method, err)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(result, out); err != nil {
		s.T.Fatalf("%s answered %s: %v", method, result, err)
	}
}

// Raw is Call without a session.
func (s *Server) Raw(method string, args ...any) (json.RawMessage, error) {
	if args == nil {
		args = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "method": method, "params": args, "id": 1})
	if err != nil {
		return nil, err
	}
	resp, err := http.Post(s.HTTP.URL+"/jsonrpc", "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Result json.RawMessage
		Error  *struct {
			Message string
			Data    []string
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", resp.Status, text, err)
	}
	if answer.Error != nil {
		return nil, &api.Error{Code: answer.Error.Message, Params: answer.Error.Data}
	}
	return answer.Result, nil
}
