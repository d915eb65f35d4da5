package figure

import (
	"testing"
	"time"
)

func TestAt(t *testing.T) {
	all := []time.Duration{4, 1, 3, 2}
	for share, want := range map[float64]time.Duration{0: 1, 0.5: 3, 0.99: 4, 1: 4} {
		if got := At(all, share); got != want {
			t.Errorf("%v is %d, want %d", share, got, want)
		}
	}
	if At(nil, 0.5) != 0 || MS(1500*time.Microsecond) != "1.5" {
		t.Error("nothing is something")
	}
}
