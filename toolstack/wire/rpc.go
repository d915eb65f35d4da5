package wire

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"cairn/toolstack/api"
)

const (
	// maxBody bounds the body of a message.
	maxBody = 300 << 10
	// defaultBodyTimeout is how long a client may take to send one.
	defaultBodyTimeout = 30 * time.Second
	// defaultPieceTimeout is how long a client may take to receive one
	// piece of an answer.
	defaultPieceTimeout = time.Minute
	// piece is how much of an answer is gathered before it is sent.
	piece = 64 << 10
)

// flushFunc takes what was appended so far when that is enough for a piece; it
// returns the buffer to go on with.
type flushFunc func(b []byte) []byte

func appendResult(b []byte, e api.Encoding, r api.Result, flush flushFunc) []byte {
	if long, ok := r.(api.LongResult); ok {
		return long.AppendPieces(b, e, flush)
	}
	return r.AppendValue(b, e)
}

// buffers are reused for answers; large ones are left to the collector.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

const maxPooledBuffer = 4 * piece

// answer sends a body that may be longer than the memory it is given: what does
// not fit into a piece goes out in pieces, without a length.
type answer struct {
	w       http.ResponseWriter
	c       *http.ResponseController
	timeout time.Duration
	begun   bool
	err     error
}

// send writes what encode appends as the body.
func (s *Server) send(w http.ResponseWriter, contentType string, encode func(b []byte, flush flushFunc) []byte) {
	h := w.Header()
	h["Content-Type"] = []string{contentType} // exactly: clients compare it
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Headers", "X-Requested-With")
	h.Set("Cache-Control", "no-cache, no-store")
	p := buffers.Get().(*[]byte)
	a := &answer{w: w, c: http.NewResponseController(w), timeout: s.PieceTimeout}
	b := encode((*p)[:0], a.flush)
	if !a.begun {
		h.Set("Content-Length", strconv.Itoa(len(b)))
	}
	a.write(b)
	if a.err == nil {
		a.c.Flush()
	}
	a.c.SetWriteDeadline(time.Time{})
	if cap(b) <= maxPooledBuffer {
		*p = b
		buffers.Put(p)
	}
}

// flush implements flushFunc. The last byte stays behind: encoders look at it
// to know whether a comma is due.
func (a *answer) flush(b []byte) []byte {
	if len(b) < piece {
		return b
	}
	last := len(b) - 1
	a.write(b[:last])
	return append(b[:0], b[last])
}

func (a *answer) write(b []byte) {
	a.begun = true
	if a.err == nil {
		a.c.SetWriteDeadline(time.Now().Add(a.timeout))
		_, a.err = a.w.Write(b)
	}
}

// readBody reads a bounded body; it answers the request itself when it cannot.
func (s *Server) readBody(w http.ResponseWriter, r *Request) ([]byte, bool) {
	if r.ContentLength > maxBody {
		s.refuseBody(w, r, http.StatusRequestEntityTooLarge, errors.New("request too large"))
		return nil, false
	}
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Now().Add(s.BodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		c.SetReadDeadline(time.Time{})
		return body, true
	}
	status := http.StatusBadRequest
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		status = http.StatusRequestTimeout
	}
	s.refuseBody(w, r, status, err)
	return nil, false
}

// refuseBody answers a request whose body is not read to its end, so that
// nothing on this connection can follow.
func (s *Server) refuseBody(w http.ResponseWriter, r *Request, status int, err error) {
	s.Log.Warn("request-refused", "remote", r.RemoteAddr, "path", r.URL.Path, "status", status, "err", err)
	w.Header().Set("Connection", "close")
	http.Error(w, http.StatusText(status), status)
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
	req.from(r)
	result, err := s.call(req)
	s.send(w, "text/xml", func(b []byte, flush flushFunc) []byte { return appendXMLResponse(b, result, err, flush) })
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
	req.from(r)
	result, err := s.call(req)
	s.send(w, "application/json", func(b []byte, flush flushFunc) []byte {
		return appendJSONResponse(b, env, result, err, flush)
	})
}
