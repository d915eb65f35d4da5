package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cairn/init/supervise/catalogue"
	"cairn/init/supervise/notify"
)

// world is what the actions of an engine have made of the machine, and checks
// each of them against the invariants of the package comment.
type world struct {
	t        *rapid.T
	e        *Engine
	now      time.Duration
	nextPID  int
	starting []string       // Start without an answer
	probing  []string       // Probe without an answer
	mains    map[string]int // live main processes
	down     bool
	finished bool
}

func (w *world) step(ev Event) {
	for _, a := range w.e.Step(w.now, ev) {
		w.check(a)
	}
	if at, ok := w.e.Next(); ok && at <= w.now {
		w.t.Fatalf("at %v the next time is %v", w.now, at)
	}
}

func (w *world) check(a Action) {
	switch a := a.(type) {
	case Start:
		if w.mains[a.Name] != 0 || slices.Contains(w.starting, a.Name) {
			w.t.Fatalf("%s is started twice", a.Name)
		}
		for _, n := range w.e.byName[a.Name].needs {
			if !n.up() {
				w.t.Fatalf("%s starts before %s is ready", a.Name, n.spec.Name)
			}
		}
		if w.down {
			w.t.Fatalf("%s starts in a shutdown", a.Name)
		}
		w.starting = append(w.starting, a.Name)
	case Probe:
		w.probing = append(w.probing, a.Name)
	case Signal:
		if w.mains[a.Name] != a.PID {
			w.t.Fatalf("%s pid %d is signalled, its main process is %d", a.Name, a.PID, w.mains[a.Name])
		}
		if w.down {
			w.checkOrder(a.Name)
		}
	case KillGroup:
		if w.e.byName[a.Name].spec.Kill == catalogue.KillMain {
			w.t.Fatalf("the group of %s is killed", a.Name)
		}
	case GoingDown:
		if w.down {
			w.t.Fatal("down twice")
		}
		w.down = true
	case Finish:
		if w.finished || !w.down {
			w.t.Fatal("finished twice, or without a shutdown")
		}
		w.finished = true
	}
}

// checkOrder: nothing alive needs what is stopped.
func (w *world) checkOrder(name string) {
	for _, s := range w.e.order {
		if s.alive() && s.pid != 0 && slices.Contains(s.needs, w.e.byName[name]) && w.e.byName[name].state == Stopping {
			if s.state == Ready || s.state == Starting {
				w.t.Fatalf("%s is stopped before %s", name, s.spec.Name)
			}
		}
	}
}

func take(t *rapid.T, from *[]string) string {
	i := rapid.IntRange(0, len(*from)-1).Draw(t, "which")
	name := (*from)[i]
	*from = slices.Delete(*from, i, i+1)
	return name
}

// live draws one of the live main processes.
func (w *world) live() (string, bool) {
	var names []string
	for n := range w.mains {
		names = append(names, n)
	}
	if len(names) == 0 {
		return "", false
	}
	slices.Sort(names)
	return rapid.SampledFrom(names).Draw(w.t, "service"), true
}

func (w *world) exit(ok bool) {
	if name, any := w.live(); any {
		pid := w.mains[name]
		delete(w.mains, name)
		w.step(Exited{PID: pid, OK: ok, Status: "exit"})
	}
}

