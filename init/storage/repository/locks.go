package repository

import (
	"context"
	"fmt"
	"sync"

	"cairn/init/hostd/client"
)

// need is a name that a verb reads, or writes and so has for itself.
type need struct {
	name  string
	write bool
}

func reads(names ...string) []need { return needs(false, names) }

func writes(names ...string) []need { return needs(true, names) }

func needs(write bool, names []string) []need {
	var out []need
	for _, n := range names {
		out = append(out, need{n, write})
	}
	return out
}

// locks hands out names. All that a verb needs it gets at once, so that two verbs
// never wait for each other.
type locks struct {
	mu      sync.Mutex
	held    map[string][]*hold
	changed chan struct{} // closed when something is given back
}

// hold is a verb that has names; long says what it does, if that takes long.
type hold struct {
	long  string
	write bool
}

func newLocks() *locks { return &locks{held: map[string][]*hold{}, changed: make(chan struct{})} }

// take waits until all names are free; one that is held by long work is refused
// instead. long says what the caller does, if that takes long.
func (l *locks) take(ctx context.Context, long string, all ...need) (release func(), err error) {
	for {
		wait, err := l.try(long, all)
		if err != nil {
			return nil, err
		}
		if wait == nil {
			return func() { l.release(all, long) }, nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s: %w", all[0].name, ctx.Err())
		}
	}
}

// try takes all names, or returns what to wait for.
func (l *locks) try(long string, all []need) (<-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range all {
		for _, h := range l.held[n.name] {
			if !n.write && !h.write {
				continue
			}
			if h.long != "" {
				return nil, Fail(client.CodeInUse, "%s is in use: %s", n.name, h.long)
			}
			return l.changed, nil
		}
	}
	for _, n := range all {
		l.held[n.name] = append(l.held[n.name], &hold{long: long, write: n.write})
	}
	return nil, nil
}

func (l *locks) release(all []need, long string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range all {
		list := l.held[n.name]
		for i, h := range list {
			if h.long == long && h.write == n.write {
				l.held[n.name] = append(list[:i:i], list[i+1:]...)
				break
			}
		}
		if len(l.held[n.name]) == 0 {
			delete(l.held, n.name)
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}
