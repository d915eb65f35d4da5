package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// toolstackName is toolstackd among the daemons.
const toolstackName = "toolstackd"

// death is the end of a daemon that nobody asked for.
type death struct{ name, how string }

const (
	// maxDeaths of a daemon within deathWindow are too many to go on.
	maxDeaths   = 5
	deathWindow = time.Minute
	// firstRestart is what a daemon waits before it is started again, and each time
	// four times as long.
	firstRestart = 100 * time.Millisecond
)

// restarts are the last deaths of each daemon.
type restarts map[string][]time.Time

// after counts a death. It returns how long to wait before the daemon is started again,
// or false when it has died too often.
func (r restarts) after(name string, now time.Time) (time.Duration, bool) {
	r[name] = append(slices.DeleteFunc(r[name], func(t time.Time) bool { return now.Sub(t) >= deathWindow }), now)
	n := len(r[name])
	return firstRestart << (2 * (n - 1)), n < maxDeaths
}

// keep starts daemons again that have ended, as PID 1 does on a host, and says so. It
// returns nil when the context or the host ends, and an error when a daemon ends again
// and again.
func keep(ctx context.Context, h host, say io.Writer) error {
	r := restarts{}
	for {
		select {
		case d := <-h.Deaths():
			if err := r.revive(ctx, h, d, say); err != nil {
				return err
			}
		case <-h.Gone():
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// revive starts a daemon again; a start that fails is a death.
func (r restarts) revive(ctx context.Context, h host, d death, say io.Writer) error {
	for {
		pause, ok := r.after(d.name, time.Now())
		if !ok {
			return fmt.Errorf("%s has ended by itself %d times within a minute, the last time with %s", d.name, maxDeaths, d.how)
		}
		fmt.Fprintf(say, "%s has ended by itself (%s), and is started again in %s\n", d.name, d.how, pause)
		select {
		case <-time.After(pause):
		case <-h.Gone():
			return nil
		case <-ctx.Done():
			return nil
		}
		err := h.Restart(d.name)
		if err == nil {
			return nil
		}
		d.how = err.Error()
	}
}
