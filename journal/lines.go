package journal

import "bytes"

// Lines cuts a stream into lines, whatever pieces it comes in. The zero value is at the
// beginning of one. It is used by one goroutine at a time.
type Lines struct{ rest []byte }

// Cut calls each for every line that p ends, without its newline; what follows the last
// one waits for more.
func (l *Lines) Cut(p []byte, each func(line string)) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return
		}
		l.rest = rest
		each(string(line))
	}
}
