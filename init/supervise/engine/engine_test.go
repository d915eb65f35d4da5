package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn/golden"
	"cairn/init/supervise/catalogue"
	"cairn/init/supervise/notify"
)

// A transcript is blocks of commands, a line of dashes, and what came out.
// Lines that start with # are kept. The commands:
//
//	service <name> [class=] [needs=a,b] [ready=] [kill=] [watchdog=] [grace=] [timeout=] [trusted]
//	boot | started <name> <pid> | start-failed <name> <error…> | exited <pid> <status…>
//	notify <name> <assignments, separated by blanks> | socket <name> | probed <name> yes|no
//	shutdown <kind> | advance <duration> | states
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(data))
			golden.Equal(t, f, got)
		})
	}
}

// replay runs the commands of a transcript and returns it with fresh output.
func replay(t *testing.T, text string) string {
	r := &player{t: t}
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		commands, _, _ := strings.Cut(block+"\n", "----\n")
		out.WriteString(strings.TrimRight(commands, "\n") + "\n")
		r.out.Reset()
		for line := range strings.Lines(commands) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				r.run(strings.Fields(line))
			}
		}
		if r.out.Len() > 0 {
			out.WriteString("----\n" + r.out.String())
		}
	}
	return out.String()
}

// player holds one transcript's engine and time.
type player struct {
	t     *testing.T
	specs []catalogue.Service
	e     *Engine
	now   time.Duration
	out   strings.Builder
}

func (r *player) run(f []string) {
	rest := strings.Join(f[min(2, len(f)):], " ")
	switch f[0] {
	case "service":
		r.specs = append(r.specs, r.service(f[1], f[2:]))
	case "boot":
		e, err := New(r.specs)
		if err != nil {
			r.t.Fatal(err)
		}
		r.e = e
		r.step(Boot{})
	case "started":
		r.step(Started{f[1], r.number(f[2])})
	case "start-failed":
		r.step(StartFailed{f[1], rest})
	case "exited":
		r.step(Exited{PID: r.number(f[1]), OK: rest == "exit 0", Status: rest})
	case "notify":
		m, err := notify.Parse([]byte(strings.Join(f[2:], "\n")))
		if err != nil {
			r.t.Fatal(err)
		}
		r.step(Notified{f[1], m})
	case "socket":
		r.step(SocketAppeared{f[1]})
	case "probed":
		r.step(Probed{f[1], f[2] == "yes"})
	case "guests":
		r.step(Guests{f[1] == "yes"})
	case "shutdown":
		r.step(ShutdownRequest{Kind(f[1]), "test"})
	case "advance":
		r.advance(r.duration(f[1]))
	case "states":
		for _, s := range r.e.order {
			fmt.Fprintf(&r.out, "%s %s pid=%d\n", s.spec.Name, s.state, s.pid)
		}
	default:
		r.t.Fatalf("unknown command %q", f[0])
	}
}

// advance gives a Tick at each time the engine asks for.
func (r *player) advance(d time.Duration) {
	end := r.now + d
	for range 10000 {
		at, ok := r.e.Next()
		if !ok || at > end {
			r.now = end
			return
		}
		if at <= r.now {
			r.t.Fatalf("at %v the next time is %v", r.now, at)
		}
		r.now = at
		r.step(Tick{})
	}
	r.t.Fatal("the engine spins")
}

func (r *player) step(ev Event) {
	for _, a := range r.e.Step(r.now, ev) {
		fmt.Fprintf(&r.out, "%-8s %s\n", seconds(r.now), a)
	}
}

func (r *player) service(name string, options []string) catalogue.Service {
	s := catalogue.Service{
		Name: name, Argv: []string{"/bin/" + name}, Ready: catalogue.Ready{Kind: catalogue.Notify},
		Class: catalogue.Restartable, StartTimeout: 30 * time.Second, Grace: 5 * time.Second, Kill: catalogue.KillGroup,
	}
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "class":
			s.Class = catalogue.Class(value)
		case "after":
			s.After, s.AfterLimit = strings.Split(value, ","), 10*time.Second
		case "needs":
			s.Needs = strings.Split(value, ",")
		case "ready":
			s.Ready = catalogue.Ready{Kind: catalogue.ReadyKind(value), Path: "/run/" + name, Argv: []string{"/bin/probe"}}
			s.Dirs = []catalogue.Dir{{Path: "/run", Mode: 0o755}}
		case "kill":
			s.Kill = catalogue.KillMode(value)
		case "watchdog":
			s.Watchdog = r.duration(value)
		case "grace":
			s.Grace = r.duration(value)
		case "timeout":
			s.StartTimeout = r.duration(value)
		case "trusted":
			s.Trusted = true
		default:
			r.t.Fatalf("unknown option %q", o)
		}
	}
	return s
}

func (r *player) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

func (r *player) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}
