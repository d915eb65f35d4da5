// Package qmp speaks QEMU's control protocol: one JSON object per line, an
// answer per command, and events in between.
//
// A Client owns its connection. Execute may be called by many goroutines; the
// event callback runs on the reading goroutine, so it must not block and must
// not call Execute. When the connection ends every waiting call fails.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// maxMessage bounds one line; QEMU's longest answer (query-qmp-schema) is
// about 300 KiB.
const maxMessage = 4 << 20

// ErrClosed is returned by calls once QEMU has closed its end.
var ErrClosed = errors.New("qmp: connection closed")

// Event is what QEMU says unasked, for example SHUTDOWN or WATCHDOG.
type Event struct {
	Name string
	Data map[string]any
	Time time.Time
}

// Error is a command QEMU refused.
type Error struct {
	Command, Class, Desc string
}

func (e *Error) Error() string { return fmt.Sprintf("qmp: %s: %s", e.Command, e.Desc) }

// Client is one QMP connection, past its capability handshake.
type Client struct {
	conn    io.ReadWriteCloser
	onEvent func(Event)

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan message
	done    chan struct{}
}

// message is any line QEMU sends; which fields are present tells which kind.
type message struct {
	Greeting *json.RawMessage `json:"QMP"`
	Return   *json.RawMessage `json:"return"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event     string         `json:"event"`
	Data      map[string]any `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
	ID *uint64 `json:"id"`
}

// Connect reads the greeting, leaves negotiation mode and starts reading.
// onEvent may be nil.
func Connect(ctx context.Context, conn io.ReadWriteCloser, onEvent func(Event)) (*Client, error) {
	c := &Client{conn: conn, onEvent: onEvent, waiting: map[uint64]chan message{}, done: make(chan struct{})}
	go c.read()
	if err := c.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Execute runs one command; its result is stored in out unless out is nil.
func (c *Client) Execute(ctx context.Context, command string, args, out any) error {
	id, answer := c.expect()
	defer c.forget(id)
	if err := c.send(command, args, id); err != nil {
		return err
	}
	select {
	case m := <-answer:
		return result(command, m, out)
	case <-c.done:
		return fmt.Errorf("%s: %w", command, ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("qmp: %s: %w", command, ctx.Err())
	}
}

// Human runs a command of the human monitor, for the few answers QMP lacks.
func (c *Client) Human(ctx context.Context, line string) (string, error) {
	var out string
	err := c.Execute(ctx, "human-monitor-command", map[string]any{"command-line": line}, &out)
	return out, err
}

func (c *Client) expect() (uint64, chan message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	ch := make(chan message, 1)
	c.waiting[c.next] = ch
	return c.next, ch
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Client) send(command string, args any, id uint64) error {
	req := map[string]any{"execute": command, "id": id}
	if args != nil {
		req["arguments"] = args
	}
	b, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("qmp: %s: %w", command, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("qmp: %s: %w", command, err)
	}
	return nil
}

func result(command string, m message, out any) error {
	if m.Error != nil {
		return &Error{Command: command, Class: m.Error.Class, Desc: m.Error.Desc}
	}
	if out == nil || m.Return == nil {
		return nil
	}
	if err := json.Unmarshal(*m.Return, out); err != nil {
		return fmt.Errorf("qmp: %s: answer: %w", command, err)
	}
	return nil
}

func (c *Client) read() {
	defer close(c.done)
	s := bufio.NewScanner(c.conn)
	s.Buffer(nil, maxMessage)
	for s.Scan() {
		m, err := parse(s.Bytes())
		if err != nil {
			continue // a torn line costs its answer, not the connection
		}
		c.deliver(m)
	}
}

func (c *Client) deliver(m message) {
	if m.Event != "" {
		if c.onEvent != nil {
			c.onEvent(m.event())
		}
		return
	}
	if m.ID == nil {
		return
	}
	c.mu.Lock()
	ch := c.waiting[*m.ID]
	delete(c.waiting, *m.ID)
	c.mu.Unlock()
	if ch != nil {
		ch <- m
	}
}

func (m message) event() Event {
	t := time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*1000)
	return Event{Name: m.Event, Data: m.Data, Time: t}
}

// parse reads one line of the protocol.
func parse(line []byte) (message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("qmp: %w", err)
	}
	if m.Greeting == nil && m.Return == nil && m.Error == nil && m.Event == "" {
		return message{}, errors.New("qmp: neither answer nor event")
	}
	return m, nil
}
