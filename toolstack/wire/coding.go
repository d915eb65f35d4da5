package wire

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"cairn/toolstack/transfer/coding"
)

// decodable tells whether a body comes as it is or in a coding that is known.
func decodable(h http.Header) bool {
	name := h.Get("Content-Encoding")
	return name == "" || strings.EqualFold(name, "identity") || coded(h)
}

func coded(h http.Header) bool { return strings.EqualFold(h.Get("Content-Encoding"), coding.Name) }

// refuseCoding answers a body that nobody could read: what it holds would be taken for a
// disk's bytes.
func (s *Server) refuseCoding(w http.ResponseWriter, r *Request) {
	w.Header().Set("Accept-Encoding", coding.Name)
	s.refuseBody(w, r, http.StatusUnsupportedMediaType, fmt.Errorf("content coding %q", r.Header.Get("Content-Encoding")))
}

// decode makes a request's body what it holds, and returns what is to be done after it.
func decode(r *Request) (end func()) {
	if !coded(r.Header) {
		return func() {}
	}
	plain := coding.NewReader(r.Body)
	r.Body, r.ContentLength = uncoded{plain, r.Body}, -1
	return func() { _ = plain.Close() } // there is nothing to fail
}

// uncoded reads from the first and closes the second.
type uncoded struct {
	*coding.Reader
	body io.Closer
}

// Close implements io.Closer.
func (u uncoded) Close() error { return u.body.Close() }
