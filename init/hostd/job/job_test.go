package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"cairn/init/hostd/client"
)

func book(t *testing.T) *Book {
	b := New(slog.New(slog.DiscardHandler))
	t.Cleanup(b.Close)
	return b
}

// end follows a job to its end.
func end(t *testing.T, b *Book, j client.Job) client.Job {
	t.Helper()
	for j.State == client.JobRunning {
		next, err := b.Wait(t.Context(), j.ID, j.Revision)
		if err != nil {
			t.Fatal(err)
		}
		if next.Revision <= j.Revision || next.Progress < j.Progress {
			t.Fatalf("%+v after %+v", next, j)
		}
		j = next
	}
	return j
}

func start(t *testing.T, b *Book, key string, work Work) client.Job {
	t.Helper()
	j, err := b.Start(key, "do "+key, work)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestJobsEnd(t *testing.T) {
	b := book(t)
	j := end(t, b, start(t, b, "a", func(_ context.Context, progress func(float64)) (any, error) {
		progress(0.5)
		progress(0.4) // never back
		progress(7)
		return map[string]int{"n": 1}, nil
	}))
	if j.State != client.JobDone || string(j.Result) != `{"n":1}` || j.Progress != 1 || j.Verb != "do a" {
		t.Errorf("%+v", j)
	}
	j = end(t, b, start(t, b, "b", func(context.Context, func(float64)) (any, error) {
		return nil, fmt.Errorf("volume: %w", &client.Error{Code: client.CodeNoSpace})
	}))
	if j.State != client.JobFailed || j.Error.Code != client.CodeNoSpace {
		t.Errorf("%+v", j)
	}
	j = end(t, b, start(t, b, "c", func(context.Context, func(float64)) (any, error) { return nil, errors.New("disk on fire") }))
	if j.State != client.JobFailed || j.Error.Code != client.CodeInternal || j.Error.Message != "disk on fire" {
		t.Errorf("%+v", j)
	}
}

func TestSameWorkIsOneJob(t *testing.T) {
	b := book(t)
	wait, runs := make(chan bool), 0
	work := func(context.Context, func(float64)) (any, error) {
		runs++
		<-wait
		return nil, nil
	}
	first, second := start(t, b, "a", work), start(t, b, "a", work)
	if first.ID != second.ID {
		t.Error("two jobs do the same")
	}
	close(wait)
	end(t, b, first)
	if runs != 1 {
		t.Errorf("ran %d times", runs)
	}
	if again := start(t, b, "a", work); again.ID == first.ID {
		t.Error("an ended job is joined")
	}
}

func TestCancel(t *testing.T) {
	b := book(t)
	j := start(t, b, "a", func(ctx context.Context, _ func(float64)) (any, error) {
		<-ctx.Done()
		return nil, fmt.Errorf("stopped: %w", ctx.Err())
	})
	if err := b.Cancel(j.ID); err != nil {
		t.Fatal(err)
	}
	if j = end(t, b, j); j.State != client.JobCancelled || j.Error.Code != client.CodeCancelled {
		t.Errorf("%+v", j)
	}
	if err := b.Cancel(j.ID); err != nil {
		t.Error(err)
	}
	if err := b.Cancel("none"); err == nil {
		t.Error("a job that is not known was cancelled")
	}
}

// TestBounds: neither running nor ended jobs pile up.
func TestBounds(t *testing.T) {
	b := book(t)
	first := start(t, b, "first", func(context.Context, func(float64)) (any, error) { return nil, nil })
	end(t, b, first)
	for i := range maxEnded {
		end(t, b, start(t, b, fmt.Sprint(i), func(context.Context, func(float64)) (any, error) { return nil, nil }))
	}
	if _, err := b.Wait(t.Context(), first.ID, 0); err == nil {
		t.Error("the first job is still known")
	}
	forever := func(ctx context.Context, _ func(float64)) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for i := range maxRunning {
		start(t, b, fmt.Sprint(i), forever)
	}
	if _, err := b.Start("more", "more", forever); err == nil {
		t.Error("there is no bound on running jobs")
	}
}
