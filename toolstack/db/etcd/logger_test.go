package etcd

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestWarningsAreNotAFlood: etcd repeats a warning hundreds of times a second.
func TestWarningsAreNotAFlood(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	l := newLogger(slog.New(slog.NewTextHandler(&out, nil)))
	l.now = func() time.Time { return now }
	z := l.zap()
	for range 300 {
		z.Warn("failed to publish local member")
		z.Warn("another")
		z.Error("an error")
		now = now.Add(10 * time.Millisecond)
	}
	for text, want := range map[string]int{"failed to publish": 3, "another": 3, "an error": 300} {
		if got := strings.Count(out.String(), text); got != want {
			t.Errorf("%q is written %d times, not %d", text, got, want)
		}
	}
}
