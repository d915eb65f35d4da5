package guest

import (
	"fmt"
	"testing"
	"time"

	"cairn/toolstack/guest/qga"
)

// TestPresence walks through an agent's life; a step is seconds since the start, and
// "+" an answer or "-" a failure.
func TestPresence(t *testing.T) {
	for name, tt := range map[string]struct {
		steps string
		want  Presence
	}{
		"nobody ever":                 {"20- 40- 60- 900-", Unknown},
		"appears late":                {"20- 900- 901+", Present},
		"one question lost":           {"1+ 31- 40+", Present},
		"busy for a while":            {"1+ 31- 45-", Present},
		"hangs":                       {"1+ 31- 46-", Hung},
		"hangs, comes back":           {"1+ 31- 60- 80+", Present},
		"hangs, comes back, one lost": {"1+ 31- 60- 80+ 81-", Present},
		"hangs for long":              {"1+ 31- 60- 330-", Hung},
		"gone":                        {"1+ 31- 60- 331-", Gone},
		"gone at once":                {"1+ 31- 700-", Gone},
		"comes back from the dead":    {"1+ 31- 60- 900- 999+", Present},
	} {
		t.Run(name, func(t *testing.T) {
			start, p := time.Unix(0, 0), presence{}
			for rest := tt.steps; rest != ""; {
				var at int
				var what rune
				if _, err := fmt.Sscanf(rest, "%d%c", &at, &what); err != nil {
					t.Fatal(err)
				}
				if what == '+' {
					p = p.answered()
				} else {
					p = p.failed(start.Add(time.Duration(at) * time.Second))
				}
				for rest = rest[1:]; rest != "" && rest[0] != ' '; rest = rest[1:] {
				}
				if rest != "" {
					rest = rest[1:]
				}
			}
			if p.Presence != tt.want {
				t.Errorf("%s is %s, want %s", tt.steps, p.Presence, tt.want)
			}
		})
	}
}

// FuzzPresence: an agent counts as present only since it has answered, is lost step by
// step, and pauses are bounded.
func FuzzPresence(f *testing.F) {
	f.Add([]byte{0, 10, 20, 255, 3})
	f.Fuzz(func(t *testing.T, steps []byte) {
		now, p := time.Unix(0, 0), presence{}
		for _, s := range steps {
			now = now.Add(time.Duration(s) * time.Second)
			was := p.Presence
			if s%4 == 0 {
				if p = p.answered(); p.Presence != Present {
					t.Fatalf("after an answer it is %s", p.Presence)
				}
				continue
			}
			p = p.failed(now)
			if p.Presence == Present && was != Present || was == Unknown && p.Presence != Unknown || p.Presence < was {
				t.Fatalf("from %s a failure makes %s", was, p.Presence)
			}
			for _, why := range []error{qga.ErrSilent, qga.ErrGarbage, qga.ErrClosed, fmt.Errorf("%w: %w", errStalled, qga.ErrSilent)} {
				if d := p.pause(why); d < silentMin || d > nonsenseMax {
					t.Fatalf("pause of %s after %v", d, why)
				}
			}
		}
	})
}
