// Package lock keeps work on one thing in order and lets work on others go on.
// Everything here may be used by many goroutines.
package lock

import (
	"context"
	"sync"
)

// Keyed is a lock for each key. Keys that nobody holds or waits for take no room.
type Keyed[K comparable] struct {
	mu    *sync.Mutex
	locks map[K]*holder
}

type holder struct {
	held chan struct{} // capacity 1
	want int           // holders and waiters
}

// NewKeyed returns one that nobody holds.
func NewKeyed[K comparable]() Keyed[K] {
	return Keyed[K]{mu: &sync.Mutex{}, locks: map[K]*holder{}}
}

// Hold waits for the key and returns how to let it go.
func (k Keyed[K]) Hold(ctx context.Context, key K) (func(), error) {
	k.mu.Lock()
	l := k.locks[key]
	if l == nil {
		l = &holder{held: make(chan struct{}, 1)}
		k.locks[key] = l
	}
	l.want++
	k.mu.Unlock()
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; k.leave(key, l) }, nil
	case <-ctx.Done():
		k.leave(key, l)
		return nil, context.Cause(ctx)
	}
}

func (k Keyed[K]) leave(key K, l *holder) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.want--; l.want == 0 {
		delete(k.locks, key)
	}
}
