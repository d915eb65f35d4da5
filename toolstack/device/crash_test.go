package device_test

import (
	"fmt"
	"testing"

	"cairn/toolstack/api"
)

// scenario is something a client does, from a state.
type scenario struct {
	name   string
	before [][]string // calls that lead there
	call   []string
	ends   api.VMPowerState // whatever happens; "" is any
}

// crashes tries a scenario once for each of its steps: killed before it, a new
// toolstack has to find the truth.
func (w *world) crashes(t *testing.T, s scenario) {
	for steps := 1; ; steps++ {
		w.t = t
		l := w.begin()
		l.reset()
		for _, c := range s.before {
			l.must(c[0], c[1:]...)
		}
		l.settled("before")
		l.g.allow(steps)
		err := l.call(s.call[0], s.call[1:]...)
		_, dead := l.g.kill()
		l.stop()
		l = w.begin()
		what := fmt.Sprintf("%s killed before step %d (%v)", s.name, steps+1, err)
		l.until(what, func() string {
			if is := l.get().PowerState; s.ends != "" && is != s.ends {
				return "the machine is " + string(is)
			}
			return l.wrong()
		})
		l.reset()
		l.stop()
		if !dead {
			t.Logf("%s has %d steps", s.name, steps)
			return
		}
		if t.Failed() || steps > 100 {
			t.Fatal("gave up")
		}
	}
}

// TestCrashes: a toolstack killed at each step of each operation.
func TestCrashes(t *testing.T) {
	w := newWorld(t)
	l := w.begin()
	l.furnish()
	l.stop()
	vm, on := string(w.vm), []string{"VM.start", string(w.vm), "false", "false"}
	out := [][]string{on, {"VBD.unplug", string(w.hot)}, {"VIF.unplug", string(w.spare)}}
	full := append(out, []string{"VBD.insert", string(w.drive), string(w.iso)})
	for _, s := range []scenario{
		{"start", nil, on, ""},
		{"VBD.plug", out, []string{"VBD.plug", string(w.hot)}, api.VMPowerStateRunning},
		{"VBD.unplug", [][]string{on}, []string{"VBD.unplug", string(w.hot)}, api.VMPowerStateRunning},
		{"VBD.insert", out, []string{"VBD.insert", string(w.drive), string(w.iso)}, api.VMPowerStateRunning},
		{"VBD.eject", full, []string{"VBD.eject", string(w.drive)}, api.VMPowerStateRunning},
		{"VIF.plug", out, []string{"VIF.plug", string(w.spare)}, api.VMPowerStateRunning},
		{"VIF.unplug", [][]string{on}, []string{"VIF.unplug", string(w.spare)}, api.VMPowerStateRunning},
		{"VIF.move", [][]string{on}, []string{"VIF.move", string(w.nic), string(w.there)}, api.VMPowerStateRunning},
		{"clean shutdown", full, []string{"VM.clean_shutdown", vm}, ""},
		{"hard shutdown", full, []string{"VM.hard_shutdown", vm}, ""},
		{"reboot", full, []string{"VM.clean_reboot", vm}, api.VMPowerStateRunning},
		{"hard reboot", full, []string{"VM.hard_reboot", vm}, api.VMPowerStateRunning},
	} {
		t.Run(s.name, func(t *testing.T) { w.crashes(t, s) })
	}
}
