package coalesce

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// parse reads layers, one a line: name, parent or -, and any of hidden, attached,
// running, busy, and the kind of a recorded step.
func parse(t *testing.T, text string) (all []Layer) {
	t.Helper()
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		l := Layer{ID: f[0], Parent: strings.TrimPrefix(f[1], "-")}
		for _, word := range f[2:] {
			switch word {
			case "hidden":
				l.Hidden = true
			case "attached":
				l.Attached = true
			case "running":
				l.Attached, l.Running = true, true
			case "busy":
				l.Busy = true
			case "tracked":
				l.Tracked = true
			default:
				l.Step = Kind(word)
			}
		}
		all = append(all, l)
	}
	return all
}

func show(steps []Step) string {
	var all []string
	for _, s := range steps {
		text := fmt.Sprintf("%s %s", s.Kind, s.Layer)
		if s.Into != "" {
			text += ">" + s.Into
		}
		if len(s.Above) > 0 {
			text += " under " + strings.Join(s.Above, ",")
		}
		if s.Recorded {
			text += " again"
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

func TestPlan(t *testing.T) {
	for _, tt := range []struct{ name, layers, want string }{
		{"nothing", "", ""},
		{"one disk", "a -", ""},
		{"a disk on a hidden layer", "p - hidden\na p", "leaf a>p"},
		{"on one that is shared", "p - hidden\na p\nb p", ""},
		{"on a snapshot", "s -\na s", ""},
		{"in use", "p - hidden\na p attached", ""},
		{"under a running domain", "p - hidden\na p running", "live a>p"},
		{"with an operation", "p - hidden\na p busy", ""},
		{"the layer below with one", "p - hidden busy\na p", ""},
		{"whose changes are on record", "p - hidden\na p tracked", ""},
		{"of a running domain whose changes are on record", "p - hidden\na p running tracked", ""},
		{"hidden layers below one", "p - hidden\nn p hidden\na n tracked", "inner n>p under a"},
		{"two hidden layers", "p - hidden\nn p hidden\na n\nb n", "inner n>p under a,b"},
		{"of which one is read by a domain", "p - hidden\nn p hidden\na n running\nb n", ""},
		{"two under a running domain", "p - hidden\nn p hidden\na n running", "live a>n"},
		{"a snapshot in between", "p - hidden\ns p\na s", "inner s>p under a"},
		{"a snapshot that is attached", "p - hidden\ns p attached\na s", ""},
		{"nothing on a hidden layer", "p - hidden", "drop p"},
		{"nothing on a hidden layer that is attached", "p - hidden attached", ""},
		{"the cheapest first, and removing before that", "p - hidden\na p\nq - hidden\nd - hidden\nb q", "drop d; leaf a>p; leaf b>q"},
		{"a recorded step and its neighbours", "q - hidden\np q hidden inner\nn p hidden\na n\nb n", "inner p>q under n again"},
		{"a recorded step that has to wait", "q - hidden\np q hidden inner\na p running", ""},
		{"a layer that is being made on the one below", "p - hidden\na p\nx p hidden busy", ""},
		{"a scratch layer", "p - hidden\na p\nx a hidden busy", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(Plan(parse(t, tt.layers))); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Whatever the layers are, no step touches what somebody else reads or uses, and
// doing one after another comes to an end with as few layers as can be.
func TestPlanOfAnything(t *testing.T) {
	for seed := range uint64(2000) {
		layers := forestOf(rand.New(rand.NewPCG(seed, 0)))
		for n := 0; ; n++ {
			steps := Plan(layers)
			for _, s := range steps {
				if err := harmless(layers, s); err != nil {
					t.Fatalf("seed %d: %v: %s of %+v", seed, err, show([]Step{s}), layers)
				}
			}
			if len(steps) == 0 {
				break
			}
			if n > len(layers)+20 {
				t.Fatalf("seed %d: no end: %s", seed, show(steps))
			}
			layers = perform(layers, steps[0])
		}
		for _, l := range layers {
			if l.Hidden && !l.Attached && !l.Busy && len(above(layers, l.ID)) == 0 {
				t.Fatalf("seed %d: %s is left of nothing", seed, l.ID)
			}
		}
	}
}

func forestOf(r *rand.Rand) (all []Layer) {
	for i := range 1 + r.IntN(12) {
		l := Layer{ID: fmt.Sprint(i), Hidden: r.IntN(2) == 0, Size: r.Int64N(100)}
		if i > 0 && r.IntN(6) > 0 {
			l.Parent = fmt.Sprint(r.IntN(i))
		}
		l.Busy = r.IntN(10) == 0
		l.Tracked = r.IntN(10) == 0
		if l.Attached = r.IntN(8) == 0; l.Attached {
			l.Running = r.IntN(2) == 0
		}
		all = append(all, l)
	}
	return all
}

func above(all []Layer, id string) (up []Layer) {
	for _, l := range all {
		if l.Parent == id {
			up = append(up, l)
		}
	}
	return up
}

func harmless(all []Layer, s Step) error {
	by := map[string]Layer{}
	for _, l := range all {
		by[l.ID] = l
	}
	l, into := by[s.Layer], by[s.Into]
	var used func(id string) bool
	used = func(id string) bool {
		for _, up := range above(all, id) {
			if up.Attached || up.Busy || used(up.ID) {
				return true
			}
		}
		return false
	}
	switch {
	case l.Busy || into.Busy:
		return fmt.Errorf("an operation is in progress")
	case s.Kind == Drop && (!l.Hidden || len(above(all, l.ID)) > 0 || l.Attached):
		return fmt.Errorf("it is needed")
	case s.Kind == Drop:
		return nil
	case !into.Hidden:
		return fmt.Errorf("%s is somebody's", into.ID)
	case len(above(all, into.ID)) != 1 || l.Parent != into.ID:
		return fmt.Errorf("others read %s", into.ID)
	case s.Kind != Live && l.Attached || used(l.ID):
		return fmt.Errorf("a domain has it open")
	case s.Kind == Live && !l.Running:
		return fmt.Errorf("no domain could do it")
	case s.Kind != Inner && s.Kind != Drop && l.Tracked:
		return fmt.Errorf("its changes are on record nowhere else")
	case s.Kind != Inner && len(above(all, l.ID)) > 0:
		return fmt.Errorf("others are based on it")
	}
	return nil
}

func perform(all []Layer, s Step) (next []Layer) {
	for _, l := range all {
		switch {
		case s.Kind == Drop && l.ID == s.Layer, s.Kind != Drop && l.ID == s.Into:
			continue
		case s.Kind != Drop && l.ID == s.Layer: // it is now where the one below was
			for _, p := range all {
				if p.ID == s.Into {
					l.Parent = p.Parent
				}
			}
		}
		next = append(next, l)
	}
	return next
}
