package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// maxLine cuts a line that never ends, such as a console flooded by noise.
const maxLine = 16 << 10

// maxLines bounds what is kept in memory; the file holds everything.
const maxLines = 100_000

// ErrEnded is returned by waits when the serial port closed, which means QEMU
// is gone, before the awaited line came.
var ErrEnded = errors.New("serial console ended")

// Console is what a host said on its serial port so far. Waits look at the
// lines after the mark, so a line that came before the wait is not missed.
type Console struct {
	name string

	mu      sync.Mutex
	lines   []Line
	mark    int
	ended   bool
	changed chan struct{}
	fatal   []string
	watch   func(Line)
}

func newConsole(name string, watch func(Line)) *Console {
	return &Console{name: name, changed: make(chan struct{}), watch: watch, fatal: []string{"Kernel panic - not syncing"}}
}

// Follow starts a console of its own on any stream, for example the one of a
// guest, and copies the stream to log.
func Follow(name string, r io.Reader, log io.Writer, watch func(Line)) *Console {
	c := newConsole(name, watch)
	go c.follow(r, log)
	return c
}

// follow copies r to the log file and splits it into lines until r ends.
func (c *Console) follow(r io.Reader, log io.Writer) {
	b := bufio.NewReaderSize(io.TeeReader(r, log), maxLine)
	for {
		raw, err := b.ReadSlice('\n')
		if text := clean(raw); text != "" {
			c.add(ParseLine(text))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	close(c.changed)
	c.changed = nil
}

func (c *Console) add(l Line) {
	l.Seen = time.Now()
	c.mu.Lock()
	if len(c.lines) < maxLines {
		l.N = len(c.lines)
		c.lines = append(c.lines, l)
	}
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	if c.watch != nil {
		c.watch(l)
	}
}

// Mark makes later waits ignore everything said so far.
func (c *Console) Mark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mark = len(c.lines)
}

// MarkAfter makes later waits start behind the given line.
func (c *Console) MarkAfter(l Line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mark = l.N + 1
}

// AllowPanic turns off the early failure of waits when the kernel panics.
func (c *Console) AllowPanic() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fatal = nil
}

// Find returns the first line after the mark that matches, if there is one.
func (c *Console) Find(match func(Line) bool) (Line, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok, _ := c.scan(c.mark, match)
	return l, ok
}

// Since says whether event was said after the last start event, whatever the
// mark: for what holds as long as a boot does.
func (c *Console) Since(start, event string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	said := false
	for _, l := range c.lines {
		said = (said || l.Is(event)) && !l.Is(start)
	}
	return said
}

// Event waits for a journal line with this event key and these key=value
// attributes.
func (c *Console) Event(ctx context.Context, event string, attrs ...string) (Line, error) {
	want := strings.Join(append([]string{"event " + event}, attrs...), " ")
	return c.wait(ctx, want, func(l Line) bool { return l.Is(event, attrs...) })
}

// Text waits for a line that contains text.
func (c *Console) Text(ctx context.Context, text string) (Line, error) {
	return c.wait(ctx, fmt.Sprintf("text %q", text), func(l Line) bool { return strings.Contains(l.Text, text) })
}

func (c *Console) wait(ctx context.Context, want string, match func(Line) bool) (Line, error) {
	start, next := time.Now(), -1
	for {
		c.mu.Lock()
		if next < c.mark {
			next = c.mark
		}
		l, ok, fatal := c.scan(next, match)
		next = len(c.lines)
		changed, ended := c.changed, c.ended
		c.mu.Unlock()
		switch {
		case ok:
			return l, nil
		case fatal != "":
			return Line{}, fmt.Errorf("%s: waiting for %s: host said %q", c.name, want, fatal)
		case ended:
			return Line{}, fmt.Errorf("%s: waiting for %s: %w", c.name, want, ErrEnded)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Line{}, fmt.Errorf("%s: no %s after %s: %w", c.name, want, time.Since(start).Round(time.Second), ctx.Err())
		}
	}
}

// scan must be called with the lock held.
func (c *Console) scan(from int, match func(Line) bool) (l Line, ok bool, fatal string) {
	for _, l := range c.lines[min(from, len(c.lines)):] {
		if match(l) {
			return l, true, ""
		}
		for _, f := range c.fatal {
			if strings.Contains(l.Text, f) {
				return Line{}, false, l.Text
			}
		}
	}
	return Line{}, false, ""
}

// Tail returns the last n lines, for a failing test to print.
func (c *Console) Tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, l := range c.lines[max(0, len(c.lines)-n):] {
		b.WriteString(l.Text)
		b.WriteByte('\n')
	}
	return b.String()
}

// Lines returns a copy of everything said so far.
func (c *Console) Lines() []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Line(nil), c.lines...)
}
