package etcd

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"cairn/toolstack/db"
)

func openIn(tb testing.TB, dir string) *Engine {
	tb.Helper()
	e, err := Open(context.Background(), Config{Dir: dir})
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// fill writes n values of 2 KB in transactions of the given size.
func fill(tb testing.TB, e *Engine, n, perCommit int) {
	tb.Helper()
	value := bytes.Repeat([]byte("v"), 2000)
	for i := 0; i < n; i += perCommit {
		var b db.Batch
		for j := range perCommit {
			b.Puts = append(b.Puts, db.Pair{Key: fmt.Sprintf("obj/VM/%06d", i+j), Value: value})
		}
		if err := e.Commit(context.Background(), b); err != nil {
			tb.Fatal(err)
		}
	}
}

func BenchmarkOpenEmpty(b *testing.B) {
	for b.Loop() {
		dir := b.TempDir()
		e := openIn(b, dir)
		b.StopTimer()
		e.Close()
		b.StartTimer()
	}
}

func BenchmarkOpenExisting(b *testing.B) {
	for _, c := range []struct{ keys, commits int }{{100, 100}, {4000, 1500}} {
		b.Run(fmt.Sprintf("keys=%d,commits=%d", c.keys, c.commits), func(b *testing.B) {
			dir := b.TempDir()
			e := openIn(b, dir)
			fill(b, e, c.keys, c.keys/50)
			for range c.commits {
				fill(b, e, 1, 1)
			}
			e.Close()
			for b.Loop() {
				e := openIn(b, dir)
				b.StopTimer()
				e.Close()
				b.StartTimer()
			}
		})
	}
}