func (w *world) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"answer": func(t *rapid.T) {
			if len(w.starting) == 0 {
				return
			}
			name := take(t, &w.starting)
			if rapid.Bool().Draw(t, "fails") {
				w.step(StartFailed{name, "no such file"})
				return
			}
			w.nextPID++
			w.mains[name] = w.nextPID
			w.step(Started{name, w.nextPID})
		},
		"probe": func(t *rapid.T) {
			if len(w.probing) > 0 {
				w.step(Probed{take(t, &w.probing), rapid.Bool().Draw(t, "ok")})
			}
		},
		"exit":   func(t *rapid.T) { w.exit(rapid.Bool().Draw(t, "ok")) },
		"orphan": func(*rapid.T) { w.step(Exited{PID: 1 << 20, Status: "exit 0"}) },
		"notify": func(t *rapid.T) {
			if name, ok := w.live(); ok {
				w.step(Notified{name, message(t)})
			}
		},
		"socket": func(t *rapid.T) {
			w.step(SocketAppeared{rapid.SampledFrom(w.e.order).Draw(t, "service").spec.Name})
		},
		"time": func(t *rapid.T) {
			w.now += time.Duration(rapid.IntRange(0, 40000).Draw(t, "ms")) * time.Millisecond
			w.step(Tick{})
		},
		"shutdown": func(t *rapid.T) {
			if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
				w.step(ShutdownRequest{PowerOff, "test"})
			}
		},
	}
}

func message(t *rapid.T) notify.Message {
	usec := rapid.SampledFrom([]time.Duration{0, 0, time.Microsecond, time.Second, 1 << 62})
	return notify.Message{
		Ready: rapid.Bool().Draw(t, "ready"), Ping: rapid.Bool().Draw(t, "ping"),
		Trigger:  rapid.IntRange(0, 9).Draw(t, "trigger") == 0,
		Stopping: rapid.IntRange(0, 9).Draw(t, "stopping") == 0,
		Watchdog: usec.Draw(t, "watchdog"), Extend: usec.Draw(t, "extend"),
	}
}

// randomServices draws a valid catalogue.
func randomServices(t *rapid.T) []catalogue.Service {
	var list []catalogue.Service
	for i := range rapid.IntRange(1, 6).Draw(t, "services") {
		kind := rapid.SampledFrom([]catalogue.ReadyKind{
			catalogue.Notify, catalogue.Notify, catalogue.Socket, catalogue.Probe, catalogue.Exit,
		}).Draw(t, "ready")
		name := fmt.Sprintf("s%d", i)
		s := catalogue.Service{
			Name: name, Argv: []string{"/bin/x"},
			Ready: catalogue.Ready{Kind: kind, Path: "/run/x/" + name, Argv: []string{"/bin/probe"}},
			Dirs:  []catalogue.Dir{{Path: "/run/x", Mode: 0o755}},
			Class: rapid.SampledFrom([]catalogue.Class{catalogue.Critical, catalogue.Restartable}).Draw(t, "class"),
			Kill:  rapid.SampledFrom([]catalogue.KillMode{catalogue.KillGroup, catalogue.KillMain}).Draw(t, "kill"),
			Grace: 5 * time.Second, StartTimeout: 20 * time.Second,
		}
		if kind == catalogue.Exit {
			s.Class = catalogue.Oneshot
		}
		if kind == catalogue.Notify && rapid.Bool().Draw(t, "watched") {
			s.Watchdog = 10 * time.Second
		}
		for j := range i {
			if rapid.Bool().Draw(t, "needs") {
				s.Needs = append(s.Needs, fmt.Sprintf("s%d", j))
			}
		}
		if i > 0 && rapid.Bool().Draw(t, "after") {
			s.After, s.AfterLimit = []string{fmt.Sprintf("s%d", rapid.IntRange(0, i-1).Draw(t, "whom"))}, 7*time.Second
		}
		list = append(list, s)
	}
	return list
}

func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, err := New(randomServices(t))
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, e: e, nextPID: 100, mains: map[string]int{}}
		w.step(Boot{})
		t.Repeat(w.actions())
		w.end()
	})
}

// end: a shutdown ends, whatever the processes do.
func (w *world) end() {
	w.step(ShutdownRequest{Reboot, "test"})
	for range 1000 {
		at, ok := w.e.Next()
		if w.finished || !ok {
			break
		}
		w.now = at
		w.step(Tick{})
	}
	if !w.finished {
		w.t.Fatalf("the shutdown does not end")
	}
}
