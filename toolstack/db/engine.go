package db

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
)

// Engine keeps pairs of key and value durably. Only one DB uses an engine, and
// it never calls two methods at once.
type Engine interface {
	// Load calls f for every pair whose key starts with prefix, in order of
	// keys. The value is only valid during the call.
	Load(ctx context.Context, prefix string, f func(key string, value []byte) error) error
	// Commit applies the batch wholly or not at all, and returns once it
	// would survive a power cut. An error says that nothing of it is there
	// and will be, unless the engine is at its end.
	Commit(ctx context.Context, b Batch) error
	Close() error
}

// ErrFull is what Commit answers when the quota has no room for the puts of a
// batch. Deletes are never refused for it.
var ErrFull = errors.New("database is full")

// Pair is one key with its value.
type Pair struct {
	Key   string
	Value []byte
}

// Batch is a set of changes. A key is named at most once.
type Batch struct {
	Puts    []Pair
	Deletes []string
}

func (b *Batch) empty() bool { return len(b.Puts) == 0 && len(b.Deletes) == 0 }

// add appends later changes, which win over earlier ones of the same key.
func (b *Batch) add(later Batch) {
	if b.empty() {
		*b = later
		return
	}
	touched := map[string]bool{}
	for _, p := range later.Puts {
		touched[p.Key] = true
	}
	for _, k := range later.Deletes {
		touched[k] = true
	}
	b.Puts = slices.DeleteFunc(slices.Clone(b.Puts), func(p Pair) bool { return touched[p.Key] })
	b.Deletes = slices.DeleteFunc(slices.Clone(b.Deletes), func(k string) bool { return touched[k] })
	b.Puts = append(b.Puts, later.Puts...)
	b.Deletes = append(b.Deletes, later.Deletes...)
}

// Memory is an engine for tests and for trying things out: durable as long as
// the value lives, over Close and another Open.
type Memory struct {
	mu    sync.Mutex
	pairs map[string][]byte
	// Fail, when set, is asked before each commit; its error refuses it.
	Fail func(Batch) error
}

// NewMemory returns an empty engine.
func NewMemory() *Memory { return &Memory{pairs: map[string][]byte{}} }

// Load implements Engine.
func (m *Memory) Load(_ context.Context, prefix string, f func(string, []byte) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(m.pairs)) {
		if len(k) < len(prefix) || k[:len(prefix)] != prefix {
			continue
		}
		if err := f(k, m.pairs[k]); err != nil {
			return err
		}
	}
	return nil
}

// Commit implements Engine.
func (m *Memory) Commit(_ context.Context, b Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Fail != nil {
		if err := m.Fail(b); err != nil {
			return err
		}
	}
	for _, k := range b.Deletes {
		delete(m.pairs, k)
	}
	for _, p := range b.Puts {
		m.pairs[p.Key] = slices.Clone(p.Value)
	}
	return nil
}

// Close implements Engine.
func (m *Memory) Close() error { return nil }
