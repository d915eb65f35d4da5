//go:build lab

package db_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

func TestPowerLossSmoke(t *testing.T) { losePower(t, seed(t), 1, 30, 20) }

func TestChaosPowerLoss(t *testing.T) { losePower(t, seed(t), 4, 200, setting(t, "CUTS", 400)) }

// reopenTimeout is for a database that would wait for something lost.
const reopenTimeout = 10 * time.Second

// acked is what was acknowledged up to a moment.
type acked struct {
	at       int
	workload workload
}

// recording is the traced lives of a database.
type recording struct {
	disk *disk
	acks []acked
}

// record runs the workload some times on one directory.
func record(t *testing.T, seed uint64, lives, transactions int) *recording {
	t.Helper()
	r := &recording{disk: newDisk()}
	w := &workload{Dir: t.TempDir() + "/db", Seed: seed}
	if err := os.Mkdir(w.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	tr := &tracer{root: w.Dir, disk: r.disk, acks: func(line string) error {
		err := w.acknowledge(line)
		r.acks = append(r.acks, acked{r.disk.clock, *w})
		return err
	}}
	for life := range lives {
		w.Tidy = life == lives-1
		w.Max = (life + 1) * transactions
		w.Padding = []int{0, 20000, 3000, 3000}[life%4]
		if err := tr.trace(w); err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		w.Seed++
	}
	return r
}

// until is what was acknowledged before the moment.
func (r *recording) until(clock int) (w workload) {
	for _, a := range r.acks {
		if a.at >= clock {
			break
		}
		w = a.workload
	}
	return w
}

// losePower cuts the power at seeded moments and in every way.
func losePower(t *testing.T, seed uint64, lives, transactions, cuts int) {
	t.Helper()
	r := record(t, seed, lives, transactions)
	for line, lost := range r.losses(t, seed, cuts, 100) {
		t.Errorf("%s: %v", line, lost)
	}
	t.Logf("seed %d: %d calls, %d acknowledgements; %d disks reopened", seed, len(r.disk.log), len(r.acks), cuts*int(damages))
}

// losses are the cuts after which the database is not as it must be, up to some.
func (r *recording) losses(t *testing.T, seed uint64, cuts, enough int) map[string]error {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	lost := map[string]error{}
	scratch := fastDir(t)
	for i := range cuts {
		at := 1 + random.IntN(r.disk.clock)
		if i%8 == 0 { // the first start has moments of its own
			at = 1 + random.IntN(min(r.disk.clock, 150))
		}
		for d := range damages {
			c := cut{at, d, seed}
			dir := filepath.Join(scratch, "db")
			if err := r.disk.restore(dir, c); err != nil {
				t.Fatalf("%v: %v", c, err)
			}
			if err := r.reopen(t, dir, at, i%5 == 0); err != nil {
				lost[c.String()] = err
			}
			os.RemoveAll(dir)
			if len(lost) >= enough {
				return lost
			}
		}
	}
	return lost
}

// fastDir is a directory in memory if there is one: what is lost with the power
// is known from the recording, so the disk below need not be slow.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cairn-db-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// The test would notice an engine that acknowledges before its log is synced.
func TestPowerLossSmokeNoticesMissingSync(t *testing.T) {
	r := record(t, 1, 1, 20)
	r.disk.log = slices.DeleteFunc(r.disk.log, func(op *operation) bool {
		return op.kind == opSync && strings.HasSuffix(op.node.name, ".wal")
	})
	if len(r.losses(t, 1, 10, 1)) == 0 {
		t.Error("an unsynced log lost nothing")
	}
}

// reopen checks what is left, and now and then that it can be gone on with.
func (r *recording) reopen(t *testing.T, dir string, at int, again bool) error {
	w := r.until(at)
	ctx, cancel := context.WithTimeout(t.Context(), reopenTimeout)
	defer cancel()
	d, err := openDB(ctx, dir)
	if err != nil {
		return err
	}
	_, err = w.check(d.Snapshot())
	var added api.NetworkRef
	if err == nil && again {
		err = d.Update(ctx, func(tx *db.Tx) error {
			added = db.Insert(tx, api.NewNetwork())
			return nil
		})
		w.Generation = d.Snapshot().Generation()
	}
	d.Close()
	if err != nil || !again {
		return err
	}
	if d, err = openDB(ctx, dir); err != nil {
		return fmt.Errorf("a second time: %w", err)
	}
	defer d.Close()
	if _, err := db.Get(d.Snapshot(), added); err != nil {
		return fmt.Errorf("a second time: %w", err)
	}
	_, err = w.check(d.Snapshot())
	return err
}
