package qga

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cairn/image/guest/qga"
)

// limit is what a test gives a question; time is virtual.
const limit = 5 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// talk connects a client to what a guest does with its port.
func talk(t *testing.T, guest func(port net.Conn)) *Client {
	ours, theirs := net.Pipe()
	c := New(ours)
	done := make(chan struct{})
	go func() { defer close(done); guest(theirs) }()
	t.Cleanup(func() { c.Close(); theirs.Close(); <-done })
	return c
}

// says reads lines and answers each with the next text; %d is the handshake's number.
func says(answers ...string) func(net.Conn) {
	return func(port net.Conn) {
		lines := bufio.NewScanner(port)
		for _, a := range answers {
			if !lines.Scan() {
				return
			}
			if strings.Contains(a, "%d") {
				_, number, _ := strings.Cut(lines.Text(), `"id":`)
				a = strings.ReplaceAll(a, "%d", strings.TrimRight(number, "}"))
			}
			if _, err := io.WriteString(port, a); err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, port)
	}
}

const synced = "\xff{\"return\":%d}\n"

type demo struct{ off chan string }

func (demo) OS() map[string]string {
	return map[string]string{"id": "debian", "name": "Debian GNU/Linux", "pretty-name": "Debian GNU/Linux 13 (trixie)", "version-id": "13", "kernel-release": "6.12.1"}
}
func (demo) HostName() string { return "web1" }
func (demo) Interfaces() []qga.Interface {
	return []qga.Interface{{Name: "eth0", MAC: "02:AA:00:00:00:01", Addresses: []qga.Address{{Type: "ipv4", Address: "192.0.2.7"}, {Type: "ipv6", Address: "fe80::1%eth0"}, {Address: "none"}}}}
}
func (demo) Filesystems() []qga.Filesystem {
	return []qga.Filesystem{{Mountpoint: "/", Type: "ext4", Total: 1 << 30}}
}
func (demo) Freeze() (int, error)   { return 3, nil }
func (demo) Thaw() (int, error)     { return 3, nil }
func (d demo) PowerOff(mode string) { d.off <- mode }

// TestWholeConversation holds both ends of the protocol to each other.
func TestWholeConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := demo{off: make(chan string, 1)}
		c := talk(t, func(port net.Conn) { _ = qga.New(d).Serve(port) })
		check := func(got, want any, err error) {
			t.Helper()
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		}
		check(nil, nil, c.Sync(within(t)))
		info, err := c.Info(within(t))
		check(info.Version, qga.Version, err)
		if !info.Has("guest-shutdown") || info.Has("guest-exec") {
			t.Errorf("info %+v", info)
		}
		system, err := c.OS(within(t))
		check(system, OS{ID: "debian", Name: "Debian GNU/Linux", PrettyName: "Debian GNU/Linux 13 (trixie)", VersionID: "13", KernelRelease: "6.12.1"}, err)
		name, err := c.HostName(within(t))
		check(name, "web1", err)
		nics, err := c.Interfaces(within(t))
		check(nics, []Interface{{"02:aa:00:00:00:01", []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("fe80::1")}}}, err)
		disks, err := c.Filesystems(within(t))
		check(disks, []Filesystem{{"/", "ext4", 1 << 30}}, err)
		n, err := c.Freeze(within(t))
		check(n, 3, err)
		frozen, err := c.Frozen(within(t))
		check(frozen, true, err)
		var refusal *Refusal
		if _, err := c.OS(within(t)); !errors.As(err, &refusal) || c.Broken() != nil {
			t.Errorf("of a frozen guest: %v, %v", err, c.Broken())
		}
		n, err = c.Thaw(within(t))
		check(n, 3, err)
		frozen, err = c.Frozen(within(t))
		check(frozen, false, err)
		check(nil, nil, c.PowerOff(within(t)))
		check(<-d.off, "powerdown", nil)
		if err := c.Sync(within(t)); !errors.Is(err, ErrSilent) { // what it was asked last has no answer
			t.Errorf("after power-off: %v", err)
		}
	})
}

