package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"cairn/init/debug"
)

// channel is the lab's end of a host's debug channel. The host's end announces
// itself when it opens the port; what is sent before is lost, so requests wait
// for it, and again after each reset.
type channel struct {
	conn net.Conn
	one  sync.Mutex // held for one request and its answer
	next int

	mu      sync.Mutex
	ready   chan struct{} // closed once the host listens
	answers chan debug.Answer
}

func newChannel(conn net.Conn) *channel {
	c := &channel{conn: conn, ready: make(chan struct{}), answers: make(chan debug.Answer, 1)}
	go c.read()
	return c
}

// read takes in answers until the port ends; what is no answer is noise of the
// firmware or of a port not yet raw.
func (c *channel) read() {
	defer close(c.answers)
	in := bufio.NewReader(c.conn)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var a debug.Answer
		switch {
		case json.Unmarshal(line, &a) != nil:
		case a.ID == debug.Ready:
			c.announce()
		default:
			c.answers <- a
		}
	}
}

func (c *channel) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
}

// reset forgets that the host listened.
func (c *channel) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ready:
		c.ready = make(chan struct{})
	default:
	}
}

func (c *channel) listening() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

func (c *channel) ask(ctx context.Context, verb string, args []string) (debug.Answer, error) {
	c.one.Lock()
	defer c.one.Unlock()
	select {
	case <-c.listening():
	case <-ctx.Done():
		return debug.Answer{}, fmt.Errorf("nobody listens: %w", ctx.Err())
	}
	c.next++
	b, err := json.Marshal(debug.Request{ID: c.next, Verb: verb, Args: args})
	if err != nil {
		return debug.Answer{}, err
	}
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		return debug.Answer{}, err
	}
	return c.answer(ctx)
}

// answer skips answers to requests that were given up.
func (c *channel) answer(ctx context.Context) (debug.Answer, error) {
	for {
		select {
		case a, ok := <-c.answers:
			switch {
			case !ok:
				return a, errors.New("the port is closed")
			case a.ID == c.next && a.Error != "":
				return a, errors.New(a.Error)
			case a.ID == c.next:
				return a, nil
			}
		case <-ctx.Done():
			return debug.Answer{}, fmt.Errorf("no answer: %w", ctx.Err())
		}
	}
}

// Debug asks the host's debug channel to do something; see package
// init/debug for the verbs. The host must have been started with Config.Debug.
func (h *Host) Debug(ctx context.Context, verb string, args ...string) (debug.Answer, error) {
	if h.debug == nil {
		return debug.Answer{}, errors.New("lab: host was started without its debug channel")
	}
	a, err := h.debug.ask(ctx, verb, args)
	if err != nil {
		return a, fmt.Errorf("%s: debug %s %s: %w", h.cfg.Name, verb, strings.Join(args, " "), err)
	}
	return a, nil
}

// Process returns the process of the host whose program name is given; the
// oldest, if there are several.
func (h *Host) Process(ctx context.Context, name string) (debug.Process, error) {
	a, err := h.Debug(ctx, "processes")
	if err != nil {
		return debug.Process{}, err
	}
	for _, p := range a.Processes {
		if p.Name == name {
			return p, nil
		}
	}
	return debug.Process{}, fmt.Errorf("%s: no process %s among %d", h.cfg.Name, name, len(a.Processes))
}

// Kill sends SIGKILL to a process of the host, by program name.
func (h *Host) Kill(ctx context.Context, name string) (debug.Process, error) {
	p, err := h.Process(ctx, name)
	if err == nil {
		_, err = h.Debug(ctx, "kill", strconv.Itoa(p.PID), strconv.Itoa(int(syscall.SIGKILL)))
	}
	return p, err
}
