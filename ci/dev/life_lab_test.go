//go:build lab

package main

import (
	"context"
	"os"
	"testing"
	"time"

	"cairn/ci/lab/life"
)

// TestDevLife takes a guest through all there is on a host of make dev.
func TestDevLife(t *testing.T) {
	dir, err := os.MkdirTemp("", "dev")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	d := launch(t, program(t), dir)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(dir + "/log")
			t.Logf("%s", log[max(0, len(log)-20000):])
		}
	})
	life.New(ctx, t, d.login(), "file", map[string]string{"location": "/state/sr/life"}).Whole(ctx)
}
