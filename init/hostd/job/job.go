// Package job runs work that takes longer than a request should.
//
// A job is followed by polling, which waits until something has changed; it ends
// by itself or by being cancelled. The same work asked for twice is one job. Jobs
// end with the process: whoever asked is told that by the job not being known any
// more, and asks again.
//
// A Book may be used from many goroutines.
package job

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"

	"cairn/init/hostd/client"
)

// Bounds: of jobs that run, beyond which a new one is refused, and of ended ones
// that are remembered for those who have not asked yet.
const (
	maxRunning = 256
	maxEnded   = 256
)

// Work is what a job does; what it returns is its result. It ends soon after its
// context does.
type Work func(ctx context.Context, progress func(float64)) (any, error)

// Book holds the jobs.
type Book struct {
	ctx  context.Context
	stop context.CancelFunc
	log  *slog.Logger
	all  sync.WaitGroup

	mu    sync.Mutex
	jobs  map[string]*entry // by id
	keys  map[string]*entry // running ones by what they do
	ended []string          // ids, the oldest first
}

type entry struct {
	job     client.Job
	key     string
	cancel  context.CancelFunc
	changed chan struct{} // closed at the next change
}

// New returns an empty book.
func New(log *slog.Logger) *Book {
	ctx, stop := context.WithCancel(context.Background())
	return &Book{ctx: ctx, stop: stop, log: log, jobs: map[string]*entry{}, keys: map[string]*entry{}}
}

// Start begins work, or joins the job with the same key.
func (b *Book) Start(key, verb string, work Work) (client.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.keys[key]; ok {
		return e.job, nil
	}
	if b.ctx.Err() != nil || len(b.keys) >= maxRunning {
		return client.Job{}, &client.Error{Status: http.StatusServiceUnavailable, Code: client.CodeInternal, Message: fmt.Sprintf("%s: %d jobs run already", verb, len(b.keys))}
	}
	ctx, cancel := context.WithCancel(b.ctx)
	e := &entry{key: key, cancel: cancel, changed: make(chan struct{})}
	e.job = client.Job{ID: rand.Text(), Verb: verb, State: client.JobRunning, Revision: 1}
	b.jobs[e.job.ID], b.keys[key] = e, e
	b.all.Go(func() { b.run(ctx, e, work) })
	return e.job, nil
}

func (b *Book) run(ctx context.Context, e *entry, work Work) {
	defer e.cancel()
	result, err := work(ctx, func(f float64) { b.progress(e, f) })
	var text json.RawMessage
	if err == nil {
		text, err = json.Marshal(result)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		e.job.State, e.job.Progress, e.job.Result = client.JobDone, 1, text
	case errors.Is(err, context.Canceled):
		e.job.State = client.JobCancelled
		e.job.Error = &client.Error{Code: client.CodeCancelled, Message: e.job.Verb + " was cancelled"}
	default:
		e.job.State, e.job.Error = client.JobFailed, asError(err)
	}
	if err != nil {
		b.log.Warn("job-ended", "verb", e.job.Verb, "state", e.job.State, "code", e.job.Error.Code, "err", err)
	}
	delete(b.keys, e.key)
	b.ended = append(b.ended, e.job.ID)
	if len(b.ended) > maxEnded {
		delete(b.jobs, b.ended[0])
		b.ended = slices.Delete(b.ended, 0, 1)
	}
	e.tell()
}

func asError(err error) *client.Error {
	var e *client.Error
	if errors.As(err, &e) {
		return e
	}
	return &client.Error{Code: client.CodeInternal, Message: err.Error()}
}

// tell wakes those who wait; it needs b.mu.
func (e *entry) tell() {
	e.job.Revision++
	close(e.changed)
	e.changed = make(chan struct{})
}

// leastStep is the least progress that is worth waking anybody for.
const leastStep = 0.005

func (b *Book) progress(e *entry, f float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f >= e.job.Progress+leastStep && f <= 1 {
		e.job.Progress = f
		e.tell()
	}
}

// Wait returns a job as soon as its revision is not after, or ctx is done.
func (b *Book) Wait(ctx context.Context, id string, after int64) (client.Job, error) {
	for {
		b.mu.Lock()
		e, ok := b.jobs[id]
		if !ok {
			b.mu.Unlock()
			return client.Job{}, unknown(id)
		}
		job, changed := e.job, e.changed
		b.mu.Unlock()
		if job.Revision != after || job.State != client.JobRunning {
			return job, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return job, nil
		}
	}
}

func unknown(id string) error {
	return &client.Error{Status: http.StatusNotFound, Code: client.CodeNotFound, Message: fmt.Sprintf("job %q is not known", id)}
}

// Cancel asks a job to end; it is no error if it has.
func (b *Book) Cancel(id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.jobs[id]
	if !ok {
		return unknown(id)
	}
	e.cancel()
	return nil
}

// Close cancels all jobs and returns when they have ended.
func (b *Book) Close() {
	b.stop()
	b.all.Wait()
}
