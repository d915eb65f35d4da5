// Package wire serves the management API over HTTP: XML-RPC, JSON-RPC 1.0 and
// 2.0, and the plumbing of the streams beside them. It decodes a request, checks
// it against the description (name, number and types of parameters, session,
// role), runs the implicit or bound behaviour, and encodes what that answers.
//
// A stream whose request is answered before its body was read ends its connection only
// after the body was thrown away, or some seconds: else the answer is lost.
//
// Nothing here knows a class by name: implicit messages are served from the
// tables of package api. A Server may be used by many goroutines.
package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/task"
)

// Sessions is what a Server needs to know about who calls.
type Sessions interface {
	// Check answers SESSION_INVALID unless the session is alive, and counts
	// as a use of it.
	Check(s api.SessionRef) error
	// Login opens a session, for HTTP Basic authentication; remote is the
	// client's address.
	Login(ctx context.Context, user, password, originator, remote string) (api.SessionRef, error)
	// LoginRoot opens a session for root on this host, who needs no password.
	LoginRoot(ctx context.Context, originator string) (api.SessionRef, error)
	// Logout closes a session.
	Logout(s api.SessionRef)
}

// Config is what a Server is made of. All but the hooks are needed.
type Config struct {
	DB       *db.DB
	Registry *api.Registry
	Sessions Sessions
	Tasks    *task.Manager
	// Authorize is asked before a message with a valid session is served;
	// args are as in Observation. Nil lets every session do everything.
	Authorize func(s api.SessionRef, m *api.MessageInfo, args []api.Value) error
	// AuthorizeHTTP is Authorize for a stream beside the messages, by the
	// name of its action ("get_export").
	AuthorizeHTTP func(s api.SessionRef, action string) error
	// PoolSession opens a session for another host of the pool, which sends
	// the pool's secret; nil accepts none.
	PoolSession func(ctx context.Context, secret string) (api.SessionRef, error)
	// Locate answers the address of another host, to send clients there; nil
	// takes the one in the host's record.
	Locate func(host api.HostRef) (string, error)
	// BodyTimeout is how long a client may take to send a message; zero is
	// half a minute.
	BodyTimeout time.Duration
	// PieceTimeout is how long a client may take to receive each piece of an
	// answer; zero is a minute.
	PieceTimeout time.Duration
	// Observe, if set, hears of every call of a known message, refused ones
	// too, after it ended. It is called by many goroutines.
	Observe func(Observation)
	Log     *slog.Logger
}

// Observation is a call that has ended: what an audit log wants to know.
type Observation struct {
	Message *api.MessageInfo
	Session api.SessionRef // null where the call had no valid one
	Remote  string         // the client's address
	Args    []api.Value    // without the session, defaults filled in; nil where they were wrong
	Async   bool
	// Before is the database when the call began, where it may have changed
	// something: what is gone has its name there.
	Before *db.Snapshot
	Err    error // an *api.Error, or nil
	Took   time.Duration
}

// Server serves the API. It is an http.Handler.
type Server struct {
	Config
	routes []route
	ctx    context.Context
	cancel context.CancelFunc
	async  sync.WaitGroup
	rests  rests
}

