package xe

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// line is a host with one VM, whose console is a pipe.
type line struct {
	*fakeAPI
	guest  net.Conn // what the VM has of it
	opened string   // the reference asked for
	ours   net.Conn
}

func newLine(t *testing.T) *line {
	t.Helper()
	l := &line{fakeAPI: newFake(t)}
	l.ours, l.guest = net.Pipe()
	t.Cleanup(func() { l.ours.Close(); l.guest.Close() })
	return l
}

// consoles gives the VM these, by reference and protocol.
func (l *line) consoles(protocols ...string) {
	var refs []any
	l.classes["console"] = map[string]values{}
	for _, p := range protocols {
		ref := "OpaqueRef:" + p
		refs = append(refs, ref)
		l.classes["console"][ref] = values{"uuid": p, "protocol": p, "VM": "OpaqueRef:vm1"}
	}
	l.classes["VM"]["OpaqueRef:vm1"]["consoles"] = refs
}

// Console implements API.
func (l *line) Console(_ context.Context, ref string) (io.ReadWriteCloser, error) {
	l.opened = ref
	return l.ours, nil
}

// run runs `xe console` with these keys and returns what it ends with.
func (l *line) run(ctx context.Context, in io.Reader) (status func() int, out, errOut *strings.Builder) {
	out, errOut = &strings.Builder{}, &strings.Builder{}
	done := make(chan int, 1)
	go func() {
		done <- Run(ctx, Config{
			Args: []string{"console", "vm=demo"}, Stdin: in, Stdout: out, Stderr: errOut, Getenv: func(string) string { return "" },
			Connect: func(context.Context, Settings, bool) (API, func(), error) { return l, func() {}, nil },
		})
	}()
	return func() int {
		select {
		case s := <-done:
			return s
		case <-time.After(5 * time.Second):
			return -1
		}
	}, out, errOut
}

func (l *line) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(l.guest, text); err != nil {
		t.Fatal(err)
	}
}

func (l *line) hear(t *testing.T, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(l.guest, b); err != nil || string(b) != want {
		t.Fatalf("the guest hears %q, %v", b, err)
	}
}

// TestConsoleEndsWithTheVM: what is piped in and ends leaves the console open for the
// answers, and the VM's stop is no failure.
func TestConsoleEndsWithTheVM(t *testing.T) {
	l := newLine(t)
	l.consoles("rfb", "vt100")
	status, out, errOut := l.run(t.Context(), strings.NewReader("halt\n"))
	l.hear(t, "halt\n")
	l.say(t, "going down\r\n")
	l.guest.Close()
	if s := status(); s != 0 || out.String() != "going down\r\n" {
		t.Errorf("status %d, printed %q, %s", s, out, errOut)
	}
	if l.opened != "OpaqueRef:vt100" {
		t.Errorf("it opened %s", l.opened)
	}
}

// TestConsoleEndsBySignal, which ends the command's context, however quiet the guest
// and the user are.
func TestConsoleEndsBySignal(t *testing.T) {
	l := newLine(t)
	keys, typed := io.Pipe()
	defer typed.Close()
	ctx, signal := context.WithCancel(t.Context())
	status, out, _ := l.run(ctx, keys)
	l.say(t, "login: ")
	if _, err := io.WriteString(typed, "root"); err != nil {
		t.Fatal(err)
	}
	l.hear(t, "root")
	signal()
	if s := status(); s != exitFailed || out.String() != "login: " {
		t.Errorf("status %d, printed %q", s, out)
	}
	if _, err := l.guest.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection is left open: %v", err)
	}
}

// TestConsoleEscape: the key leaves at once; what was typed before it arrives, what
// comes after does not.
func TestConsoleEscape(t *testing.T) {
	l := newLine(t)
	status, _, errOut := l.run(t.Context(), strings.NewReader("ls\x1drm"))
	l.hear(t, "ls")
	if s := status(); s != 0 {
		t.Errorf("status %d: %s", s, errOut)
	}
	if rest, err := io.ReadAll(l.guest); err != nil || len(rest) > 0 {
		t.Errorf("after the key: %q, %v", rest, err)
	}
}

// TestConsoleOfScreenOnly says what to do instead; a host that lists no consoles is
// asked by the VM.
func TestConsoleOfScreenOnly(t *testing.T) {
	l := newLine(t)
	l.consoles("rfb")
	status, _, errOut := l.run(t.Context(), strings.NewReader(""))
	if s := status(); s != exitFailed || !strings.Contains(errOut.String(), "has a screen only") {
		t.Errorf("status %d: %s", s, errOut)
	}
	l.consoles()
	l.guest.Close()
	if status, _, _ = l.run(t.Context(), strings.NewReader("")); status() != 0 || l.opened != "OpaqueRef:vm1" {
		t.Errorf("it opened %q", l.opened)
	}
}
