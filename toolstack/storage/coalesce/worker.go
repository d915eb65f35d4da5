package coalesce

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Worker coalesces one repository.
type Worker struct {
	Store Store
	// Quiet is how long nothing must have changed before work begins: what comes in
	// bursts, such as the snapshots of a backup, is done by then.
	Quiet time.Duration
	// Retry is how long a step that failed is left alone.
	Retry time.Duration
	Log   *slog.Logger

	wake chan struct{}
}

// NewWorker returns a worker; Run makes it work.
func NewWorker(store Store, quiet, retry time.Duration, log *slog.Logger) *Worker {
	return &Worker{Store: store, Quiet: quiet, Retry: retry, Log: log, wake: make(chan struct{}, 1)}
}

// Poke tells of a change.
func (w *Worker) Poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// patience bounds how many changes in a row put work off.
const patience = 10

// Run works until the context ends, whenever it is poked.
func (w *Worker) Run(ctx context.Context) {
	var retry <-chan time.Time
	for {
		select {
		case <-w.wake:
			if !w.settle(ctx) {
				return
			}
		case <-retry:
		case <-ctx.Done():
			return
		}
		retry = nil
		if !w.Drain(ctx) {
			retry = time.After(w.Retry)
		}
	}
}

// settle waits until nothing has changed for a while.
func (w *Worker) settle(ctx context.Context) bool {
	for range patience {
		select {
		case <-w.wake:
		case <-time.After(w.Quiet):
			return true
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Drain does all there is to do. It reports false when something is left that
// could not be done now.
func (w *Worker) Drain(ctx context.Context) bool {
	failed := map[string]bool{}
	for ctx.Err() == nil {
		layers, err := w.Store.Layers(ctx)
		if err != nil {
			w.Log.Warn("coalesce-layers", "err", err)
			return false
		}
		s, left := w.next(layers, failed)
		if s.Kind == "" {
			return !left
		}
		if err := w.perform(ctx, s); err != nil {
			failed[s.Layer] = true
			if ctx.Err() == nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrStale) {
				w.Log.Warn("coalesce-step", "kind", s.Kind, "layer", s.Layer, "into", s.Into, "err", err)
			}
		}
	}
	return false
}

func (w *Worker) next(layers []Layer, failed map[string]bool) (s Step, left bool) {
	for _, s := range Plan(layers) {
		if !failed[s.Layer] {
			return s, false
		}
		left = true
	}
	return Step{}, left
}

// errTaken is a step whose layers an operation has.
var errTaken = errors.Join(ErrStale, errors.New("an operation is in progress"))

func (w *Worker) perform(ctx context.Context, s Step) error {
	claimed, release, ok := w.Store.Claim(ctx, s)
	if !ok {
		return errTaken
	}
	defer release()
	return Run(claimed, w.Store, s)
}
