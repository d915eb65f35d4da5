package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/task"
)

// TransferFunc serves a transfer. It reads the body or writes an answer until
// it is done or the request's context ends; its error fails the task. Reading
// and writing fail when the task is cancelled.
type TransferFunc func(w http.ResponseWriter, r *Request) error

// Elsewhere is the error of a transfer that belongs to another host: the client
// is sent there, and its task is left to that host.
type Elsewhere struct{ Host api.HostRef }

// Error implements error.
func (e *Elsewhere) Error() string { return "served by host " + e.Host.String() }

// Away is the error of a transfer that is known to belong to another host, nil of others.
func Away(host api.HostRef, known bool) error {
	if !known {
		return nil
	}
	return &Elsewhere{Host: host}
}

// Pretended is a length that clients claim, or a larger one, that do not know how long
// what they send will be.
const Pretended = 1 << 50

// lastWord is how long the answer to a transfer that was cut short may take.
const lastWord = 10 * time.Second

// Transfer adds a route whose requests run as tasks. The parameter task_id
// names a task the client created, which then has the transfer's progress and
// its result or error; without it the transfer has a task of its own while it
// runs, which is part of the one subtask_of names.
func (s *Server) Transfer(method, prefix string, h TransferFunc) {
	label := method + " " + prefix
	s.Handle(method, prefix, Auth, func(w http.ResponseWriter, r *Request) {
		if !decodable(r.Request) {
			s.refuseCoding(w, r)
			return
		}
		t, err := s.transferTask(r, label)
		if err != nil {
			s.dismiss(w, r.Request, err)
			return
		}
		s.transfer(w, r, t, h)
	})
}

func (s *Server) transferTask(r *Request, label string) (*task.Running, error) {
	ctx := r.Context()
	if id := param(r.Request, "task_id"); id != "" {
		ref := api.TaskRef(api.ParseRef(id))
		if err := s.Tasks.Permit(r.Session, ref, "task.set_status"); err != nil {
			return nil, err
		}
		return s.Tasks.Adopt(ctx, ref)
	}
	if parent := param(r.Request, "subtask_of"); parent != "" {
		return s.Tasks.StartUnder(ctx, api.TaskRef(api.ParseRef(parent)), label)
	}
	return s.Tasks.Start(ctx, label, r.Session, false)
}

func (s *Server) transfer(w http.ResponseWriter, r *Request, t *task.Running, h TransferFunc) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(errors.New("the server stops")) })()
	out := &transferWriter{ResponseWriter: w}
	c := http.NewResponseController(w)
	c.EnableFullDuplex() // some clients want an answer before they send a body without a true length
	blocked := make(chan struct{})
	unblock := context.AfterFunc(ctx, func() {
		past := time.Unix(1, 0)
		c.SetReadDeadline(past)
		c.SetWriteDeadline(past)
		close(blocked)
	})
	r.Request, r.Task = r.WithContext(ctx), t
	body := &countedBody{ReadCloser: r.Body, tell: api.Sparingly(t), total: float64(r.ContentLength), ended: r.ContentLength == 0}
	r.Body = body
	end := decode(r)
	err := s.runTransfer(h, out, r)
	end()
	left := !body.ended && !out.begun
	if left {
		w.Header().Set("Connection", "close") // what is left in it is no request
	}
	if !unblock() { // the connection can carry an answer yet, but no other request
		<-blocked
		c.SetWriteDeadline(time.Now().Add(lastWord))
		w.Header().Set("Connection", "close")
	}
	s.endTransfer(out, r, t, err)
	if left && (body.err == nil || errors.Is(body.err, os.ErrDeadlineExceeded)) { // which was ours
		s.rests.read(w, body.ReadCloser)
	}
}

// runTransfer makes an error of whatever goes wrong in a handler.
func (s *Server) runTransfer(h TransferFunc, w http.ResponseWriter, r *Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.Log.Error("transfer-panic", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			err = api.ErrInternalError(fmt.Sprint(p))
		}
	}()
	return h(w, r)
}

// endTransfer tells the task and the client how it ended. A client that already
// has part of an answer learns of a failure by the connection's end.
func (s *Server) endTransfer(w *transferWriter, r *Request, t *task.Running, err error) {
	var elsewhere *Elsewhere
	if errors.As(err, &elsewhere) && !w.begun {
		t.Leave()
		r.Redirect(w, elsewhere.Host)
		return
	}
	if err == nil {
		text := ""
		if r.Result != nil {
			text = string(r.Result.AppendValue(nil, api.XML))
		}
		t.Finish(text, nil)
		if !w.begun {
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(http.StatusOK)
		}
		return
	}
	err = s.transferError(r, t, err)
	t.Finish("", err)
	if w.begun {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Connection", "close") // a body may be left in it
	refuse(w, err)
}

func (s *Server) transferError(r *Request, t *task.Running, err error) error {
	var known *api.Error
	switch {
	case errors.Is(context.Cause(t.Context()), api.ErrCancelled):
		return api.ErrTaskCancelled(t.Ref().String())
	case errors.As(err, &known):
		return known
	}
	s.Log.Warn("transfer-failed", "path", r.URL.Path, "remote", r.RemoteAddr, "err", err)
	return api.ErrInternalError(err.Error())
}

// transferWriter knows whether an answer was begun.
type transferWriter struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (w *transferWriter) WriteHeader(status int) {
	w.begun = w.begun || status >= http.StatusOK
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *transferWriter) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *transferWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// countedBody makes a task's progress of how much of an upload has come. How it failed it
// tells again: a connection that was reset reads as one that has ended the next time.
type countedBody struct {
	io.ReadCloser
	tell  func(fraction float64)
	total float64 // less than 0 when nobody knows
	read  float64
	ended bool
	err   error
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	n, b.err = b.ReadCloser.Read(p)
	b.read += float64(n)
	b.ended = b.ended || errors.Is(b.err, io.EOF)
	b.tell(b.read / b.total)
	return n, b.err
}

// errGone is said of a client that nothing was read from or written to when it went.
var errGone = errors.New("it has gone")

// ErrClient is the error of a transfer whose client has gone, by what the network or the
// request's context says of that: no error of a disk, which would be looked into.
func ErrClient(err error) error {
	if errors.Is(err, context.Canceled) {
		err = errGone
	}
	return api.ErrVDIIOError("the client: " + err.Error())
}

// Lasting is a request's context that does not end because the client has gone: what
// it has sent counts, and the body says how it ended.
func Lasting(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if why := context.Cause(ctx); !errors.Is(why, context.Canceled) {
			cancel(why)
		}
	})
	return out, func(err error) { stop(); cancel(err) }
}
