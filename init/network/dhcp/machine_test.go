package dhcp

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn/golden"
)

// fixed is chance without any: no jitter, transaction ids that count.
type fixed struct{ n uint32 }

func (f *fixed) Uint32() uint32   { f.n++; return f.n }
func (f *fixed) Float64() float64 { return 0.5 }

// sim lives through a script in virtual time and writes down what happens.
type sim struct {
	m     *Machine
	start time.Time
	now   time.Time
	last  Query // the question a reply answers
	out   strings.Builder
}

func newSim() *sim {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return &sim{m: New(&fixed{}), start: start, now: start}
}

func (s *sim) note(format string, args ...any) {
	fmt.Fprintf(&s.out, "%10s %-10s %s\n", s.now.Sub(s.start), s.m.State(), fmt.Sprintf(format, args...))
}

func (s *sim) did(actions []Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case Send:
			s.last = a.Query
			s.note("send %s", describe(a.Query))
		case Got:
			s.note("got %s server=%s renewed=%v expires=%s", a.Lease.Address, a.Lease.Server, a.Renewed, s.rel(a.Lease.Expires))
		case Lost:
			s.note("lost %s: %s", a.Address, a.Reason)
		}
	}
}

func (s *sim) rel(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Sub(s.start).String()
}

func describe(q Query) string {
	to := "broadcast"
	if q.To.IsValid() {
		to = q.To.String()
	}
	out := fmt.Sprintf("%s to %s xid=%d secs=%d", q.Type, to, q.XID, q.Secs)
	for _, f := range []struct {
		name string
		a    netip.Addr
	}{{"ciaddr", q.ClientIP}, {"requested", q.Requested}, {"server", q.Server}} {
		if f.a.IsValid() {
			out += fmt.Sprintf(" %s=%s", f.name, f.a)
		}
	}
	return out
}

// wait lets time pass, ticking exactly when the machine asked for it.
func (s *sim) wait(d time.Duration) {
	end := s.now.Add(d)
	for {
		next := s.m.Deadline()
		if next.IsZero() || next.After(end) {
			break
		}
		s.now = next
		s.did(s.m.Tick(s.now))
	}
	s.now = end
}

// reply builds a reply from words such as addr=10.0.0.5/24 lease=1h.
func (s *sim) reply(t *testing.T, kind Type, words []string) Reply {
	t.Helper()
	r := Reply{
		Type: kind, XID: s.last.XID, Address: netip.MustParsePrefix("10.0.0.5/24"),
		Server: netip.MustParseAddr("10.0.0.1"), Duration: time.Hour,
	}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		var err error
		switch key {
		case "addr":
			r.Address, err = netip.ParsePrefix(value)
		case "server":
			r.Server, err = netip.ParseAddr(value)
		case "lease":
			if r.Duration = Infinite; value != "forever" {
				r.Duration, err = time.ParseDuration(value)
			}
		case "t1":
			r.T1, err = time.ParseDuration(value)
		case "t2":
			r.T2, err = time.ParseDuration(value)
		case "xid":
			_, err = fmt.Sscan(value, &r.XID)
		case "msg":
			r.Message = value
		default:
			err = fmt.Errorf("unknown word %q", w)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (s *sim) command(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	kinds := map[string]Type{"offer": Offer, "ack": Ack, "nak": Nak}
	switch cmd := words[0]; cmd {
	case "start":
		s.did(s.m.Start(s.now))
	case "linkup":
		s.did(s.m.LinkUp(s.now))
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		s.wait(d)
	case "resume":
		r := s.reply(t, Ack, words[1:])
		s.did(s.m.Resume(s.now, Lease{Address: r.Address, Server: r.Server, Expires: s.now.Add(r.Duration)}))
	default:
		kind, ok := kinds[cmd]
		if !ok {
			t.Fatalf("unknown command %q", line)
		}
		s.did(s.m.Receive(s.now, s.reply(t, kind, words[1:])))
	}
}

func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.script")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".script"), func(t *testing.T) { runScript(t, path) })
	}
}

func runScript(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := newSim()
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		s.out.WriteString(line + "\n")
		if line[0] != '#' {
			s.command(t, line)
		}
	}
	golden.Equal(t, strings.TrimSuffix(path, ".script")+".golden", s.out.String())
}
