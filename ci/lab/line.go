package lab

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Line is one line of a serial console. The journal's fields are empty when
// the kernel, the firmware or a guest wrote it.
type Line struct {
	N     int       // position on this console
	Seen  time.Time // when the lab read it
	Text  string
	Level string

	Component string
	Event     string
	Attrs     map[string]string
}

// stamp finds a journal line even behind a prompt or half a kernel line.
var stamp = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARN|ERROR)([+-]\d+)? `)

// escapes are the terminal control sequences firmware and shells write.
var escapes = regexp.MustCompile("\x1b(\\[[0-9;?=]*[@-~]|[()][A-Z0-9]|[=>A-Za-z])")

// clean removes line ends and terminal control from raw console bytes.
func clean(raw []byte) string {
	s := escapes.ReplaceAllString(string(raw), "")
	s = strings.Map(func(r rune) rune {
		if r == '\t' || r >= ' ' && r != 0x7f {
			return r
		}
		return -1
	}, s)
	return strings.TrimRight(s, " \t")
}

// ParseLine reads a console line: `time level component event key=value …` of
// package journal, or any other text.
func ParseLine(text string) Line {
	l := Line{Text: text}
	at := stamp.FindStringSubmatchIndex(text)
	if at == nil {
		return l
	}
	component, rest, ok := strings.Cut(text[at[1]:], " ")
	event, rest, valid := token(rest)
	if !ok || !valid || component == "" {
		return l
	}
	attrs := map[string]string{}
	for rest != "" {
		key, tail, ok := strings.Cut(strings.TrimLeft(rest, " "), "=")
		if !ok || key == "" || strings.ContainsAny(key, " \"") {
			break // trailing noise, for example a kernel line glued on
		}
		value, tail, ok := token(tail)
		if !ok {
			break
		}
		attrs[key], rest = value, tail
	}
	l.Level, l.Component, l.Event, l.Attrs = text[at[2]:at[3]], component, event, attrs
	return l
}

// token takes one word or one quoted string from the front of s.
func token(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest, _ = strings.Cut(s, " ")
		return value, rest, value != "" && !strings.Contains(value, `"`)
	}
	q, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", "", false
	}
	value, err = strconv.Unquote(q)
	return value, strings.TrimPrefix(s[len(q):], " "), err == nil
}

// Is reports whether the line has this event key and all these key=value
// attributes.
func (l Line) Is(event string, attrs ...string) bool {
	if l.Event != event {
		return false
	}
	for _, a := range attrs {
		key, want, _ := strings.Cut(a, "=")
		if got, ok := l.Attrs[key]; !ok || got != want {
			return false
		}
	}
	return true
}

// Seconds reads an attribute that holds seconds, such as uptime.
func (l Line) Seconds(key string) (float64, error) {
	return strconv.ParseFloat(strings.TrimSuffix(l.Attrs[key], "s"), 64)
}
