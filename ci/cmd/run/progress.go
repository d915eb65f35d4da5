package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"cairn/ci/lab"
)

// progress writes one line for each thing achieved and, on a terminal, keeps a
// last line that says what is being waited for. Without a terminal the waiting
// is said again every quarter of a minute, so that a log shows where time goes.
type progress struct {
	w        io.Writer
	terminal bool
	start    time.Time
	quit     chan struct{}
	ended    sync.WaitGroup
	once     sync.Once

	mu      sync.Mutex
	waiting string
	since   time.Time
	last    string // newest sign of life of the host
}

// repeat is how often waiting is said where it cannot be drawn in place.
const repeat = 15 * time.Second

func newProgress(f *os.File) *progress {
	p := &progress{w: f, terminal: term.IsTerminal(int(f.Fd())), start: time.Now(), quit: make(chan struct{})}
	every := repeat
	if p.terminal {
		every = time.Second
	}
	p.ended.Add(1)
	go p.tick(time.NewTicker(every))
	return p
}

func (p *progress) tick(t *time.Ticker) {
	defer p.ended.Done()
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		case <-p.quit:
			return
		}
	}
}

// draw says what is waited for; the lock is held.
func (p *progress) draw() {
	if p.waiting == "" {
		return
	}
	end := "\n"
	if p.terminal {
		end = "\r"
	}
	fmt.Fprintf(p.w, "%s%s waiting for %s, %.0f s so far; last: %s%s",
		p.erase(), p.stamp(), p.waiting, time.Since(p.since).Seconds(), p.last, end)
}

func (p *progress) erase() string {
	if p.terminal {
		return "\r\x1b[K"
	}
	return ""
}

func (p *progress) stamp() string { return fmt.Sprintf("%6.1f s ", time.Since(p.start).Seconds()) }

// expect says what comes next.
func (p *progress) expect(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting, p.since, p.last = what, time.Now(), "-"
}

// done reports something achieved.
func (p *progress) done(what, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = ""
	p.print(what, detail)
}

// quote reports somebody's own words.
func (p *progress) quote(who, words string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print(who+" says", words)
}

func (p *progress) print(what, detail string) {
	if detail != "" {
		what += ": " + detail
	}
	fmt.Fprintf(p.w, "%s%s %s\n", p.erase(), p.stamp(), what)
}

// milestones are the host's events worth a line of their own.
var milestones = map[string]bool{
	"stage1-start": true, "root-mounted": true, "pid1-start": true, "network-up": true, "host-ready": true,
}

// line takes in a line of the host's console.
func (p *progress) line(l lab.Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case l.Event == "":
		return
	case l.Event == "service-ready":
		p.last = "service-ready " + l.Attrs["name"]
	default:
		p.last = l.Event
	}
	if milestones[l.Event] || l.Level == "WARN" || l.Level == "ERROR" {
		p.print("host says", tidy(l))
	}
}

// tidy drops the host's own time stamp.
func tidy(l lab.Line) string {
	text := l.Level + " " + l.Component + " " + l.Event
	for _, key := range []string{"uptime", "addr", "service", "name", "slot", "reason", "err"} {
		if v, ok := l.Attrs[key]; ok {
			text += " " + key + "=" + v
		}
	}
	return text
}

// stop ends the drawing; it may be called again.
func (p *progress) stop() {
	p.once.Do(func() { close(p.quit) })
	p.ended.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = ""
	fmt.Fprint(p.w, p.erase())
}
