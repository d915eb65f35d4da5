package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"cairn/toolstack/api"
)

// maxBody bounds the body of an RPC.
const maxBody = 300 << 10

// Access says who may use a route.
type Access uint8

// Who may use a route.
const (
	Auth   Access = iota // whoever has a session, or can log in by HTTP Basic
	Public               // anyone
)

// Request is an HTTP request to one of the streams, with its session.
type Request struct {
	*http.Request
	Session api.SessionRef // null for a public route
}

// HandlerFunc serves a stream.
type HandlerFunc func(w http.ResponseWriter, r *Request)

type route struct {
	method, prefix string
	access         Access
	serve          HandlerFunc
}

// Handle adds a route: of those for a request's method, the one with the
// longest prefix of its path is used. Add routes before serving.
func (s *Server) Handle(method, prefix string, access Access, h HandlerFunc) {
	s.routes = append(s.routes, route{method, prefix, access, h})
}

func (s *Server) addRPCRoutes() {
	s.Handle("POST", "/", Public, s.serveXML)
	s.Handle("POST", "/jsonrpc", Public, s.serveJSON)
	for _, p := range []string{"/", "/json", "/jsonrpc"} {
		s.Handle("OPTIONS", p, Public, servePreflight)
	}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	best := -1
	for i := range s.routes {
		t := &s.routes[i]
		if t.method == r.Method && strings.HasPrefix(r.URL.Path, t.prefix) && (best < 0 || len(t.prefix) > len(s.routes[best].prefix)) {
			best = i
		}
	}
	if best < 0 {
		http.NotFound(w, r)
		return
	}
	t := &s.routes[best]
	if t.access == Public {
		t.serve(w, &Request{Request: r})
		return
	}
	session, done, err := s.authenticate(r)
	if err != nil {
		w.Header().Set("WWW-Authenticate", `Basic realm="Cairn"`)
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	defer done()
	t.serve(w, &Request{Request: r, Session: session})
}

// authenticate finds the session of a stream's request: in the query, in a
// cookie, or by logging in for as long as the request lasts.
func (s *Server) authenticate(r *http.Request) (api.SessionRef, func(), error) {
	id := r.URL.Query().Get("session_id")
	if c, err := r.Cookie("session_id"); id == "" && err == nil {
		id = c.Value
	}
	if id != "" {
		ref := api.SessionRef(api.ParseRef(id))
		return ref, func() {}, s.Sessions.Check(ref)
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		return "", nil, errors.New("no session and no credentials")
	}
	ref, err := s.Sessions.Login(r.Context(), user, password, "http")
	return ref, func() { s.Sessions.Logout(ref) }, err
}

func servePreflight(w http.ResponseWriter, _ *Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Headers", "X-Requested-With, Content-Type")
	h.Set("Access-Control-Allow-Methods", "POST, OPTIONS")
	w.WriteHeader(http.StatusOK)
}

// buffers are reused for answers; large ones are left to the collector.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

const maxPooledBuffer = 1 << 20

// answer sends what write appends as the body.
func answer(w http.ResponseWriter, contentType string, write func([]byte) []byte) {
	p := buffers.Get().(*[]byte)
	b := write((*p)[:0])
	h := w.Header()
	h["Content-Type"] = []string{contentType} // exactly: clients compare it
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Headers", "X-Requested-With")
	h.Set("Cache-Control", "no-cache, no-store")
	w.Write(b)
	if cap(b) <= maxPooledBuffer {
		*p = b
		buffers.Put(p)
	}
}

// readBody reads a bounded body; it answers the request itself when it cannot.
func (s *Server) readBody(w http.ResponseWriter, r *Request) ([]byte, bool) {
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close")
		http.Error(w, "request too large", http.StatusRequestEntityTooLarge)
		return nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var large *http.MaxBytesError
		status := http.StatusBadRequest
		if errors.As(err, &large) {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), status)
		return nil, false
	}
	return body, true
}

// malformed answers a body that is no request.
func (s *Server) malformed(w http.ResponseWriter, r *Request, err error) {
	s.Log.Warn("malformed-request", "remote", r.RemoteAddr, "path", r.URL.Path, "err", err)
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(http.StatusInternalServerError)
	io.WriteString(w, "<html><body><h1>500 Internal Server Error</h1>The request could not be read.</body></html>\n")
}

func (s *Server) serveXML(w http.ResponseWriter, r *Request) {
	body, ok := s.readBody(w, r)
	if !ok {
		return
	}
	req, err := parseXMLCall(body)
	if err != nil {
		s.malformed(w, r, err)
		return
	}
	req.remote, req.gone = r.RemoteAddr, r.Context().Done()
	result, err := s.call(req)
	answer(w, "text/xml", func(b []byte) []byte { return appendXMLResponse(b, result, err) })
}

func (s *Server) serveJSON(w http.ResponseWriter, r *Request) {
	body, ok := s.readBody(w, r)
	if !ok {
		return
	}
	req, env, err := parseJSONCall(body)
	if err != nil {
		s.malformed(w, r, err)
		return
	}
	req.remote, req.gone = r.RemoteAddr, r.Context().Done()
	result, err := s.call(req)
	answer(w, "application/json", func(b []byte) []byte { return appendJSONResponse(b, env, result, err) })
}

// NewHTTPServer wraps a handler for the network. HTTP/2 is off: consoles and
// transfers take over their connection. Bodies and answers have no deadline,
// because event.from and transfers last as long as they last.
func NewHTTPServer(h http.Handler, c *tls.Config, log *slog.Logger) *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return &http.Server{
		Handler:           h,
		TLSConfig:         c,
		Protocols:         p,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
