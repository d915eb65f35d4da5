// Package journal is the one log line format of every Cairn process:
//
//	time level component event key=value …
//
// The event is a short fixed key such as "service-ready"; everything that
// varies is an attribute. Tests wait for event keys on the serial log, so a key
// is an interface: renaming one is a change of behaviour.
//
// A Logger may be used by many goroutines at once; each line is one Write.
package journal

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// timeFormat has millisecond resolution and is always UTC, so that lines of
// several hosts sort.
const timeFormat = "2006-01-02T15:04:05.000Z"

// New returns a logger whose lines name the given component, for example
// "supervise" or "hostd", and go to w at level Info and above.
func New(w io.Writer, component string) *slog.Logger {
	return NewLevel(w, component, slog.LevelInfo)
}

// NewLevel is New with the lowest level that is written.
func NewLevel(w io.Writer, component string, level slog.Leveler) *slog.Logger {
	return slog.New(&handler{out: &output{w: w}, component: component, level: level})
}

// Discard returns a logger that writes nothing, for tests.
func Discard() *slog.Logger { return New(io.Discard, "discard") }

// output serialises writers; handlers made by WithAttrs share it.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

type handler struct {
	out       *output
	component string
	level     slog.Leveler
	prefix    string // group names, each with a trailing dot
	attrs     string // attributes given by WithAttrs, already rendered
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Time.UTC().Format(timeFormat))
	b.WriteByte(' ')
	b.WriteString(r.Level.String())
	b.WriteByte(' ')
	b.WriteString(h.component)
	b.WriteByte(' ')
	b.WriteString(quote(r.Message))
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.prefix, a)
		return true
	})
	b.WriteByte('\n')
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := io.WriteString(h.out.w, b.String())
	return err
}

// WithAttrs implements slog.Handler. An attribute named "component" replaces
// the component column instead of being added.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	var b strings.Builder
	b.WriteString(h.attrs)
	for _, a := range attrs {
		if a.Key == "component" && h.prefix == "" {
			n.component = a.Value.String()
			continue
		}
		appendAttr(&b, h.prefix, a)
	}
	n.attrs = b.String()
	return &n
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	n := *h
	if name != "" {
		n.prefix += name + "."
	}
	return &n
}

func appendAttr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}):
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, g := range v.Group() {
			appendAttr(b, prefix, g)
		}
	default:
		b.WriteByte(' ')
		b.WriteString(prefix + a.Key)
		b.WriteByte('=')
		b.WriteString(quote(text(v)))
	}
}

// maxText bounds an attribute in bytes: what comes from a client must not push
// everything else out of a log. The longest honest one is a stack.
const maxText = 4 << 10

func text(v slog.Value) string {
	switch v.Kind() {
	case slog.KindDuration:
		return v.Duration().Round(time.Millisecond).String()
	case slog.KindTime:
		return v.Time().UTC().Format(timeFormat)
	}
	s := v.String()
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// quote leaves plain words alone, so that a line reads and greps well, and
// quotes everything that could be mistaken for another column or another line.
func quote(s string) string {
	plain := func(r rune) bool {
		return unicode.IsPrint(r) && r != ' ' && r != '"' && r != '=' && r != unicode.ReplacementChar
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}
