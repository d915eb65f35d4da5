package pump

import (
	"context"
	"io"
)

// consoleQueue is what is kept for a console that does not take it.
const consoleQueue = 256 << 10

// Console is a writer that never blocks: lines wait in a bounded queue for a
// terminal that may be slow or stopped.
type Console struct {
	q     queue
	wake  chan struct{}
	flush chan chan struct{}
}

// NewConsole starts the goroutine that writes to w. It ends never: PID 1 has a
// console as long as it lives.
func NewConsole(w io.Writer) *Console {
	c := &Console{wake: make(chan struct{}, 1), flush: make(chan chan struct{})}
	c.q = queue{limit: consoleQueue, wake: c.wake}
	go c.run(w)
	return c
}

// Write implements io.Writer for whole lines.
func (c *Console) Write(p []byte) (int, error) {
	c.q.push(append([]byte(nil), p...))
	return len(p), nil
}

// Flush waits until everything pushed before has been written, or for ctx.
func (c *Console) Flush(ctx context.Context) {
	done := make(chan struct{})
	select {
	case c.flush <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (c *Console) run(w io.Writer) {
	for {
		var done chan struct{}
		select {
		case <-c.wake:
		case done = <-c.flush:
		}
		for _, line := range c.q.take() {
			// A console that fails has nobody to tell.
			_, _ = w.Write(line)
		}
		if done != nil {
			close(done)
		}
	}
}
