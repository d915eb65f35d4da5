package storage

import (
	"testing"

	"cairn/toolstack/storage/coalesce"
)

// TestPlanned: a step whose layers above have become others is not to be taken, be they as
// many: it would put one of them on the wrong layer.
func TestPlanned(t *testing.T) {
	step := func(above ...string) coalesce.Step {
		return coalesce.Step{Kind: coalesce.Inner, Layer: "b", Into: "a", Above: above}
	}
	for _, tt := range []struct {
		now  coalesce.Step
		want bool
	}{
		{step("c", "d"), true},
		{step("c", "e"), false},
		{step("c"), false},
		{coalesce.Step{Kind: coalesce.Inner, Layer: "b", Into: "x", Above: []string{"c", "d"}}, false},
		{coalesce.Step{Kind: coalesce.Leaf, Layer: "b", Into: "a", Above: []string{"c", "d"}}, false},
	} {
		if got := planned([]coalesce.Step{{Layer: "z"}, tt.now}, step("c", "d")); got != tt.want {
			t.Errorf("planned anew as %+v: %t", tt.now, got)
		}
	}
}
