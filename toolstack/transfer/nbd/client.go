package nbd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"cairn/toolstack/transfer/disk"
)

// Contexts that servers know. A bitmap's is DirtyBitmap and its name: flag 1 marks
// what has changed. Depth's flags are the number of the layer the bytes are in, 1 being
// the top one, and 0 where there is none.
const (
	Allocation  = "base:allocation"
	DirtyBitmap = "qemu:dirty-bitmap:"
	Depth       = "qemu:allocation-depth"

	zeroFlag = 2 // of Allocation: reads as zeros
)

// Client is an export.
type Client struct {
	ctx    context.Context
	cancel func() bool
	conn   net.Conn
	export
	slots chan struct{}
	gone  chan struct{} // closed when replies end

	sending sync.Mutex
	head    []byte

	mu      sync.Mutex
	pending map[uint64]*call
	cookie  uint64
	err     error // why there are no more replies
}

var _ disk.Device = (*Client)(nil)

// greetLimit is how long a handshake may take, farewell how long taking leave may.
const (
	greetLimit = time.Minute
	farewell   = 5 * time.Second
)

// New opens an export over a connection, which it closes when it fails. The context
// is the disk's: when it ends the connection does. Contexts that the server does not
// know are left out; Allocation is always asked for.
func New(ctx context.Context, conn net.Conn, name string, contexts ...string) (*Client, error) {
	return begin(ctx, conn, nil, name, contexts)
}

// Secure is New over TLS, which begins before anything about an export is said.
func Secure(ctx context.Context, conn net.Conn, config *tls.Config, name string, contexts ...string) (*Client, error) {
	return begin(ctx, conn, config, name, contexts)
}

func begin(ctx context.Context, conn net.Conn, config *tls.Config, name string, contexts []string) (*Client, error) {
	c := &Client{ctx: ctx, conn: conn, slots: make(chan struct{}, inFlight), gone: make(chan struct{}), pending: map[uint64]*call{}}
	c.cancel = context.AfterFunc(ctx, func() { conn.Close() })
	err := conn.SetDeadline(time.Now().Add(greetLimit))
	if err == nil {
		err = hello(conn)
	}
	if err == nil && config != nil {
		c.conn, err = hide(ctx, conn, config)
	}
	if err == nil {
		c.export, err = greet(c.conn, name, append([]string{Allocation}, contexts...))
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		c.cancel()
		return nil, errors.Join(fmt.Errorf("open NBD export %q: %w", name, c.why(err)), conn.Close())
	}
	go c.listen()
	return c, nil
}

// why is the reason of an error that may be only the connection's end.
func (c *Client) why(err error) error {
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("%w: %v", ErrGone, err) // not an end of anything that was read
	}
	return err
}

// listen hands replies to those who wait until the connection ends.
func (c *Client) listen() {
	r := replies{in: bufio.NewReaderSize(c.conn, 64<<10), structured: c.structured, find: c.find}
	for {
		cookie, complete, err := r.next()
		if err != nil {
			c.end(err)
			return
		}
		if complete {
			c.finish(cookie)
		}
	}
}

func (c *Client) find(cookie uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending[cookie]
}

func (c *Client) finish(cookie uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.pending[cookie].done)
	delete(c.pending, cookie)
	<-c.slots
}

// end fails whatever waits.
func (c *Client) end(err error) {
	c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = c.why(err)
	for _, p := range c.pending {
		p.err = c.err
		close(p.done)
	}
	c.pending = nil
	close(c.gone)
}

