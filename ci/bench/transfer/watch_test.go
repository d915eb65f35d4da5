package main

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const text = "71 (a) b (c)) S 7 71 71 0 -1 4194560 1 2 3 4 150 25 300 10 20 0 5 0 99 1 2"
	p, err := parseStat(text)
	if err != nil || p.pid != 71 || p.parent != 7 || p.own != 1750*time.Millisecond || p.children != 3100*time.Millisecond {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "71", "x (a) S 7", "71 (a) S 7 71 71", "71 (a) S x 71 71 0 -1 4194560 1 2 3 4 150 25 300 10 20 0 5"} {
		if p, err := parseStat(bad); err == nil {
			t.Errorf("%q is %+v", bad, p)
		}
	}
}

// TestProcesses: this process descends from its parent, and what is not among a host's
// processes is said to be missing.
func TestProcesses(t *testing.T) {
	all, err := processes(os.Getppid())
	found := false
	for _, p := range all {
		found = found || p.pid == os.Getpid() && p.parent == os.Getppid()
	}
	if err != nil || !found {
		t.Errorf("%+v, %v", all, err)
	}
	if w, err := look(os.Getpid()); err == nil {
		t.Errorf("a host is here: %+v", w)
	}
}
