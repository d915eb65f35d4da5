package coalesce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// script is a store that notes what it is asked, and fails as told.
type script struct {
	mu     sync.Mutex
	layers []Layer
	asked  []string
	fail   map[string]error
	merge  func(ctx context.Context) error
	taken  bool
}

func (s *script) note(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, what)
	return s.fail[what]
}

func (s *script) Layers(context.Context) ([]Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.layers), nil
}

func (s *script) Claim(ctx context.Context, _ Step) (context.Context, func(), bool) {
	return ctx, func() {}, !s.taken
}

func (s *script) Begin(_ context.Context, step Step) error { return s.note("begin " + step.Layer) }

func (s *script) Merge(ctx context.Context, step Step) error {
	if err := s.note("merge " + step.Layer); err != nil || s.merge == nil {
		return err
	}
	return s.merge(ctx)
}

func (s *script) Yield(_ context.Context, step Step) error { return s.note("yield " + step.Layer) }

func (s *script) Rebase(_ context.Context, _ Step, layer string) error {
	return s.note("rebase " + layer)
}

func (s *script) Conclude(_ context.Context, step Step) error {
	err := s.note("conclude " + step.Layer)
	if err == nil {
		s.mu.Lock()
		s.layers = perform(s.layers, step)
		s.mu.Unlock()
	}
	return err
}

func (s *script) Clean(_ context.Context, step Step) error { return s.note("clean " + step.Layer) }

func (s *script) said() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func (s *script) fails(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[what] = err
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func TestRunInOrder(t *testing.T) {
	s := &script{}
	step := Step{Kind: Inner, Layer: "n", Into: "p", Above: []string{"a", "b"}}
	if err := Run(t.Context(), s, step); err != nil {
		t.Fatal(err)
	}
	want := []string{"begin n", "merge n", "rebase a", "rebase b", "conclude n", "clean n"}
	if got := s.said(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A step that fails at one point does nothing that comes after it.
func TestRunStops(t *testing.T) {
	order := []string{"begin n", "merge n", "rebase a", "rebase b", "conclude n", "clean n"}
	for i, at := range order {
		s := &script{fail: map[string]error{at: errors.New("no")}}
		if err := Run(t.Context(), s, Step{Kind: Inner, Layer: "n", Into: "p", Above: []string{"a", "b"}}); err == nil {
			t.Errorf("%s: no error", at)
		}
		want := slices.Clone(order[:i+1])
		if at == "merge n" {
			want = append(want, "yield n")
		}
		if got := s.said(); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", at, got, want)
		}
	}
}

// What is merged is carried through, also when the context has ended meanwhile.
func TestRunIsCarriedThrough(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &script{merge: func(context.Context) error { cancel(); return nil }}
	if err := Run(ctx, s, Step{Kind: Leaf, Layer: "a", Into: "p"}); err != nil {
		t.Fatal(err)
	}
	if got := s.said(); !slices.Contains(got, "clean a") {
		t.Errorf("got %v", got)
	}
}

// Changes that come in bursts are waited for, but not for ever; what failed is tried
// again later, and what is right is left alone.
func TestWorkerInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{layers: []Layer{{ID: "p", Hidden: true}, {ID: "a", Parent: "p"}}, fail: map[string]error{}}
		w := NewWorker(s, 5*time.Second, time.Minute, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.Run(ctx)
		for range 3 {
			w.Poke()
			time.Sleep(4 * time.Second)
			synctest.Wait()
			if got := s.said(); got != nil {
				t.Fatalf("%v while things change", got)
			}
		}
		s.fails("merge a", errors.New("no space"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := s.said(); !slices.Equal(got, []string{"begin a", "merge a", "yield a"}) {
			t.Fatalf("got %v", got)
		}
		s.fails("merge a", nil)
		time.Sleep(50 * time.Second)
		synctest.Wait()
		if got := s.said(); got != nil {
			t.Fatalf("%v before its time", got)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := s.said(); !slices.Equal(got, []string{"begin a", "merge a", "conclude a", "clean a"}) {
			t.Fatalf("got %v", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := s.said(); got != nil {
			t.Errorf("%v although there is nothing to do", got)
		}
		w.Poke()
		for i := range 20 { // a burst without end
			time.Sleep(3 * time.Second)
			if i == 2 {
				s.mu.Lock()
				s.layers = append(s.layers, Layer{ID: "h", Hidden: true})
				s.mu.Unlock()
			}
			w.Poke()
		}
		synctest.Wait()
		if got := s.said(); !slices.Contains(got, "clean h") {
			t.Errorf("got %v after a minute of changes", got)
		}
	})
}

// One step that cannot be done does not keep others from being done.
func TestDrainGoesOn(t *testing.T) {
	s := &script{fail: map[string]error{"merge a": errors.New("no")}}
	for _, id := range []string{"a", "b"} {
		s.layers = append(s.layers, Layer{ID: "p" + id, Hidden: true}, Layer{ID: id, Parent: "p" + id})
	}
	if NewWorker(s, 0, 0, quiet).Drain(t.Context()) {
		t.Error("it says that nothing is left")
	}
	if got := fmt.Sprint(s.said()); got != "[begin a merge a yield a begin b merge b conclude b clean b]" {
		t.Errorf("got %v", got)
	}
	s.taken = true
	if NewWorker(s, 0, 0, quiet).Drain(t.Context()) || s.said() != nil {
		t.Error("it works on what an operation has")
	}
}
