package db_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// BenchmarkCommit sets transactions of one VM record, by one and by 32 writers,
// beside the least they can cost: a record of that size written and synced.
func BenchmarkCommit(b *testing.B) {
	b.Run("plain-fdatasync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "log"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, 64<<20); err != nil {
			b.Fatal(err)
		}
		record := bytes.Repeat([]byte{'v'}, 4000)
		var at int64
		measure(b, 1, func(int) error {
			at = (at + int64(len(record))) % (60 << 20)
			if _, err := f.WriteAt(record, at); err != nil {
				return err
			}
			return syscall.Fdatasync(int(f.Fd()))
		})
	})
	for _, writers := range []int{1, 32} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			d, err := openDB(b.Context(), filepath.Join(b.TempDir(), "db"))
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			measure(b, writers, func(writer int) error { return setVM(b, d, writer) })
		})
	}
}

func setVM(b *testing.B, d *db.DB, writer int) error {
	ref := api.VMRef(fmt.Sprintf("OpaqueRef:vm-%d", writer))
	return d.Update(b.Context(), func(tx *db.Tx) error {
		vm, err := db.Edit(tx, ref)
		if err != nil {
			vm = api.NewVM()
			db.InsertAs(tx, ref, vm)
		}
		vm.MemoryTarget++
		return nil
	})
}

// measure shares b.N runs of f out and reports their latency and rate.
func measure(b *testing.B, writers int, f func(writer int) error) {
	b.Helper()
	times := make([][]time.Duration, writers)
	start := time.Now()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range (b.N + writers - 1 - w) / writers {
				begin := time.Now()
				if err := f(w); err != nil {
					b.Error(err)
					return
				}
				times[w] = append(times[w], time.Since(begin))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(times...)
	slices.Sort(all)
	if len(all) == 0 {
		return
	}
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(len(all))/time.Since(start).Seconds(), "commits/s")
}

// One transaction may be as large as a pool.
func TestLargeTransaction(t *testing.T) {
	d, err := openDB(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const n = 5000
	err = d.Update(t.Context(), func(tx *db.Tx) error {
		for range n {
			db.Insert(tx, api.NewSecret())
		}
		return nil
	})
	if err != nil || d.Snapshot().Count(api.ClassOf[api.Secret]()) != n {
		t.Errorf("%v, %d records", err, d.Snapshot().Count(api.ClassOf[api.Secret]()))
	}
}
