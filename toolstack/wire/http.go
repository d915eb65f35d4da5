package wire

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/transfer/coding"
)

// Access says who may use a route.
type Access uint8

// Who may use a route.
const (
	Auth   Access = iota // whoever has a session, or can log in for this request
	Public               // anyone
)

// Request is an HTTP request to one of the streams, with its session.
type Request struct {
	*http.Request
	Session api.SessionRef // null for a public route
	// Task is the task of a transfer, nil for other routes. Its context is
	// the request's.
	Task api.Progress
	// Result may be set by a transfer: what its task has as its result.
	Result api.Result

	server *Server
}

// HandlerFunc serves a stream.
type HandlerFunc func(w http.ResponseWriter, r *Request)

type route struct {
	method, prefix string
	access         Access
	action         *api.HTTPAction // nil where no role is asked for
	serve          HandlerFunc
}

// Handle adds a route: of those for a request's method, the one with the
// longest prefix of its path is used. The role it needs is that of the action
// described for the method and path, if there is one. Add routes before
// serving.
func (s *Server) Handle(method, prefix string, access Access, h HandlerFunc) {
	t := route{method: method, prefix: prefix, access: access, serve: h}
	if a := api.FindHTTPAction(method, prefix); a != nil && a.Checked && access == Auth {
		t.action = a
	}
	s.routes = append(s.routes, t)
}

func (s *Server) addRPCRoutes() {
	s.Handle("POST", "/", Public, s.serveXML)
	s.Handle("POST", "/jsonrpc", Public, s.serveJSON)
	for _, p := range []string{"/", "/json", "/jsonrpc"} {
		s.Handle("OPTIONS", p, Public, servePreflight)
	}
}

// match finds the route of a request, or nil. A HEAD asks for what GET would
// answer, but only where that costs nothing: a transfer is not begun for it.
func (s *Server) match(method, path string) *route {
	var best *route
	for i := range s.routes {
		t := &s.routes[i]
		if t.method == method && strings.HasPrefix(path, t.prefix) && (best == nil || len(t.prefix) > len(best.prefix)) {
			best = t
		}
	}
	if best == nil && method == http.MethodHead {
		if get := s.match(http.MethodGet, path); get != nil && get.access == Public {
			return get
		}
	}
	return best
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := s.match(r.Method, r.URL.Path)
	if t == nil {
		s.noRoute(w, r)
		return
	}
	req := &Request{Request: r, server: s}
	if t.access == Public {
		t.serve(w, req)
		return
	}
	session, done, err := s.authenticate(r)
	if err != nil {
		s.dismiss(w, r, err)
		return
	}
	defer done()
	req.Session = session
	if t.action != nil {
		if err := req.Authorize(t.action.Name); err != nil {
			s.dismiss(w, r, err)
			return
		}
	}
	t.serve(w, req)
}

// noRoute answers what nobody serves, and says when another method would do.
func (s *Server) noRoute(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for i := range s.routes {
		if t := &s.routes[i]; t.prefix != "/" && strings.HasPrefix(r.URL.Path, t.prefix) && !slices.Contains(allow, t.method) {
			allow = append(allow, t.method)
		}
	}
	if len(allow) == 0 {
		http.NotFound(w, r)
		return
	}
	slices.Sort(allow)
	w.Header().Set("Allow", strings.Join(allow, ", "))
	http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
}

func servePreflight(w http.ResponseWriter, _ *Request) {
	h := w.Header()
	h.Set("Accept-Encoding", coding.Name) // of what is sent to a transfer
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Headers", "X-Requested-With, Content-Type")
	h.Set("Access-Control-Allow-Methods", "POST, OPTIONS")
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// NewHTTPServer wraps a handler for the network. HTTP/2 is off: consoles and
// transfers take over their connection. Transfers and event.from have no
// deadline, because they last as long as they last; messages have one for
// their body and one for each piece of their answer.
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