// begin sends a request and what it brings.
func (c *Client) begin(k *call, data []byte) error {
	if err := context.Cause(c.ctx); err != nil { // the connection may not have noticed yet
		return fmt.Errorf("%s: %w", k, err)
	}
	k.done = make(chan struct{})
	select {
	case c.slots <- struct{}{}:
	case <-c.gone:
	}
	c.mu.Lock()
	if c.pending == nil {
		c.mu.Unlock()
		return fmt.Errorf("%s: %w", k, c.err)
	}
	c.cookie++
	cookie := c.cookie
	c.pending[cookie] = k
	c.mu.Unlock()
	c.sending.Lock()
	defer c.sending.Unlock()
	c.head = appendRequest(c.head[:0], k, cookie)
	all := net.Buffers{c.head}
	if len(data) > 0 {
		all = append(all, data)
	}
	if _, err := all.WriteTo(c.conn); err != nil {
		c.conn.Close() // which ends this call too
	}
	return nil
}

// run makes requests of a kind for the parts of [off, off+n), several at once. data is
// what a write brings or a read fills.
func (c *Client) run(kind uint16, off, n, part int64, data []byte) error {
	if off%c.smallest != 0 || n%c.smallest != 0 {
		return fmt.Errorf("%s %d bytes at %d: not multiples of %d", commands[kind], n, off, c.smallest)
	}
	var begun []*call
	var failed error
	for at := int64(0); at < n && failed == nil; at += part {
		k := &call{kind: kind, off: off + at, length: min(part, n-at)}
		var brings []byte
		switch kind {
		case cmdRead:
			k.buf, k.left = data[at:at+k.length], k.length
		case cmdWrite:
			brings = data[at : at+k.length]
		}
		if failed = c.begin(k, brings); failed == nil {
			begun = append(begun, k)
		}
	}
	for _, k := range begun {
		if err := wait(k); failed == nil {
			failed = err
		}
	}
	return failed
}

func wait(k *call) error {
	if <-k.done; k.err != nil {
		return fmt.Errorf("%s: %w", k, k.err)
	}
	return nil
}

// Size implements disk.Device.
func (c *Client) Size() int64 { return c.size }

// ReadOnly tells whether the server refuses writes.
func (c *Client) ReadOnly() bool { return c.flags&hasReadOnly != 0 }

// ReadAt implements disk.Device; like a file it reads what is left before the end.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.size && off >= 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), c.size-off)
	if err := disk.Within(off, n, c.size); err != nil {
		return 0, err
	}
	if err := c.run(cmdRead, off, n, c.largest, p[:n]); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (c *Client) mayWrite(off, n int64) error {
	if c.ReadOnly() {
		return errors.New("the disk is open for reading only")
	}
	return disk.Within(off, n, c.size)
}

// WriteAt implements disk.Device.
func (c *Client) WriteAt(p []byte, off int64) (int, error) {
	err := c.mayWrite(off, int64(len(p)))
	if err == nil {
		err = c.run(cmdWrite, off, int64(len(p)), c.largest, p)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// zeros are written where the server cannot be told to.
var zeros [step]byte

// Zero implements disk.Device.
func (c *Client) Zero(off, n int64) error {
	if err := c.mayWrite(off, n); err != nil {
		return err
	}
	if c.flags&hasWriteZeroes != 0 {
		return c.run(cmdWriteZeroes, off, n, longStep, nil)
	}
	for end := off + n; off < end; off += step {
		if _, err := c.WriteAt(zeros[:min(step, end-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// Flush implements disk.Device.
func (c *Client) Flush() error {
	if c.flags&hasFlush == 0 {
		return nil
	}
	k := &call{kind: cmdFlush}
	if err := c.begin(k, nil); err != nil {
		return err
	}
	return wait(k)
}

// Close implements disk.Device. The server closes the image after that; what the
// connection says of it is the error.
func (c *Client) Close() error {
	c.cancel()
	if err := c.conn.SetWriteDeadline(time.Now().Add(farewell)); err != nil && c.ctx.Err() == nil {
		c.conn.Close()
	}
	c.sending.Lock()
	_, _ = c.conn.Write(appendRequest(nil, &call{kind: cmdDisconnect}, 0)) // a server that has gone needs no farewell
	c.sending.Unlock()
	err := c.conn.Close()
	<-c.gone
	if errors.Is(err, net.ErrClosed) {
		return nil // who read the server's own farewell was first
	}
	return err
}
