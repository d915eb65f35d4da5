package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn/ci/bench/figure"
)

// Programs whose work is counted.
const (
	server = "toolstackd"
	keeper = "hostd"
	lender = "qemu-nbd"
)

// cost is what one piece of work took. Peaks are of resident memory.
type cost struct {
	Wall time.Duration
	CPU  map[string]time.Duration
	Peak map[string]int64
	Size int64 // of what was made
}

// process is one of the machine's.
type process struct {
	pid, parent   int
	name          string
	own, children time.Duration // CPU; of children those that have ended
}

// tick is the unit of times in /proc/PID/stat, on all machines there are.
const tick = 10 * time.Millisecond

// parseStat reads /proc/PID/stat. The program's name, in brackets, may hold anything.
func parseStat(text string) (p process, err error) {
	p.pid, err = strconv.Atoi(text[:max(0, strings.IndexByte(text, ' '))])
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if err != nil || len(f) < 15 {
		return p, fmt.Errorf("%q is no state of a process", text)
	}
	var n [15]int64
	for _, i := range []int{1, 11, 12, 13, 14} {
		if n[i], err = strconv.ParseInt(f[i], 10, 64); err != nil {
			return p, err
		}
	}
	p.parent, p.own, p.children = int(n[1]), time.Duration(n[11]+n[12])*tick, time.Duration(n[13]+n[14])*tick
	return p, nil
}

// processes are those that descend from one.
func processes(root int) (all []process, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	parents := map[int]int{}
	for _, dir := range dirs {
		stat, err := os.ReadFile(dir + "/stat")
		argv, err2 := os.ReadFile(dir + "/cmdline")
		if err != nil || err2 != nil {
			continue // it has ended
		}
		p, err := parseStat(string(stat))
		if err != nil {
			return nil, err
		}
		name, _, _ := strings.Cut(string(argv), "\x00")
		p.name, parents[p.pid] = filepath.Base(name), p.parent
		all = append(all, p)
	}
	return slices.DeleteFunc(all, func(p process) bool {
		for pid := p.pid; pid > 0; pid = parents[pid] {
			if pid == root {
				return false
			}
		}
		return true
	}), nil
}

// watched is the host at one moment.
type watched struct {
	root           int
	server, keeper process
	lenders        []int
}

// look finds the processes that work on streams, and lets the server's peak begin anew
// where that is allowed.
func look(root int) (*watched, error) {
	all, err := processes(root)
	if err != nil {
		return nil, err
	}
	w := &watched{root: root}
	for _, p := range all {
		switch p.name {
		case server:
			w.server = p
		case keeper:
			w.keeper = p
		case lender:
			w.lenders = append(w.lenders, p.pid)
		}
	}
	if w.server.pid == 0 || w.keeper.pid == 0 {
		return nil, fmt.Errorf("%s or %s is not among the %d processes of the host", server, keeper, len(all))
	}
	return w, nil
}

func (b *bench) watched() (*watched, error) { return look(b.Pid()) }

// lent is the process that lends the disk out, or 0.
func (w *watched) lent() int {
	if again, err := look(w.root); err == nil && len(again.lenders) > 0 {
		return again.lenders[0]
	}
	return 0
}

// glance is how often a process's peak is read: what it is at the end is lost.
const glance = 50 * time.Millisecond

// follow reads the peak of a process, once find has found it, until stop is called.
func (w *watched) follow(find func() int) (stop func() int64) {
	if w != nil { // the server's peak is that of this work; a user that may not ask has it since the start
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", w.server.pid), []byte("5"), 0)
	}
	done, most := make(chan struct{}), make(chan int64)
	go func() {
		pid, got := 0, int64(0)
		for {
			if pid == 0 {
				pid = find()
			}
			if _, n, err := figure.Memory(pid); err == nil {
				got = max(got, n)
			}
			select {
			case <-done:
				most <- got
				return
			case <-time.After(glance):
			}
		}
	}()
	return func() int64 { close(done); return <-most }
}

// settleLimit is how long the host may take to give a disk back.
const settleLimit = 10 * time.Second

// used is what the host has done since, once it has given the disk back.
func (w *watched) used(ctx context.Context, again func() (*watched, error)) (c cost, err error) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	now, err := again()
	for err == nil && len(now.lenders) > 0 {
		select {
		case <-ctx.Done():
			return c, fmt.Errorf("%s does not end: %w", lender, ctx.Err())
		case <-time.After(glance / 5):
		}
		now, err = again()
	}
	if err != nil {
		return c, err
	}
	_, most, err := figure.Memory(now.server.pid)
	return cost{
		CPU: map[string]time.Duration{
			server: now.server.own - w.server.own, keeper: now.keeper.own - w.keeper.own, lender: now.keeper.children - w.keeper.children,
		},
		Peak: map[string]int64{server: most},
	}, err
}
