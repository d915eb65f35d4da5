package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"cairn/journal"
)

func TestParseLine(t *testing.T) {
	const at = "2026-01-02T03:04:05.678Z "
	cases := []struct {
		text, level, component, event string
		attrs                         map[string]string
	}{
		{text: "[    1.2] Linux version 6.12"},
		{text: at + "INFO supervise host-ready uptime=9.1", level: "INFO", component: "supervise", event: "host-ready", attrs: map[string]string{"uptime": "9.1"}},
		{text: "/# " + at + `ERROR hostd config-invalid source=smbios err="line 3: \"x\" = y"`, level: "ERROR", component: "hostd", event: "config-invalid", attrs: map[string]string{"source": "smbios", "err": `line 3: "x" = y`}},
		{text: at + "WARN+2 boot waiting", level: "WARN", component: "boot", event: "waiting"},
		{text: at + "INFO boot a k=v[   4.5] kernel: b=c", level: "INFO", component: "boot", event: "a", attrs: map[string]string{"k": "v["}},
		{text: at + "INFO boot"},
		{text: at + `INFO boot "torn`},
		{text: at + `INFO boot ok k="torn`, level: "INFO", component: "boot", event: "ok"},
	}
	for _, c := range cases {
		l := ParseLine(c.text)
		if l.Level != c.level || l.Component != c.component || l.Event != c.event {
			t.Errorf("%q: got %+v", c.text, l)
		}
		for k, v := range c.attrs {
			if !l.Is(c.event, k+"="+v) {
				t.Errorf("%q: %s is %q, want %q", c.text, k, l.Attrs[k], v)
			}
		}
	}
}

// FuzzParseJournal reads back what the journal writes, whatever the values.
func FuzzParseJournal(f *testing.F) {
	f.Add("service-ready", "a b", "x=\"y\"\n")
	f.Fuzz(func(t *testing.T, event, v1, v2 string) {
		var b bytes.Buffer
		journal.New(&b, "supervise").Log(context.Background(), slog.LevelWarn, event, "k1", v1, "k2", v2)
		l := ParseLine(strings.TrimSuffix(b.String(), "\n"))
		valid := strings.ToValidUTF8(event+v1+v2, "") == event+v1+v2
		if valid && (l.Event != event || l.Attrs["k1"] != v1 || l.Attrs["k2"] != v2) {
			t.Errorf("%q: %+v", b.String(), l)
		}
	})
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte("\x1b[2J2026-01-02T03:04:05.678Z INFO a b c=\"d\" e=f"))
	f.Fuzz(func(t *testing.T, raw []byte) { ParseLine(clean(raw)) })
}

func TestClean(t *testing.T) {
	raw := "\x1b[2J\x1b[01;01HBdsDxe: loading\x1b[0m\x00 \r\n"
	if got := clean([]byte(raw)); got != "BdsDxe: loading" {
		t.Errorf("got %q", got)
	}
}

func TestConsole(t *testing.T) {
	const at = "2026-01-02T03:04:05.678Z INFO supervise "
	ctx := context.Background()
	r, w := io.Pipe()
	var log bytes.Buffer
	c := newConsole("h1", nil)
	done := make(chan struct{})
	go func() { c.follow(r, &log); close(done) }()

	go io.WriteString(w, at+"service-ready name=a\n"+at+"service-ready name=b\n")
	if l, err := c.Event(ctx, "service-ready", "name=b"); err != nil || l.N != 1 {
		t.Fatalf("%+v, %v", l, err)
	}
	first, err := c.Event(ctx, "service-ready") // before the mark: still found
	if err != nil || first.Attrs["name"] != "a" {
		t.Fatalf("%+v, %v", first, err)
	}
	c.Mark()
	if l, ok := c.Find(func(l Line) bool { return l.Event != "" }); ok {
		t.Errorf("found %+v behind the mark", l)
	}
	if !c.Since("pid1-start", "service-ready") || c.Since("service-ready", "service-ready") {
		t.Error("what was said since an event does not depend on the mark")
	}
	go io.WriteString(w, "Kernel panic - not syncing: x\n")
	if _, err := c.Event(ctx, "host-ready"); err == nil || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("panic: %v", err)
	}
	c.AllowPanic()
	late, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Event(late, "host-ready"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	go func() { io.WriteString(w, "half a line"); w.Close() }()
	if _, err := c.Event(ctx, "host-ready"); !errors.Is(err, ErrEnded) {
		t.Errorf("ended: %v", err)
	}
	<-done
	if !strings.HasSuffix(log.String(), "half a line") || !strings.HasSuffix(c.Tail(1), "half a line\n") {
		t.Errorf("log %q, tail %q", log.String(), c.Tail(1))
	}
}
