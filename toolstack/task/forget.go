package task

import (
	"context"
	"slices"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// How long tasks that nobody destroys are kept, as clients of the API know it.
const (
	keepEnded   = 65 * time.Minute
	keepPending = 24 * time.Hour
	// maxTasks is how many there may be before the oldest that have ended go
	// early. Those that have not ended stay, so it is not a strict bound.
	maxTasks = 200
)

// poke has Run look again.
func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run forgets old tasks until the context ends. It sleeps until the next one is
// old enough.
func (m *Manager) Run(ctx context.Context) error {
	for {
		timer := time.NewTimer(m.sweep())
		select {
		case <-timer.C:
		case <-m.wake:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// sweep forgets the tasks that are old enough and returns how long it is until
// the next one is.
func (m *Manager) sweep() time.Duration {
	type candidate struct {
		ref   api.TaskRef
		ended time.Time
	}
	now, next := m.cfg.Now(), keepPending
	var old []api.TaskRef
	var done []candidate
	count := 0
	for ref, r := range db.All[api.Task](m.cfg.DB.Snapshot()) {
		count++
		since, keep := r.Created, keepPending
		if ended(r.Status) {
			since, keep = r.Finished, keepEnded
		} else if m.serves(ref) {
			continue // it ends with its call
		}
		switch left := keep - now.Sub(since); {
		case left <= 0:
			old = append(old, ref)
		case ended(r.Status):
			done = append(done, candidate{ref, r.Finished})
			next = min(next, left)
		default:
			next = min(next, left)
		}
	}
	slices.SortFunc(done, func(a, b candidate) int { return a.ended.Compare(b.ended) })
	for i := 0; i < len(done) && count-len(old) > maxTasks; i++ {
		old = append(old, done[i].ref)
	}
	for _, ref := range old {
		m.remove(ref)
	}
	return next
}

// serves reports whether a task belongs to a call that is being served.
func (m *Manager) serves(ref api.TaskRef) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running[ref] != nil
}
