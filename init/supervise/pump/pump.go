package pump

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	streamQueue = 64 << 10
	maxLine     = 4 << 10 // a longer line is cut into several
	// FileLimit is the size at which a log file is rotated, once.
	FileLimit = 1 << 20
)

// Pump is all log streams of the host.
type Pump struct {
	console io.Writer
	wake    chan struct{}

	mu      sync.Mutex
	streams map[string]*stream
	dir     string
	end     chan struct{} // closed when the writer has ended
	stop    chan struct{}
}

// stream is one service's log.
type stream struct {
	name    string
	q       queue
	pipe    *os.File // write end, given to the service
	drained chan struct{}
	console io.Writer
	file    *logFile // the writer goroutine's own
}

// New makes a pump that copies some streams to console.
func New(console io.Writer) *Pump {
	return &Pump{
		console: console, wake: make(chan struct{}, 1), streams: map[string]*stream{},
		end: make(chan struct{}), stop: make(chan struct{}),
	}
}

// Pipe returns the write end for a service's standard output and error. Each
// call for a name returns the same one, which stays the pump's.
func (p *Pump) Pipe(name string, console bool) (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stream(name)
	if s.pipe != nil {
		return s.pipe, nil
	}
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("log pipe of %s: %w", name, err)
	}
	// Only our end is non-blocking: O_NONBLOCK on the other would be the
	// service's surprise.
	if err := unix.SetNonblock(fd[0], true); err != nil {
		return nil, fmt.Errorf("log pipe of %s: %w", name, err)
	}
	if console {
		s.console = p.console
	}
	s.pipe, s.drained = os.NewFile(uintptr(fd[1]), "log-"+name), make(chan struct{})
	go s.read(os.NewFile(uintptr(fd[0]), "log-"+name))
	return s.pipe, nil
}

// Writer returns a writer of whole lines into a stream, for PID 1's own log.
func (p *Pump) Writer(name string) io.Writer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stream(name)
}

func (p *Pump) stream(name string) *stream {
	s := p.streams[name]
	if s == nil {
		s = &stream{name: name, q: queue{limit: streamQueue, wake: p.wake}}
		p.streams[name] = s
	}
	return s
}

// Write implements io.Writer.
func (s *stream) Write(line []byte) (int, error) {
	s.push(append([]byte(nil), line...))
	return len(line), nil
}

func (s *stream) push(line []byte) {
	s.q.push(line)
	if s.console != nil {
		_, _ = s.console.Write(line)
	}
}

// read moves lines until every write end is closed.
func (s *stream) read(r io.ReadCloser) {
	defer close(s.drained)
	defer r.Close()
	br := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := br.ReadSlice('\n')
		if len(line) > 0 {
			line = append([]byte(nil), line...)
			if line[len(line)-1] != '\n' {
				line = append(line, '\n')
			}
			s.push(line)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// Begin starts writing files in dir. Only the first call counts.
func (p *Pump) Begin(dir string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dir != "" {
		return
	}
	p.dir = dir
	go p.write(dir)
	poke(p.wake)
}

// End closes the pipes, writes what is left in them and closes the files, or
// gives up with ctx: a process that still runs holds its pipe open. No service
// may be started any more.
func (p *Pump) End(ctx context.Context) error {
	p.mu.Lock()
	begun := p.dir != ""
	p.mu.Unlock()
	err := p.drain(ctx)
	if !begun {
		return err
	}
	close(p.stop)
	select {
	case <-p.end:
		return err
	case <-ctx.Done():
		return fmt.Errorf("logs: %w", ctx.Err())
	}
}

// drain waits for the end of every pipe.
func (p *Pump) drain(ctx context.Context) error {
	for _, s := range p.all() {
		if s.pipe == nil {
			continue
		}
		// Nothing is buffered on this side, so closing cannot fail to write.
		_ = s.pipe.Close()
		select {
		case <-s.drained:
		case <-ctx.Done():
			return fmt.Errorf("log pipe of %s: %w", s.name, ctx.Err())
		}
	}
	return nil
}

// write is the one goroutine that touches the disk.
func (p *Pump) write(dir string) {
	defer close(p.end)
	for stopping := false; ; {
		for _, s := range p.all() {
			s.drain(dir)
		}
		if stopping {
			break
		}
		select {
		case <-p.wake:
		case <-p.stop:
			stopping = true
		}
	}
	for _, s := range p.all() {
		s.file.close()
	}
}

func (p *Pump) all() []*stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*stream, 0, len(p.streams))
	for _, s := range p.streams {
		out = append(out, s)
	}
	return out
}

// drain writes the queue. An error costs the lines but not the stream: the file
// is opened again for the next ones.
func (s *stream) drain(dir string) {
	lines := s.q.take()
	if len(lines) == 0 {
		return
	}
	if s.file == nil {
		s.file = &logFile{path: filepath.Join(dir, s.name+".log"), limit: FileLimit}
	}
	for _, line := range lines {
		if err := s.file.write(line); err != nil {
			s.file.close()
			return
		}
	}
}