// TestHandshake: what the handshake has to get through.
func TestHandshake(t *testing.T) {
	for name, tt := range map[string]struct {
		guest func(net.Conn)
		want  error
	}{
		"plain":                   {says(synced), nil},
		"stale answer first":      {says("{\"return\":{\"pretty-name\":\"old\"}}\n" + synced), nil},
		"stale handshake first":   {says("\xff{\"return\":12}\n" + synced), nil},
		"a long line first":       {says(strings.Repeat("z", 100<<10) + "\n" + synced), nil},
		"half an answer lost":     {says("turn\":[{\"na" + synced), nil},
		"agent's complaint first": {says("{\"error\":{\"class\":\"GenericError\",\"desc\":\"Invalid JSON syntax\"}}\n" + synced), nil},
		"garbage first":           {says("\x00\x01\xfe]]}}\n\n\n\xff\xff" + synced), nil},
		"no sentinel":             {says("{\"return\":%d}\n"), ErrSilent},
		"wrong number":            {says("\xff{\"return\":1}\n"), ErrSilent},
		"nothing":                 {says(), ErrSilent},
		"reads nothing":           {func(net.Conn) {}, ErrSilent},
		"closes":                  {func(port net.Conn) { port.Close() }, ErrClosed},
		"flood":                   {flood("x"), ErrGarbage},
		"flood of lines":          {flood("\n"), ErrGarbage},
		"flood of sentinels":      {flood("\xff"), ErrGarbage},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := talk(t, tt.guest)
				if err := c.Sync(within(t)); !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if (c.Broken() == nil) != (tt.want == nil) {
					t.Errorf("out of step: %v", c.Broken())
				}
			})
		})
	}
}

// flood sends one text for ever.
func flood(text string) func(net.Conn) {
	return func(port net.Conn) {
		go io.Copy(io.Discard, port)
		b := []byte(strings.Repeat(text, 4096))
		for {
			if _, err := port.Write(b); err != nil {
				return
			}
		}
	}
}

// TestHostileAnswers: each ends the conversation, or is a refusal, or is harmless.
func TestHostileAnswers(t *testing.T) {
	deep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	for name, tt := range map[string]struct {
		answer string
		want   error
	}{
		"no JSON":          {"hello\n", ErrGarbage},
		"neither":          {"{}\n", ErrGarbage},
		"list":             {"[]\n", ErrGarbage},
		"wrong type":       {"{\"return\":[1,2]}\n", ErrGarbage},
		"deep":             {"{\"return\":" + deep + "}\n", ErrGarbage},
		"endless line":     {strings.Repeat("a", MaxAnswer+1), ErrGarbage},
		"endless emptying": {strings.Repeat("\n", MaxAnswer+1), ErrGarbage},
		"half":             {"{\"return\":{\"id\":", ErrSilent},
		"null":             {"{\"return\":null}\n", nil},
		"control bytes":    {"{\"return\":{\"id\":\"\\u001b[2J\\u0000evil\\n\\u202e\"}}\n", nil},
		"long text":        {"{\"return\":{\"id\":\"" + strings.Repeat("é", 5000) + "\"}}\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := talk(t, says(synced, tt.answer))
				if err := c.Sync(within(t)); err != nil {
					t.Fatal(err)
				}
				o, err := c.OS(within(t))
				if !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				plain(t, o.ID)
				if tt.want != nil {
					if err := c.Sync(within(t)); !errors.Is(err, tt.want) {
						t.Errorf("goes on after %v: %v", tt.want, err)
					}
				}
			})
		})
	}
}

func plain(t *testing.T, text string) {
	t.Helper()
	if len(text) > maxText || text != clean(text) || strings.ContainsAny(text, "\x00\x1b\n\u202e") {
		t.Errorf("a text of %d bytes was let through: %q", len(text), text)
	}
}

// TestEndsWithItsContext: a question that is cancelled ends at once.
func TestEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := talk(t, says())
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		time.AfterFunc(time.Second, func() { cancel(why) })
		start := time.Now()
		if err := c.Sync(ctx); !errors.Is(err, ErrSilent) || !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %s", took)
		}
		if err := c.Ask(ctx, "guest-ping", nil, nil); err == nil {
			t.Error("a conversation that is out of step goes on")
		}
	})
}

func TestPowerOffRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := talk(t, says(synced, "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"disabled\"}}\n"))
		if err := c.Sync(within(t)); err != nil {
			t.Fatal(err)
		}
		var refusal *Refusal
		if err := c.PowerOff(within(t)); !errors.As(err, &refusal) || refusal.Class != "CommandNotFound" {
			t.Errorf("got %v", err)
		}
	})
}

func TestManyOfEverythingAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := func(one string) string { return "{\"return\":[" + strings.Repeat(one+",", 5000) + one + "]}\n" }
		c := talk(t, says(synced,
			many(`{"name":"e","hardware-address":"02:00:00:00:00:01","ip-addresses":[{"ip-address":"192.0.2.1"}]}`),
			many(`{"mountpoint":"/","type":"ext4","total-bytes":1e300}`)))
		if err := c.Sync(within(t)); err != nil {
			t.Fatal(err)
		}
		nics, err := c.Interfaces(within(t))
		if err != nil || len(nics) != maxInterfaces {
			t.Errorf("%d interfaces, %v", len(nics), err)
		}
		disks, err := c.Filesystems(within(t))
		if err != nil || len(disks) != maxDisks || disks[0].Total != 0 {
			t.Errorf("%d disks, %v", len(disks), err)
		}
	})
}

// FuzzAnswer: whatever a guest sends after the handshake, every question ends with a
// known error or with texts that are plain.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"return":{"id":"debian"}}` + "\n"))
	f.Add([]byte("\xff{\"return\":[{\"hardware-address\":\"e\",\"ip-addresses\":[{\"ip-address\":\"::1\"}]}]}\n{\"return\":\"frozen\"}\n"))
	f.Add([]byte(`{"error":{"class":"x","desc":"y"}}` + "\n" + `{"return":{"supported_commands":[{"name":"a","enabled":true}]}}` + "\n"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c := New(&replay{in: sent})
		known := func(err error) {
			var refusal *Refusal
			if err != nil && !errors.As(err, &refusal) && !errors.Is(err, ErrGarbage) && !errors.Is(err, ErrClosed) {
				t.Errorf("unknown error %v", err)
			}
		}
		o, err := c.OS(ctx)
		known(err)
		plain(t, o.ID)
		nics, err := c.Interfaces(ctx)
		known(err)
		for _, n := range nics {
			plain(t, n.MAC)
		}
		_, err = c.Frozen(ctx)
		known(err)
		info, err := c.Info(ctx)
		known(err)
		plain(t, info.Version)
		known(c.Sync(ctx))
	})
}

// replay is a connection on which everything has been said.
type replay struct {
	net.Conn
	in []byte
}

func (r *replay) Write(b []byte) (int, error) { return len(b), nil }
func (r *replay) SetDeadline(time.Time) error { return nil }
func (r *replay) Close() error                { return nil }
func (r *replay) Read(b []byte) (n int, _ error) {
	if len(r.in) == 0 {
		return 0, io.EOF
	}
	n = copy(b, r.in[:min(len(r.in), 7)])
	r.in = r.in[n:]
	return n, nil
}

// FuzzSplit: lines do not depend on where the bytes were cut, and a sentinel drops what
// stands before it.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("a\xffb\nc\n"), 1)
	f.Add([]byte(strings.Repeat("x", 30)+"\nshort\n"+strings.Repeat("y", 30)+"\xffagain\n"), 4)
	f.Fuzz(func(t *testing.T, sent []byte, size int) {
		whole, parts := split(sent, len(sent)+1), split(sent, min(max(size, 1), 9))
		for _, m := range whole {
			if strings.IndexByte(m, sentinel) >= 0 || strings.IndexByte(m, '\n') >= 0 {
				t.Errorf("%q has a line %q", sent, m)
			}
		}
		if !reflect.DeepEqual(whole, parts) {
			t.Errorf("%q in one is %q, in parts %q", sent, whole, parts)
		}
	})
}

func split(b []byte, size int) (all []string) {
	s := splitter{limit: 20}
	for len(b) > 0 {
		m, n, ok := s.feed(b[:min(len(b), size)])
		b = b[n:]
		if len(s.text) > s.limit || ok && len(m.text) > s.limit {
			panic("it keeps too much")
		}
		if ok {
			all = append(all, fmt.Sprint(m.delimited, string(m.text)))
		}
	}
	return all
}
