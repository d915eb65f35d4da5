package db_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/db/etcd"
)

const (
	crashDir     = "CAIRN_TEST_CRASH_DIR"
	crashFirst   = "CAIRN_TEST_CRASH_FIRST"
	crashRounds  = 5
	crashWriters = 4
	acksPerRound = 40
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := crashChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// crashChild writes numbered transactions until it is killed, and prints each
// number once its transaction is acknowledged. A transaction is two records.
func crashChild(dir string) error {
	ctx := context.Background()
	e, err := etcd.Open(ctx, etcd.Config{Dir: dir})
	if err != nil {
		return err
	}
	d, err := db.Open(ctx, e, db.Options{})
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(os.Getenv(crashFirst))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for w := range crashWriters {
		wg.Go(func() {
			for n := first + w; ; n += crashWriters {
				err := d.Update(ctx, func(tx *db.Tx) error {
					for _, half := range []string{"a", "b"} {
						s := api.NewSecret()
						s.Value = fmt.Sprint(half, n)
						db.Insert(tx, s)
					}
					return nil
				})
				if err != nil {
					return
				}
				fmt.Println(n)
			}
		})
	}
	wg.Wait()
	return nil
}

// No acknowledged transaction is lost by kill -9, and none is there by half.
func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acked := map[int]bool{}
	next := 0
	for round := range crashRounds {
		next = crashRound(t, dir, next, acked)
		checkAfterCrash(t, dir, round, acked)
	}
}

// crashRound runs the child until it acknowledged enough and kills it.
func crashRound(t *testing.T, dir string, first int, acked map[int]bool) (next int) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashFirst+"="+strconv.Itoa(first))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		number, err := strconv.Atoi(lines.Text())
		if err != nil {
			break // a line cut by the kill
		}
		acked[number] = true
		next = max(next, number+1)
		if n == acksPerRound {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	return next + crashWriters*2
}

func checkAfterCrash(t *testing.T, dir string, round int, acked map[int]bool) {
	e, err := etcd.Open(t.Context(), etcd.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(t.Context(), e, db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	halves := map[int]string{}
	for _, s := range db.All[api.Secret](d.Snapshot()) {
		n, err := strconv.Atoi(s.Value[1:])
		if err != nil {
			t.Fatal(err)
		}
		halves[n] += s.Value[:1]
	}
	for n, h := range halves {
		if len(h) != 2 || !strings.ContainsAny(h, "a") || !strings.ContainsAny(h, "b") {
			t.Errorf("round %d: transaction %d is there as %q", round, n, h)
		}
	}
	for n := range acked {
		if halves[n] == "" {
			t.Errorf("round %d: acknowledged transaction %d is lost", round, n)
		}
	}
	if len(acked) < acksPerRound*(round+1) {
		t.Errorf("round %d: only %d acknowledged", round, len(acked))
	}
}
