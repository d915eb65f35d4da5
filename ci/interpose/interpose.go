// Package interpose stands between a program and the daemons it asks over unix
// sockets, hostd and libvirtd, for tests that kill one of them at every step: it
// gives each question a name and says when it comes, when it is handed on, and
// when its answer comes. Bytes pass unchanged.
//
// A Gate is called by many goroutines at once. Nothing of a connection moves while
// its gate is busy.
package interpose

import (
	"errors"
	"net"
	"os"
	"sync"
)

// Moment is one of a question.
type Moment int

// The moments of a question, in their order. An event has the last one only.
const (
	Asked    Moment = iota // it has come, and nobody else knows it
	Handed                 // it is being handed on
	Answered               // the answer has come, and nobody else knows it
)

func (m Moment) String() string { return [...]string{"before", "during", "after"}[m] }

// Step names a question to a daemon.
type Step struct{ Peer, Name string }

func (s Step) String() string { return s.Peer + " " + s.Name }

// Gate hears of each moment; false ends the connection there and then.
type Gate func(Step, Moment) bool

// Proxy is a socket behind which a daemon is asked.
type Proxy struct {
	target string
	gate   Gate
	l      net.Listener

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]bool
}

func listen(path, target string, gate Gate) (*Proxy, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return &Proxy{target: target, gate: gate, l: l, open: map[net.Conn]bool{}}, nil
}

// hold remembers a connection, so that Close ends it.
func (p *Proxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return false
	}
	p.open[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
	c.Close()
}

// Close ends the socket and all connections.
func (p *Proxy) Close() error {
	err := p.l.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c := range p.open {
		c.Close()
	}
	return err
}
