package modules

import (
	"slices"
	"strings"
	"sync"
)

// index finds the patterns of modules.alias that match a device. Patterns that
// begin with a literal bus name and a colon, nearly all of them, are looked up
// by it; the others ("acpi*:…") are tried for every device.
//
// The text is read on first use: who loads modules by name never needs it.
type index struct {
	text  string
	once  sync.Once
	byBus map[string][]alias
	loose []alias
}

type alias struct {
	pattern string
	module  string
}

func (x *index) parse(text string) { x.text = text }

func (x *index) read() {
	x.byBus = map[string][]alias{}
	for line := range lines(x.text) {
		line, ok := strings.CutPrefix(line, "alias ")
		pattern, module, two := strings.Cut(line, " ")
		if !ok || !two || strings.Contains(module, " ") {
			continue
		}
		a := alias{pattern: pattern, module: module}
		i := strings.IndexAny(pattern, ":*?[")
		if i > 0 && pattern[i] == ':' {
			x.byBus[pattern[:i]] = append(x.byBus[pattern[:i]], a)
		} else {
			x.loose = append(x.loose, a)
		}
	}
}

// buses lists the literal heads of all patterns, up to a colon or wildcard.
func (x *index) buses() []string {
	x.once.Do(x.read)
	var names []string
	for name := range x.byBus {
		names = append(names, name)
	}
	for _, a := range x.loose {
		if i := strings.IndexAny(a.pattern, ":*?["); i > 0 {
			names = append(names, a.pattern[:i])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// match returns module names, in the order of the index, each once.
func (x *index) match(modalias string) []string {
	x.once.Do(x.read)
	bus, _, _ := strings.Cut(modalias, ":")
	var names []string
	seen := map[string]bool{}
	for _, list := range [][]alias{x.byBus[bus], x.loose} {
		for _, a := range list {
			if !seen[a.module] && glob(a.pattern, modalias) {
				seen[a.module] = true
				names = append(names, moduleName(a.module))
			}
		}
	}
	return names
}

// glob matches the patterns of modules.alias: *, ? and [sets]. It backtracks
// only to the last star, so its time is bounded by the product of the lengths.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, i
			p++
			continue
		}
		if n, ok := one(pattern[p:], s[i]); ok {
			p += n
			i++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, i = star+1, mark
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// one matches one byte against the head of a pattern and returns how much of
// the pattern that took.
func one(pattern string, c byte) (int, bool) {
	switch {
	case pattern == "":
		return 0, false
	case pattern[0] == '?':
		return 1, true
	case pattern[0] != '[':
		return 1, pattern[0] == c
	}
	end := strings.IndexByte(pattern, ']')
	if end < 0 {
		return 1, c == '['
	}
	return end + 1, inSet(pattern[1:end], c)
}

func inSet(set string, c byte) bool {
	want := true
	if strings.HasPrefix(set, "!") || strings.HasPrefix(set, "^") {
		set, want = set[1:], false
	}
	for i := 0; i < len(set); i++ {
		low, high := set[i], set[i]
		if i+2 < len(set) && set[i+1] == '-' {
			high = set[i+2]
			i += 2
		}
		if low <= c && c <= high {
			return want
		}
	}
	return !want
}
