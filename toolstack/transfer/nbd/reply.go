package nbd

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// call is a request and what has come of its answer.
type call struct {
	kind   uint16
	off    int64
	length int64

	buf    []byte            // where a read's bytes go
	left   int64             // bytes of a read that have not come
	status map[uint32][]span // by the context's number
	err    error
	done   chan struct{}
}

// span is a run of bytes of one kind, from where the last one ended.
type span struct{ length, flags uint32 }

func (c *call) String() string {
	return fmt.Sprintf("%s %d bytes at %d", commands[c.kind], c.length, c.off)
}

// appendRequest is a request's head.
func appendRequest(b []byte, c *call, cookie uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, magicRequest)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, c.kind)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, uint64(c.off))
	return binary.BigEndian.AppendUint32(b, uint32(c.length))
}

// replies reads a server's answers.
type replies struct {
	in         *bufio.Reader
	structured bool
	find       func(cookie uint64) *call
}

// next reads one reply or one chunk of it. It returns the cookie of a call whose
// answer is complete; an error means that nothing after it can be understood.
func (r replies) next() (cookie uint64, complete bool, err error) {
	head, err := r.take(4)
	if err != nil {
		return 0, false, err
	}
	switch magic := binary.BigEndian.Uint32(head); {
	case magic == magicSimple:
		return r.simple()
	case magic == magicStructured && r.structured:
		return r.chunk()
	default:
		return 0, false, broken("a reply begins with %08x", magic)
	}
}

// take returns the next n bytes, n being small, until the next call.
func (r replies) take(n int) ([]byte, error) {
	b, err := r.in.Peek(n)
	if err != nil {
		return nil, err
	}
	_, err = r.in.Discard(n)
	return b, err
}

func (r replies) call(cookie uint64) (*call, error) {
	if c := r.find(cookie); c != nil {
		return c, nil
	}
	return nil, broken("a reply to request %d, which nobody made", cookie)
}

func (r replies) simple() (uint64, bool, error) {
	h, err := r.take(12)
	if err != nil {
		return 0, false, err
	}
	number, cookie := binary.BigEndian.Uint32(h), binary.BigEndian.Uint64(h[4:])
	c, err := r.call(cookie)
	if err != nil {
		return 0, false, err
	}
	switch {
	case number != 0:
		c.err = failure(number)
	case c.kind == cmdRead && !r.structured:
		_, err = io.ReadFull(r.in, c.buf)
	case c.kind == cmdRead || c.kind == cmdStatus:
		err = broken("a simple reply to the request to %s", c)
	}
	return cookie, true, err
}

func (r replies) chunk() (uint64, bool, error) {
	h, err := r.take(16)
	if err != nil {
		return 0, false, err
	}
	flags, kind := binary.BigEndian.Uint16(h), binary.BigEndian.Uint16(h[2:])
	cookie, n := binary.BigEndian.Uint64(h[4:]), int64(binary.BigEndian.Uint32(h[12:]))
	c, err := r.call(cookie)
	if err != nil {
		return 0, false, err
	}
	switch {
	case kind&chunkError != 0:
		err = r.failed(c, n)
	case kind == chunkNone && n == 0 && flags&chunkDone != 0:
	case kind == chunkData && c.kind == cmdRead && n > 8:
		err = r.data(c, n-8)
	case kind == chunkHole && c.kind == cmdRead && n == 12:
		err = r.hole(c)
	case kind == chunkStatus && c.kind == cmdStatus && n >= 12 && n%8 == 4 && n <= maxStatus:
		err = r.spans(c, n)
	default:
		err = broken("a chunk of kind %d and %d bytes for the request to %s", kind, n, c)
	}
	complete := flags&chunkDone != 0
	if err == nil && complete && c.err == nil && c.left > 0 {
		err = broken("an answer to the request to %s that lacks %d bytes", c, c.left)
	}
	return cookie, complete, err
}

// part is the place in a read's buffer of n bytes that come for an offset.
func (r replies) part(c *call, n int64) ([]byte, error) {
	h, err := r.take(8)
	if err != nil {
		return nil, err
	}
	at := int64(binary.BigEndian.Uint64(h)) - c.off
	if at < 0 || n <= 0 || n > c.left || at > c.length-n {
		return nil, broken("%d bytes at %d for the request to %s", n, at+c.off, c)
	}
	c.left -= n
	return c.buf[at : at+n], nil
}

func (r replies) data(c *call, n int64) error {
	b, err := r.part(c, n)
	if err == nil {
		_, err = io.ReadFull(r.in, b)
	}
	return err
}

func (r replies) hole(c *call) error {
	h, err := r.in.Peek(12)
	if err != nil {
		return err
	}
	b, err := r.part(c, int64(binary.BigEndian.Uint32(h[8:])))
	if err != nil {
		return err
	}
	clear(b)
	_, err = r.take(4)
	return err
}

func (r replies) spans(c *call, n int64) error {
	h, err := r.take(4)
	if err != nil {
		return err
	}
	id := binary.BigEndian.Uint32(h)
	if len(c.status[id]) > 0 {
		return broken("context %d twice for the request to %s", id, c)
	}
	var list []span
	for range (n - 4) / 8 {
		b, err := r.take(8)
		if err != nil {
			return err
		}
		s := span{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
		if s.length == 0 {
			return broken("an extent of no bytes for the request to %s", c)
		}
		list = append(list, s)
	}
	if c.status == nil {
		c.status = map[uint32][]span{}
	}
	if len(c.status) > maxContexts {
		return broken("more contexts than there are for the request to %s", c)
	}
	c.status[id] = list
	return nil
}

// maxContexts is how many of them one answer may bring.
const maxContexts = 16

// failed reads what went wrong; where in the request is not of interest.
func (r replies) failed(c *call, n int64) error {
	if n < 6 || n > maxMessage {
		return broken("an error of %d bytes for the request to %s", n, c)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r.in, b); err != nil {
		return err
	}
	words := int(binary.BigEndian.Uint16(b[4:]))
	if words > len(b)-6 {
		return broken("an error whose message has %d bytes of %d", words, len(b)-6)
	}
	if c.err != nil {
		return nil
	}
	if c.err = failure(binary.BigEndian.Uint32(b)); words > 0 {
		c.err = fmt.Errorf("%w: %q", c.err, b[6:6+words])
	}
	return nil
}
