package console

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// tailLength is how much of what a guest has said a new viewer sees first:
	// some screens, enough for a kernel's last words before a panic.
	tailLength = 32 << 10
	// lagLimit is what a viewer may lag behind before it is cut off.
	lagLimit = 256 << 10
	// typeTimeout: a guest that does not read its serial port loses what is typed,
	// as on a real one.
	typeTimeout = 2 * time.Second
)

// errLag cuts off a viewer that does not read.
var errLag = errors.New("the viewer does not keep up")

// hub is one guest's console. It reads without pause, so no viewer can stall the
// guest, and hands everybody the same bytes.
type hub struct {
	conn net.Conn

	mu      sync.Mutex
	tail    []byte
	viewers map[*viewer]bool
	ended   bool

	typing sync.Mutex // one viewer's keys at a time
}

func newHub(conn net.Conn) *hub { return &hub{conn: conn, viewers: map[*viewer]bool{}} }

// run reads until the guest's end is gone, then lets all viewers go.
func (h *hub) run() {
	b := make([]byte, 8<<10)
	for {
		n, err := h.conn.Read(b)
		h.say(b[:n])
		if err != nil {
			break
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	for v := range h.viewers {
		v.finish(io.EOF)
	}
	h.conn.Close()
}

func (h *hub) say(p []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tail = appendTail(h.tail, p)
	for v := range h.viewers {
		v.add(p)
	}
}

// appendTail keeps the end, and moves bytes only when twice that has gathered.
func appendTail(tail, p []byte) []byte {
	tail = append(tail, p...)
	if len(tail) > 2*tailLength {
		n := copy(tail, tail[len(tail)-tailLength:])
		tail = tail[:n]
	}
	return tail
}

// join adds a viewer, who sees the tail first. When he is cut off, cut is told, if it
// is not nil; it must not wait.
func (h *hub) join(cut func(error)) (*viewer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return nil, net.ErrClosed
	}
	v := &viewer{more: make(chan struct{}, 1), cut: cut}
	v.add(h.tail[max(0, len(h.tail)-tailLength):])
	h.viewers[v] = true
	return v, nil
}

func (h *hub) leave(v *viewer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.viewers, v)
}

// enter sends keys to the guest.
func (h *hub) enter(p []byte) error {
	h.typing.Lock()
	defer h.typing.Unlock()
	_ = h.conn.SetWriteDeadline(time.Now().Add(typeTimeout))
	_, err := h.conn.Write(p)
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return nil
	}
	return err
}

// viewer is the queue of one client.
type viewer struct {
	mu    sync.Mutex
	queue []byte
	err   error         // why it ends; what is queued is still read before
	more  chan struct{} // capacity 1
	cut   func(error)
}

func (v *viewer) add(p []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return
	}
	if len(v.queue)+len(p) > lagLimit {
		v.queue, v.err = nil, errLag
		if v.cut != nil {
			v.cut(errLag) // whoever passes bytes on may be stuck in it
		}
	} else {
		v.queue = append(v.queue, p...)
	}
	v.signal()
}

// finish ends the viewer; the first reason counts.
func (v *viewer) finish(why error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err == nil {
		v.err = why
	}
	v.signal()
}

func (v *viewer) signal() {
	select {
	case v.more <- struct{}{}:
	default:
	}
}

// next waits for bytes; an error comes after the last of them.
func (v *viewer) next() ([]byte, error) {
	for {
		v.mu.Lock()
		p, err := v.queue, v.err
		v.queue = nil
		v.mu.Unlock()
		if len(p) > 0 {
			return p, nil
		}
		if err != nil {
			return nil, err
		}
		<-v.more
	}
}

// terminal is a viewer at its hub.
type terminal struct {
	h *hub
	v *viewer
}

// next implements guest.
func (t *terminal) next() ([]byte, error) { return t.v.next() }

// enter implements guest: whatever is typed is a sign of life.
func (t *terminal) enter(p []byte) (bool, error) { return true, t.h.enter(p) }

// close implements guest.
func (t *terminal) close(err error) {
	t.h.leave(t.v)
	t.v.finish(err)
}
