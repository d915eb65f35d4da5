package qga

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

// Client is a conversation with one agent.
type Client struct {
	conn    net.Conn
	lines   splitter
	pending []byte // read, and not yet taken
	buffer  [4096]byte
	id      int64 // of the next handshake
	broken  error
}

// New takes a connection over. Nothing is said before the first handshake.
func New(conn net.Conn) *Client {
	return &Client{conn: conn, id: rand.Int64N(1 << 52)}
}

// Close gives the connection up.
func (c *Client) Close() error { return c.conn.Close() }

// Broken is why the connection is out of step, nil while it is not.
func (c *Client) Broken() error { return c.broken }

// Sync does the handshake. It may wait long: as soon as an agent opens its end of the
// port it finds the question there.
func (c *Client) Sync(ctx context.Context) error {
	c.id++
	line, err := handshake(c.id)
	if err != nil {
		return err
	}
	c.lines.limit = maxHandshake
	return c.during(ctx, "handshake", func() error {
		if _, err := c.conn.Write(line); err != nil {
			return err
		}
		for left := MaxAnswer; ; {
			m, err := c.next(&left)
			if err != nil {
				return err
			}
			if m.delimited && c.answers(m.text) {
				return nil
			}
		}
	})
}

// answers reports whether a line is the answer to the last handshake.
func (c *Client) answers(text []byte) bool {
	result, err := answer(text)
	var id int64
	return err == nil && json.Unmarshal(result, &id) == nil && id == c.id
}

// Ask puts a question and decodes the result into out, unless that is nil.
func (c *Client) Ask(ctx context.Context, command string, arguments, out any) error {
	line, err := question(command, arguments)
	if err != nil {
		return err
	}
	c.lines.limit = MaxAnswer
	return c.during(ctx, command, func() error {
		if _, err := c.conn.Write(line); err != nil {
			return err
		}
		left := MaxAnswer
		m, err := c.next(&left)
		if err != nil {
			return err
		}
		result, err := answer(m.text)
		if err != nil || out == nil {
			return err
		}
		if err := json.Unmarshal(result, out); err != nil {
			return fmt.Errorf("%w: %w", ErrGarbage, err)
		}
		return nil
	})
}

// next is the next line that is not empty; left is what may still be taken in.
func (c *Client) next(left *int) (message, error) {
	for {
		m, n, ok := c.lines.feed(c.pending)
		c.pending = c.pending[n:]
		if *left -= n; *left < 0 {
			return message{}, fmt.Errorf("%w: more than %d bytes", ErrGarbage, MaxAnswer)
		}
		if ok && len(bytes.TrimSpace(m.text)) > 0 {
			return m, nil
		}
		if len(c.pending) > 0 {
			continue
		}
		n, err := c.conn.Read(c.buffer[:])
		if err != nil {
			return message{}, err
		}
		c.pending = c.buffer[:n]
	}
}

// past is a deadline that ends whatever waits.
var past = time.Unix(1, 0)

// during runs one exchange, which ends with the context at the latest.
func (c *Client) during(ctx context.Context, what string, exchange func() error) error {
	if c.broken != nil {
		return fmt.Errorf("%s: out of step: %w", what, c.broken)
	}
	err := ctx.Err()
	if err == nil {
		_ = c.conn.SetDeadline(time.Time{})
		stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(past) })
		err = exchange()
		stop()
	}
	var refusal *Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		return fmt.Errorf("%s: %w", what, err)
	case ctx.Err() != nil:
		err = fmt.Errorf("%w: %w", ErrSilent, context.Cause(ctx))
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = ErrSilent
	case !errors.Is(err, ErrGarbage):
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	c.broken = err
	return fmt.Errorf("%s: %w", what, err)
}
