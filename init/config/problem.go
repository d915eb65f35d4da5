package config

import (
	"fmt"
	"sort"
	"strings"
)

// Problem is one thing wrong with a document.
type Problem struct {
	Line    int    `json:"line"`
	Message string `json:"message"`
}

func (p Problem) String() string { return fmt.Sprintf("line %d: %s", p.Line, p.Message) }

// Problems is the error Parse returns: at least one Problem, by line.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "; ")
}

// maxProblems bounds what is said about one document: beyond a few, the reader
// has the wrong file.
const maxProblems = 10

func (ps Problems) sorted() Problems {
	sort.SliceStable(ps, func(i, j int) bool { return ps[i].Line < ps[j].Line })
	return ps[:min(len(ps), maxProblems)]
}
