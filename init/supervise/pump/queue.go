// Package pump carries what services print to their log files and to the
// console.
//
//	service ──pipe──▶ reader ──▶ queue ──▶ writer ──▶ /var/log/<name>.log (+ .1)
//	                       └───▶ queue ──▶ writer ──▶ console
//
// Invariants:
//   - A reader only ever moves memory, so a service is never held up by a slow
//     disk or a stopped terminal, and neither is PID 1.
//   - Memory is bounded: a full queue drops its oldest lines, counts them, and
//     the count is written where they would have been.
//   - A pipe lives as long as PID 1 and is given to each start of its service,
//     so what outlives a service can still print.
//   - Files begin when the log directory is there; until then the queue holds
//     the newest lines of the boot.
//
// A Pump's methods may be called by any goroutine.
package pump

import (
	"fmt"
	"sync"
)

// queue is a bounded list of lines.
type queue struct {
	mu      sync.Mutex
	lines   [][]byte
	size    int
	limit   int
	dropped int
	wake    chan<- struct{}
}

// push adds a line, which it keeps, and makes room by dropping the oldest.
func (q *queue) push(line []byte) {
	q.mu.Lock()
	q.lines = append(q.lines, line)
	q.size += len(line)
	for q.size > q.limit && len(q.lines) > 1 {
		q.size -= len(q.lines[0])
		q.lines = q.lines[1:]
		q.dropped++
	}
	q.mu.Unlock()
	poke(q.wake)
}

// take empties the queue. Dropped lines come out as one line that says so.
func (q *queue) take() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	lines := q.lines
	if q.dropped > 0 {
		lines = append([][]byte{fmt.Appendf(nil, "log-dropped lines=%d\n", q.dropped)}, lines...)
	}
	q.lines, q.size, q.dropped = nil, 0, 0
	return lines
}

// poke wakes a reader of a channel with room for one; a second poke before it
// looks is the same poke.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
