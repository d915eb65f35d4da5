package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRestarts(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := restarts{}
	for _, c := range []struct {
		name string
		at   time.Duration
		want time.Duration // 0: it has died too often
	}{
		{"a", 0, 100 * time.Millisecond}, {"a", time.Second, 400 * time.Millisecond}, {"b", time.Second, 100 * time.Millisecond},
		{"a", 2 * time.Second, 1600 * time.Millisecond}, {"a", 59 * time.Second, 6400 * time.Millisecond},
		{"a", 60 * time.Second, 6400 * time.Millisecond}, {"a", 60 * time.Second, 0},
		{"a", 10 * time.Minute, 100 * time.Millisecond}, {"b", time.Hour, 100 * time.Millisecond},
	} {
		pause, ok := r.after(c.name, begin.Add(c.at))
		if ok != (c.want != 0) || ok && pause != c.want {
			t.Errorf("%s after %s: %s, %t, want %s", c.name, c.at, pause, ok, c.want)
		}
	}
}

// mortal is a host whose daemons die when a test says so.
type mortal struct {
	deaths  chan death
	gone    chan struct{}
	started []string
	fail    error // of Restart
}

func newMortal() *mortal { return &mortal{deaths: make(chan death), gone: make(chan struct{})} }

func (m *mortal) Gone() <-chan struct{} { return m.gone }
func (m *mortal) Deaths() <-chan death  { return m.deaths }
func (m *mortal) Close() error          { return nil }

func (m *mortal) Restart(name string) error {
	m.started = append(m.started, name)
	return m.fail
}

// TestKeep: a daemon that ends is started again, with a line, until it ends too often.
func TestKeep(t *testing.T) {
	for _, c := range []struct {
		name   string
		deaths []string
		fail   error
		want   string // the error
		lines  int
	}{
		{"some", []string{"toolstackd", "hostd", "toolstackd", "libvirtd", "toolstackd", "toolstackd"}, nil, "", 6},
		{"too many", []string{"hostd", "hostd", "hostd", "hostd", "hostd"}, nil, "hostd has ended by itself 5 times within a minute, the last time with exit status 2", 4},
		{"never starts", []string{"hostd"}, errors.New("no socket"), "hostd has ended by itself 5 times within a minute, the last time with no socket", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newMortal()
				h.fail = c.fail
				var said strings.Builder
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- keep(ctx, h, &said) }()
				for _, name := range c.deaths {
					h.deaths <- death{name, "exit status 2"}
				}
				time.Sleep(9 * time.Second)
				cancel()
				if err := <-ended; fmt.Sprint(err) != c.want && (err != nil || c.want != "") {
					t.Errorf("%v, want %s", err, c.want)
				}
				if n := strings.Count(said.String(), " is started again in "); n != c.lines || n != len(h.started) {
					t.Errorf("%d lines, started %v:\n%s", n, h.started, &said)
				}
				if c.fail == nil && !slices.Equal(h.started, c.deaths[:c.lines]) {
					t.Errorf("started %v", h.started)
				}
				if !strings.Contains(said.String(), "d has ended by itself (exit status 2), and is started again in 100ms\n") {
					t.Errorf("said %s", &said)
				}
			})
		})
	}
}

// TestStayEnds: a daemon that ends again and again ends the program with an error that
// names it and shows the log, whether the API has answered or not.
func TestStayEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, err := openLog(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		fmt.Fprintln(log, "why it ends")
		h := newMortal()
		h.fail = errors.New("no socket")
		go func() { h.deaths <- death{"libvirtd", "signal: killed"} }()
		err = stay(t.Context(), config{}, h, log, time.Now())
		if text := fmt.Sprint(err); !strings.HasPrefix(text, "libvirtd has ended by itself 5 times") || !strings.Contains(text, "why it ends") {
			t.Error(err)
		}
	})
}

// TestPoolIsRevived: a toolstackd that is killed is missed, and the next one gets the
// same socket.
func TestPoolIsRevived(t *testing.T) {
	dir := t.TempDir()
	// Sockets are at descriptor 3, as systemd hands them over.
	script := "#!/bin/sh\n[ -S /proc/self/fd/3 ] && echo \"$LISTEN_FDS $LISTEN_FDNAMES $(readlink /proc/self/fd/3)\"\nexec sleep 600\n"
	if err := os.WriteFile(filepath.Join(dir, "dev-toolstackd-sim"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out, log := io.Pipe()
	h, err := startPool(t.Context(), config{Dir: dir, Bin: dir, Built: true, SimHosts: 1}, l, log)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	said := make([]string, 2)
	for i := range said {
		b := make([]byte, 1000)
		n, _ := out.Read(b)
		if said[i] = string(b[:n]); !strings.HasPrefix(said[i], "1 https socket:") {
			t.Errorf("the program said %q", said[i])
		}
		if i > 0 {
			break
		}
		if err := h.(*pool).cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if d := <-h.Deaths(); d != (death{toolstackName, "signal: killed"}) {
			t.Errorf("%+v", d)
		}
		if err := h.Restart(toolstackName); err != nil {
			t.Fatal(err)
		}
	}
	if said[0] != said[1] {
		t.Errorf("they had %q", said)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("the socket is still open")
	}
}
