package wire

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// errNoCredentials is answered to a stream's request that names nobody.
var errNoCredentials = &api.Error{Code: api.CodeSessionInvalid, Params: []string{api.NullRef}}

// basicOriginator is what opened the sessions that last as long as a request.
const basicOriginator = "http"

// authenticate finds the session of a stream's request: the one it names in its
// query or a cookie; that of another host of the pool, which knows the pool's
// secret; or one opened for as long as the request lasts, by HTTP Basic, or for root
// on this host.
func (s *Server) authenticate(r *http.Request) (api.SessionRef, func(), error) {
	if id := param(r, "session_id"); id != "" {
		ref := api.SessionRef(api.ParseRef(id))
		return ref, func() {}, s.Sessions.Check(ref)
	}
	ref, err := s.temporarySession(r)
	return ref, func() { s.Sessions.Logout(ref) }, err
}

func (s *Server) temporarySession(r *http.Request) (api.SessionRef, error) {
	if c, err := r.Cookie("pool_secret"); err == nil && s.PoolSession != nil {
		return s.PoolSession(r.Context(), c.Value)
	}
	user, password, ok := r.BasicAuth()
	switch {
	case ok:
		return s.Sessions.Login(r.Context(), user, password, basicOriginator, r.RemoteAddr)
	case fromRoot(r):
		return s.Sessions.LoginRoot(r.Context(), basicOriginator)
	}
	return "", errNoCredentials
}

// param is a parameter of a stream, from the query or else a cookie.
func param(r *http.Request, name string) string {
	if v := r.URL.Query().Get(name); v != "" {
		return v
	}
	if c, err := r.Cookie(name); err == nil {
		return c.Value
	}
	return ""
}

// Authorize asks whether the request's session may use a stream in a way that
// needs a role of its own, such as the console of a host.
func (r *Request) Authorize(action string) error {
	if r.server.AuthorizeHTTP == nil {
		return nil
	}
	return r.server.AuthorizeHTTP(r.Session, action)
}

// Redirect sends the client to the host that can serve it, by the same path.
func (r *Request) Redirect(w http.ResponseWriter, host api.HostRef) {
	address, err := r.server.Locate(host)
	if err != nil {
		refuse(w, err)
		return
	}
	if ip := net.ParseIP(address); ip != nil && ip.To4() == nil {
		address = "[" + address + "]"
	}
	w.Header().Set("Location", "https://"+address+r.URL.RequestURI())
	w.Header().Set("Connection", "close") // the body, if any, belongs there
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusFound)
}

// hostAddress is the address a host's record gives.
func (s *Server) hostAddress(host api.HostRef) (string, error) {
	h, err := db.Get(s.DB.Snapshot(), host)
	if err != nil || h.Address == "" {
		return "", api.ErrHostOffline(host.String())
	}
	return h.Address, nil
}

// refuse answers a stream's request with an error: the code and its parameters
// as text.
func refuse(w http.ResponseWriter, err error) {
	status := statusOf(err)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="Cairn"`)
	}
	text := err.Error() + "\n"
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // or the client has gone
}

func statusOf(err error) int {
	var known *api.Error
	if !errors.As(err, &known) {
		return http.StatusInternalServerError
	}
	switch known.Code {
	case api.CodeSessionInvalid, api.CodeSessionAuthenticationFailed:
		return http.StatusUnauthorized
	case api.CodeRBACPermissionDenied:
		return http.StatusForbidden
	case api.CodeHandleInvalid, api.CodeUUIDInvalid:
		return http.StatusNotFound
	}
	return http.StatusInternalServerError
}