// NewServer returns a server for the configuration.
func NewServer(c Config) *Server {
	if c.Log == nil {
		c.Log = journal.Discard()
	}
	if c.BodyTimeout == 0 {
		c.BodyTimeout = defaultBodyTimeout
	}
	if c.PieceTimeout == 0 {
		c.PieceTimeout = defaultPieceTimeout
	}
	s := &Server{Config: c}
	if s.Locate == nil {
		s.Locate = s.hostAddress
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.rests = rests{slots: make(chan struct{}, maxRests), limit: restTimeout, stopped: s.ctx}
	s.addRPCRoutes()
	return s
}

// Close cancels all calls and waits for those that run as tasks.
func (s *Server) Close() {
	s.cancel()
	s.async.Wait()
}

// request is one decoded call.
type request struct {
	method string
	args   []api.Value
	remote string
	root   bool // on this host
	gone   <-chan struct{}
}

// from notes who sends the call.
func (q *request) from(r *Request) {
	q.remote, q.root, q.gone = r.RemoteAddr, fromRoot(r.Request), r.Context().Done()
}

// noAsync is answered as a fault: the message cannot run as a task.
type noAsync struct{ method string }

func (e noAsync) Error() string { return "no asynchronous form of " + e.method }

// asyncPrefixes ask for a message to run as a task; the underscore belongs to
// the other spelling of messages, VM_start.
var asyncPrefixes = [...]string{"Async.", "InternalAsync.", "Async_", "InternalAsync_"}

// call serves one request.
func (s *Server) call(r *request) (api.Result, error) {
	if r.method == "system.listMethods" {
		return methodList{}, nil
	}
	method, async := r.method, false
	for _, prefix := range asyncPrefixes {
		if rest, ok := strings.CutPrefix(method, prefix); ok {
			method, async = rest, true
			break
		}
	}
	m := api.FindMessage(method)
	switch {
	case m == nil:
		return nil, api.ErrMessageMethodUnknown(r.method)
	case async && !m.Async:
		return nil, noAsync{r.method}
	case m.State == api.Removed:
		return nil, api.ErrMessageRemoved()
	}
	begun := time.Now()
	session, args, err := s.admit(m, r)
	h := s.handler(m)
	if err == nil && h == nil {
		err = api.ErrNotImplemented(m.Method)
	}
	if err != nil {
		s.observe(Observation{Message: m, Session: session, Remote: r.remote, Args: args, Async: async, Err: err}, begun)
		return nil, err
	}
	c := &api.Call{Session: session, Message: m, Async: async, Remote: r.remote, Root: r.root, Gone: r.gone}
	h = s.observed(h, begun)
	if async {
		c.Gone = nil
		return s.startTask(h, c, args)
	}
	return s.runNow(h, c, args)
}

// handler is the behaviour of a message, nil where there is none.
func (s *Server) handler(m *api.MessageInfo) api.Handler {
	if h := s.Registry.Handler(m); h != nil {
		return h
	}
	return s.implicit(m)
}

// readOnly is the role of messages that, as a rule, change nothing.
const readOnly = "read-only"

// observed tells of a call when it has ended.
func (s *Server) observed(h api.Handler, begun time.Time) api.Handler {
	if s.Observe == nil {
		return h
	}
	return func(c *api.Call, args []api.Value) (api.Result, error) {
		var before *db.Snapshot
		if c.Message.Role != readOnly {
			before = s.DB.Snapshot()
		}
		result, err := s.run(h, c, args)
		s.observe(Observation{
			Message: c.Message, Session: c.Session, Remote: c.Remote, Args: args, Async: c.Async, Before: before, Err: err,
		}, begun)
		return result, err
	}
}

func (s *Server) observe(o Observation, begun time.Time) {
	if s.Observe != nil {
		o.Took = time.Since(begun)
		s.Observe(o)
	}
}

// admit checks a request against the message's description and returns the
// session and the arguments with defaults filled in.
func (s *Server) admit(m *api.MessageInfo, r *request) (api.SessionRef, []api.Value, error) {
	args, extra := r.args, 1
	if m.NoSession {
		extra = 0
	}
	least, most := m.RequiredParams()+extra, len(m.Params)+extra
	if n := len(args); n < least || n > most {
		return "", nil, api.ErrMessageParameterCountMismatch(r.method, fmt.Sprint(clamp(n, least, most)), fmt.Sprint(n))
	}
	var session api.SessionRef
	if !m.NoSession {
		session = api.SessionRef(api.ParseRef(args[0].Text))
		if err := s.Sessions.Check(session); err != nil {
			return "", nil, err
		}
		args = args[1:]
	}
	full := make([]api.Value, len(m.Params))
	copy(full, args)
	for i := range m.Params {
		if i >= len(args) {
			full[i] = m.Params[i].Default
		} else if err := checkValue(&full[i], m.Params[i].Type); err != nil {
			return "", nil, typeFault(m.Params[i].Name, err)
		}
	}
	return session, full, s.authorize(session, m, full)
}

func clamp(n, least, most int) int { return min(max(n, least), most) }

func (s *Server) authorize(session api.SessionRef, m *api.MessageInfo, args []api.Value) error {
	if m.Internal {
		return api.ErrRBACPermissionDenied(strings.ToLower(m.Method), "only the hosts of a pool may send this message")
	}
	if s.Authorize == nil || m.NoSession {
		return nil
	}
	return s.Authorize(session, m, args)
}

// startTask runs a call as a task of its own and answers the task.
func (s *Server) startTask(h api.Handler, c *api.Call, args []api.Value) (api.Result, error) {
	t, err := s.Tasks.Start(s.ctx, "Async."+c.Message.Method, c.Session, true)
	if err != nil {
		return nil, err
	}
	c.Task, c.Context = t, t.Context()
	s.async.Go(func() {
		result, err := s.run(h, c, args)
		text := ""
		if _, void := result.(api.Void); err == nil && !void {
			text = string(result.AppendValue(nil, api.XML))
		}
		t.Finish(text, err)
	})
	return api.StringResult(t.Ref().String()), nil
}

// runNow runs a call while its client waits. Long operations, which are those
// that may also run as tasks, have a task while they run; those on tasks and
// sessions are not long.
func (s *Server) runNow(h api.Handler, c *api.Call, args []api.Value) (api.Result, error) {
	c.Task, c.Context = noTask{}, s.ctx
	if !c.Message.Async || c.Message.Class.Volatile {
		return s.run(h, c, args)
	}
	t, err := s.Tasks.Start(s.ctx, c.Message.Method, c.Session, false)
	if err != nil {
		return nil, err
	}
	c.Task, c.Context = t, t.Context()
	result, err := s.run(h, c, args)
	t.Finish("", err)
	return result, err
}

// run calls behaviour and makes an API error of whatever goes wrong in it.
func (s *Server) run(h api.Handler, c *api.Call, args []api.Value) (result api.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.Log.Error("call-panic", "message", c.Message.Method, "panic", p, "stack", string(debug.Stack()))
			result, err = nil, api.ErrInternalError(fmt.Sprint(p))
		}
	}()
	result, err = h(c, args)
	if err != nil {
		return nil, s.apiError(c, err)
	}
	return result, nil
}

func (s *Server) apiError(c *api.Call, err error) error {
	var known *api.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(context.Cause(c), api.ErrCancelled):
		return api.ErrTaskCancelled(c.Task.Ref().String())
	}
	s.Log.Error("call-failed", "message", c.Message.Method, "err", err)
	return api.ErrInternalError(err.Error())
}

// noTask is the progress of a short call.
type noTask struct{}

func (noTask) Ref() api.TaskRef { return "" }
func (noTask) Set(float64)      {}

// methodList answers system.listMethods.
type methodList struct{}

// AppendValue implements api.Result.
func (methodList) AppendValue(b []byte, e api.Encoding) []byte {
	b = api.OpenArray(b, e)
	messages := api.Messages()
	for i := range messages {
		if !messages[i].Hidden {
			b = api.AppendString(api.Next(b, e), e, messages[i].Method)
		}
	}
	return api.CloseArray(b, e)
}
