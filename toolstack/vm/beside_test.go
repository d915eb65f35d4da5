package vm_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/storage"
	"cairn/toolstack/vm"
)

// keep makes a disk that belongs to no VM.
func (l *life) keep(method string, args ...any) error {
	var made api.VDIRef
	err := l.call(&made, method, args...)
	if err == nil {
		l.disks = append(l.disks, made)
	}
	return err
}

var besideSeeds = flag.Uint64("beside.seeds", 20, "how many `times` a checkpoint meets a snapshot")

// TestCheckpointBesideSnapshots: what may go on beside a checkpoint does not keep the
// guest from waking, whichever of them comes first at each step.
func TestCheckpointBesideSnapshots(t *testing.T) {
	others := []func(*life) error{
		func(l *life) error { return l.call(nil, "VM.snapshot", l.subject, "other", []string{}) },
		takeCheckpoint,
		func(l *life) error { return l.keep("VDI.snapshot", l.disks[0], map[string]string{}) },
		func(l *life) error { return l.keep("VDI.clone", l.disks[1], map[string]string{}) },
	}
	for seed := range *besideSeeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t)
			l := w.prepare(crashCase{"", running, nothing, nil, nil})
			defer func() { l.end() }()
			r := rand.New(rand.NewPCG(seed, 1))
			yield := func() {
				for range rand.IntN(200) {
					runtime.Gosched()
				}
			}
			l.gate.disturb(yield)
			w.hostd.Copying = func() {
				for range 10 {
					yield()
				}
			}
			var both sync.WaitGroup
			var err, beside error
			other, late := others[seed%uint64(len(others))], r.IntN(2000)
			both.Go(func() { err = takeCheckpoint(l) })
			both.Go(func() {
				for range late {
					runtime.Gosched()
				}
				beside = other(l)
			})
			both.Wait()
			t.Logf("the checkpoint: %v; beside it: %v", err, beside)
			if what := l.until(func() string {
				if v := l.vm(l.subject); v.PowerState != running || len(v.CurrentOperations) > 0 {
					return fmt.Sprintf("the VM is %s doing %v", v.PowerState, v.CurrentOperations)
				}
				return l.intact(10, 11)
			}); what != "" || err != nil {
				t.Errorf("%s; the checkpoint: %v", what, err)
			}
			if what := l.usable(); what != "" {
				t.Error(what)
			}
		})
	}
}

// meddling has something happen while a VM sleeps for a checkpoint.
type meddling struct {
	vm.Disks
	meanwhile *func()
}

func (d meddling) Snapshot(ctx context.Context, vdis []api.VDIRef, live storage.Live) (map[api.VDIRef]api.VDIRef, error) {
	(*d.meanwhile)()
	return d.Disks.Snapshot(ctx, vdis, live)
}

// TestImageIsCopiedWhenItIsNeeded: a client copies the memory of a VM that is to wake.
// That passes, and the VM wakes.
func TestImageIsCopiedWhenItIsNeeded(t *testing.T) {
	var meanwhile func()
	r := newRigEdit(t, func(c *vm.Config) { c.Disks = meddling{c.Disks, &meanwhile} })
	ref := r.install("x")
	r.bring(ref, running)
	copied := make(chan error, 1)
	meanwhile = func() {
		image := r.record(ref).SuspendVDI
		name, begun, needed := r.vdi(image).Location, make(chan bool), make(chan bool)
		var once sync.Once
		r.hostd.Fail(func(verb, _, volume string) error {
			if verb == "activate" && volume == name {
				once.Do(func() { close(needed) })
			}
			return nil
		})
		r.hostd.Copying = func() { close(begun); <-needed }
		go func() { _, err := r.Call("VDI.copy", image, r.sr, "", ""); copied <- err }()
		<-begun
	}
	var made string
	r.Must(&made, "VM.checkpoint", ref, "c")
	must(t, <-copied)
	r.state(ref, running)
	if v := r.record(made); v.PowerState != suspended {
		t.Errorf("the checkpoint is %s", v.PowerState)
	}
}
