package device

import (
	"context"
	"sync"
)

// keyed is a lock for each key. Keys that nobody holds or waits for take no room.
type keyed[K comparable] struct {
	mu    *sync.Mutex
	locks map[K]*lock
}

type lock struct {
	held chan struct{} // capacity 1
	want int           // holders and waiters
}

func newKeyed[K comparable]() keyed[K] {
	return keyed[K]{mu: &sync.Mutex{}, locks: map[K]*lock{}}
}

// hold waits for the key and returns how to let it go.
func (k keyed[K]) hold(ctx context.Context, key K) (func(), error) {
	k.mu.Lock()
	l := k.locks[key]
	if l == nil {
		l = &lock{held: make(chan struct{}, 1)}
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

func (k keyed[K]) leave(key K, l *lock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.want--; l.want == 0 {
		delete(k.locks, key)
	}
}
