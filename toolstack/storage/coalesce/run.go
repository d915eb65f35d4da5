package coalesce

import (
	"context"
	"errors"
	"fmt"
)

// Store does the parts of a step. Each may be repeated.
type Store interface {
	// Layers lists all layers as they are.
	Layers(ctx context.Context) ([]Layer, error)
	// Claim keeps operations away from the layers of a step until release is called;
	// ok is false when there are some. The context ends when one comes.
	Claim(ctx context.Context, s Step) (claimed context.Context, release func(), ok bool)

	// Begin records a step. ErrStale when it does not fit the layers any more.
	Begin(ctx context.Context, s Step) error
	// Merge writes the layer's data into the one below. It may be cut short.
	Merge(ctx context.Context, s Step) error
	// Yield is called instead of what follows when Merge did not come to its end.
	Yield(ctx context.Context, s Step) error
	// Rebase makes a layer that is based on s.Layer based on s.Into.
	Rebase(ctx context.Context, s Step, layer string) error
	// Conclude makes the layer garbage in one transaction with what takes its place.
	Conclude(ctx context.Context, s Step) error
	// Clean removes garbage.
	Clean(ctx context.Context, s Step) error
}

// ErrStale is a step that does not fit what is there.
var ErrStale = errors.New("the layers have changed")

// Run performs a step. Once its data is merged it is carried through, even if the
// context ends.
func Run(ctx context.Context, store Store, s Step) error {
	if err := store.Begin(ctx, s); err != nil {
		return fmt.Errorf("begin %s of %s: %w", s.Kind, s.Layer, err)
	}
	through := context.WithoutCancel(ctx)
	if s.Kind != Drop {
		if err := store.Merge(ctx, s); err != nil {
			return errors.Join(fmt.Errorf("merge %s into %s: %w", s.Layer, s.Into, err), store.Yield(through, s))
		}
	}
	if s.Kind == Inner {
		for _, layer := range s.Above {
			if err := store.Rebase(through, s, layer); err != nil {
				return fmt.Errorf("rebase %s on %s: %w", layer, s.Into, err)
			}
		}
	}
	if err := store.Conclude(through, s); err != nil {
		return fmt.Errorf("conclude %s of %s: %w", s.Kind, s.Layer, err)
	}
	if err := store.Clean(through, s); err != nil {
		return fmt.Errorf("clean up %s: %w", s.Layer, err)
	}
	return nil
}
