package wire

import (
	"context"
	"io"
	"net/http"
	"time"
)

const (
	// restTimeout is how long what is left of a body is read.
	restTimeout = 15 * time.Second
	// maxRests is of how many at once: the others are cut off.
	maxRests = 64
)

// rests reads what clients go on sending after they were answered. Many look for an answer
// only when they have sent all, and a connection that is closed with something unread in
// it takes the answer along.
type rests struct {
	slots   chan struct{}
	limit   time.Duration
	stopped context.Context
}

// read sends out an answer of a known length, after which the connection is closed, and
// throws away what is left of the request's body until that ends, or the client goes, or
// the time is over.
func (l *rests) read(w http.ResponseWriter, body io.Reader) {
	select {
	case l.slots <- struct{}{}:
	default:
		return
	}
	defer func() { <-l.slots }()
	c := http.NewResponseController(w)
	c.SetWriteDeadline(time.Now().Add(lastWord))
	if c.Flush() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(l.limit))
	defer context.AfterFunc(l.stopped, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
	_, _ = io.Copy(io.Discard, body) // nobody is told any more
}

// dismiss refuses a stream's request before its body was looked at.
func (s *Server) dismiss(w http.ResponseWriter, r *http.Request, err error) {
	if r.ContentLength == 0 {
		refuse(w, err)
		return
	}
	http.NewResponseController(w).EnableFullDuplex() // the body is read after the answer
	w.Header().Set("Connection", "close")
	refuse(w, err)
	s.rests.read(w, r.Body)
}
