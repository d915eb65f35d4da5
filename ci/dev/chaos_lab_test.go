//go:build lab

package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cairn/ci/interpose"
)

var (
	seed  = flag.Uint64("seed", 1, "`number` the kills follow from")
	loose = flag.Int("loose", 1, "kills at random moments, of each daemon in each operation that is quick")
	only  = flag.String("only", "", "the `operation` to kill in, such as VM.start; all without")
)

// daemonNames are those that are killed.
var daemonNames = []string{"toolstackd", "hostd", "libvirtd"}

// kill is one to be made: of a daemon, at a moment of the nth time a step is come
// to in an operation, or at a part of the time the operation takes.
type kill struct {
	op     operation
	daemon string
	step   interpose.Step
	nth    int
	moment interpose.Moment
	part   float64       // of the step's time, of the operation's for one without a step
	delay  time.Duration // that part
}

func (k kill) String() string {
	at := fmt.Sprintf("%s %s", k.moment, k.step)
	switch {
	case k.step == interpose.Step{}:
		at = fmt.Sprintf("at %.0f%% of its time", 100*k.part)
	case k.step.Peer == peerClient:
		at = "when " + k.step.Name
	case k.nth > 1:
		at += fmt.Sprintf(" (%d.)", k.nth)
	}
	return fmt.Sprintf("%-10s in %-17s %s", k.daemon, k.op.name, at)
}

// The steps a client sees: the record says that the operation has begun, and the
// call is answered.
const (
	peerClient = "client"
	begun      = "it has begun"
	answered   = "it is answered"
)

// TestGuestChaos kills toolstackd, hostd and libvirtd at each step of what is done to
// a guest, and looks each time whether the operation is finished or undone, the
// record says what is true, and nothing is lost.
func TestGuestChaos(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Minute)
	defer cancel()
	t.Logf("seed %d", *seed)
	r := newRig(ctx, t)
	r.build()
	random := rand.New(rand.NewPCG(*seed, 0))
	for _, round := range rounds {
		r.round(round, random)
		if t.Failed() {
			break
		}
	}
	if !t.Failed() {
		r.tearDown()
	}
	t.Logf("kills=%d lost=%d finished=%d undone=%d missed=%d", r.kills, r.lost, r.finished, r.undone, r.missed)
}

// round is operations that alternate: each makes the guest what the next needs.
type round struct {
	begin, end func(*rig)
	ops        []operation
}

// round measures what steps its operations have, and then kills at each.
func (r *rig) round(of round, random *rand.Rand) {
	r.Helper()
	ops := of.ops
	if *only != "" && !slices.ContainsFunc(ops, func(o operation) bool { return o.name == *only }) {
		return
	}
	of.begin(r)
	defer of.end(r)
	var plans [][]kill
	for _, op := range ops {
		steps, took := r.measure(op)
		plans = append(plans, plan(op, steps, took, random))
	}
	for n := 0; ; n++ {
		some := false
		for i := range plans {
			if n < len(plans[i]) && (*only == "" || *only == ops[i].name) {
				some = true
				r.strike(plans[i][n])
			}
			if r.Failed() {
				return
			}
		}
		if !some {
			return
		}
	}
}

// plan are the kills of an operation: each daemon at each step at a moment of the
// seed's choice, in an order of the seed's.
func plan(op operation, steps []timed, took time.Duration, random *rand.Rand) (all []kill) {
	count := map[interpose.Step]int{}
	for _, s := range steps {
		count[s.Step]++
		victims := daemonNames
		if op.slow {
			victims = []string{daemonNames[random.IntN(len(daemonNames))]}
		}
		for _, daemon := range victims {
			k := kill{op: op, daemon: daemon, step: s.Step, nth: count[s.Step], part: random.Float64()}
			k.delay = time.Duration(k.part * float64(s.took))
			if k.moment = interpose.Moment(random.IntN(3)); s.event {
				k.moment = interpose.Answered
			}
			all = append(all, k)
		}
	}
	for range *loose {
		for _, daemon := range daemonNames {
			if !op.slow {
				part := random.Float64()
				all = append(all, kill{op: op, daemon: daemon, part: part, delay: time.Duration(part * float64(took))})
			}
		}
	}
	all = slices.DeleteFunc(all, endsGuest)
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// endsGuest tells the kills that libvirt (11.3) answers by ending the guest: between
// taking a NIC's end on the host from QEMU and noting it. See docs/decisions.md.
func endsGuest(k kill) bool {
	if k.op.name != "VIF.unplug" || k.daemon != "libvirtd" {
		return false
	}
	return k.step.Name == "event device removed" ||
		k.step.Name == "detach device" && k.moment == interpose.Handed ||
		k.step == interpose.Step{}
}

// timed is a step and how long it takes when nothing is killed.
type timed struct {
	interpose.Step
	took  time.Duration
	event bool
}

// callLimit bounds an operation whose daemons die.
const callLimit = 2 * time.Minute

// measure does an operation without a kill and writes down its steps.
func (r *rig) measure(op operation) (steps []timed, took time.Duration) {
	r.Helper()
	op.before(r)
	r.steps.record()
	begin := time.Now()
	if err := op.call(r.ctx, r); err != nil {
		r.Fatalf("%s: %v", op.name, err)
	}
	took = time.Since(begin)
	r.rest(op)
	steps = append([]timed{{Step: interpose.Step{Peer: peerClient, Name: begun}}}, r.steps.recorded()...)
	steps = append(steps, timed{Step: interpose.Step{Peer: peerClient, Name: answered}})
	for _, s := range steps {
		fmt.Printf("%5.0f step %-17s %s (%s)\n", time.Since(r.since).Seconds(), op.name, s.Step, s.took.Round(time.Millisecond))
	}
	op.after(r)
	return steps, took
}

// strike makes one kill and judges what has come of it.
func (r *rig) strike(k kill) {
	r.Helper()
	k.op.before(r)
	start := time.Now()
	r.note("--- %s", k)
	made := r.arm(k)
	ctx, cancel := context.WithTimeout(r.ctx, callLimit)
	defer cancel()
	err := k.op.call(ctx, r)
	if k.step.Name == answered {
		made.fire()
	}
	hit := r.disarm(made)
	if !hit {
		r.missed++
		fmt.Printf("%5.0f miss     %s (%v)\n", time.Since(r.since).Seconds(), k, brief(err))
	}
	r.rest(k.op)
	done := k.op.done(r)
	verdict := "undone"
	if done {
		verdict = "finished"
	}
	switch {
	case err == nil && !done:
		r.lost++
		r.Errorf("%s: it was answered, and is undone", k)
		verdict = "LOST"
	case done:
		r.finished++
	default:
		r.undone++
	}
	if hit {
		r.kills++
		fmt.Printf("%5.0f kill %3d %s: %s, %.1f s (%v)\n", time.Since(r.since).Seconds(), r.kills, k, verdict, time.Since(start).Seconds(), brief(err))
	}
	k.op.after(r)
	if r.Failed() {
		r.Errorf("this was %s", k)
	}
}

func brief(err error) string {
	if err == nil {
		return "answered"
	}
	text := err.Error()
	return text[:min(len(text), 100)]
}
