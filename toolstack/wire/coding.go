package wire

import (
	"fmt"
	"net/http"
	"strings"

	"cairn/toolstack/transfer/coding"
)

// codings is what a request says of its body, in however many lines.
func codings(h http.Header) string { return strings.Join(h.Values("Content-Encoding"), ",") }

// decodable tells whether a body comes as it is or in a coding that is known. Whoever
// pretends to know a length ends his stream as no coding does.
func decodable(r *http.Request) bool {
	name := codings(r.Header)
	return name == "" || strings.EqualFold(name, "identity") || coded(r.Header) && r.ContentLength < Pretended
}

func coded(h http.Header) bool { return strings.EqualFold(codings(h), coding.Name) }

// refuseCoding answers a body that nobody could read: what it holds would be taken for a
// disk's bytes.
func (s *Server) refuseCoding(w http.ResponseWriter, r *Request) {
	w.Header().Set("Accept-Encoding", coding.Name)
	s.refuseBody(w, r, http.StatusUnsupportedMediaType, fmt.Errorf("content coding %q of %d bytes", codings(r.Header), r.ContentLength))
}

// decode makes a request's body, and its length, that of what it holds, and returns what
// is to be done after it. No body at all is none in any coding.
func decode(r *Request) (end func()) {
	if !coded(r.Header) || r.ContentLength == 0 {
		return func() {}
	}
	plain := coding.NewBody(r.Body)
	r.Body, r.ContentLength = plain, plain.Size()
	return func() { _ = plain.Reader.Close() } // there is nothing to fail; the body is the server's
}
