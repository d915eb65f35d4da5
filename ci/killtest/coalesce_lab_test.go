//go:build lab

// This package kills processes at every step of what must survive that.

package killtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cairn/image/debian"
	"cairn/toolstack/api"
)

var (
	runs = flag.Int("runs", 500, "how many `kills`")
	seed = flag.Uint64("seed", 1, "`number` the runs follow from")
)

// Environment of the child.
const (
	dirEnv   = "CAIRN_KILLTEST_DIR"
	stepEnv  = "CAIRN_KILLTEST_STEP"  // the step before which it dies
	delayEnv = "CAIRN_KILLTEST_DELAY" // into the merge of that step, if not 0
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// child coalesces until there is nothing to do, or until it dies.
func child(dir string) error {
	at, err := strconv.Atoi(os.Getenv(stepEnv))
	if err != nil {
		return err
	}
	delay, err := time.ParseDuration(os.Getenv(delayEnv))
	if err != nil {
		return err
	}
	tools, err := debian.Open(context.Background(), debian.Config{})
	if err != nil {
		return err
	}
	var n atomic.Int64
	step := func() {
		if int(n.Add(1)) == at {
			die()
		}
	}
	during := func() {
		if delay > 0 && int(n.Load()) >= at {
			time.AfterFunc(delay, die)
		}
	}
	if delay > 0 {
		step = func() { n.Add(1) }
	}
	w, err := openWorld(context.Background(), tools, dir, step, during)
	if err != nil {
		return err
	}
	return w.coalesce(context.Background())
}

func nothing() {}

// TestCoalesceChaos kills a process that coalesces 16 MiB images before every step
// of its journal, and in the middle of merges, once or twice in a row; then it
// recovers and everything must be as if nothing had happened.
func TestCoalesceChaos(t *testing.T) {
	tools, err := debian.Open(t.Context(), debian.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := &chaos{T: t, tools: tools}
	var group sync.WaitGroup
	for worker := range uint64(2) {
		group.Go(func() { c.work(worker) })
	}
	group.Wait()
	t.Logf("%d kills (%d in the middle of a merge, %d of them twice), %d children came to their end, %d trees of layers",
		c.kills.Load(), c.inMerge.Load(), c.twice.Load(), c.ended.Load(), c.trees.Load())
}

type chaos struct {
	*testing.T
	tools                               *debian.Tree
	kills, inMerge, twice, ended, trees atomic.Int64
}

// work builds trees, and kills at step after step of merging each.
func (c *chaos) work(worker uint64) {
	for n := uint64(0); c.kills.Load() < int64(*runs) && !c.Failed(); n++ {
		random := rand.New(rand.NewPCG(*seed, worker<<32|n))
		base, err := os.MkdirTemp(c.TempDir(), "world")
		if err != nil {
			c.Error(err)
			return
		}
		dir := filepath.Join(base, "now")
		w, err := openWorld(c.Context(), c.tools, dir, nothing, nothing)
		if err != nil {
			c.Error(err)
			return
		}
		model := build(c.T, w, random)
		w.db.Close()
		saved := filepath.Join(base, "saved")
		if err := os.CopyFS(saved, os.DirFS(dir)); err != nil {
			c.Error(err)
			return
		}
		c.trees.Add(1)
		for step := 1; !c.Failed(); step++ {
			if c.run(dir, step, random) {
				break // no step is left
			}
			c.recover(dir, maps.Clone(model), fmt.Sprintf("seed %d, worker %d, tree %d, step %d", *seed, worker, n, step))
			if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(saved))); err != nil {
				c.Error(err)
			}
		}
		if err := os.RemoveAll(base); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.Error(err)
		}
	}
}

// run kills one child, and another on what it leaves at times. It reports whether
// the first came to its end before that.
func (c *chaos) run(dir string, step int, random *rand.Rand) (ended bool) {
	delay := time.Duration(0)
	if random.IntN(5) == 0 {
		delay = time.Duration(1+random.IntN(15)) * time.Millisecond
	}
	if !c.child(dir, step, delay) {
		if delay > 0 { // there was no merge left to die in
			return false
		}
		c.ended.Add(1)
		return true
	}
	if delay > 0 {
		c.inMerge.Add(1)
	}
	if random.IntN(4) == 0 && c.child(dir, 1+random.IntN(10), 0) {
		c.twice.Add(1)
	}
	return false
}

// child reports whether it was killed.
func (c *chaos) child(dir string, step int, delay time.Duration) bool {
	cmd := exec.CommandContext(c.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), dirEnv+"="+dir, stepEnv+"="+strconv.Itoa(step), delayEnv+"="+delay.String())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		c.kills.Add(1)
		return true
	}
	c.Errorf("the child: %v: %s", err, out)
	return true
}

// recover is the next start; what it finds must be whole.
func (c *chaos) recover(dir string, model map[api.VDIRef]content, what string) {
	w, err := openWorld(c.Context(), c.tools, dir, nothing, nothing)
	if err != nil {
		c.Errorf("%s: %v", what, err)
		return
	}
	defer w.db.Close()
	if err := w.coalesce(c.Context()); err != nil {
		c.Errorf("%s: %v", what, err)
		return
	}
	before := c.Failed()
	w.verify(c.T, model)
	if !before && c.Failed() {
		c.Errorf("this was %s", what)
	}
}
