// Package inside looks into a host from where no client of the management API can:
// its processes, interfaces, files, the kernel's rules for guests' ports, and what
// hostd says of volumes. A host booted in the lab is asked over its debug channel,
// one of `make dev` by the root directory and the network of one of its processes.
//
// A Host may be used by many goroutines; looks change nothing.
package inside

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cairn/ci/lab"
	"cairn/init/debug"
	"cairn/init/hostd/client"
	"cairn/init/network/port"
)

// Host is what can be looked at.
type Host interface {
	Processes(ctx context.Context) ([]debug.Process, error)
	// Files lists what is below directories; directories end in a slash.
	Files(ctx context.Context, dirs ...string) ([]string, error)
	// Rules names what the kernel holds for guests' ports.
	Rules(ctx context.Context) ([]string, error)
	// Hostd is a client of the host's own.
	Hostd() *client.Client
}

// Booted is a host with a debug channel.
type Booted struct{ *lab.Host }

var _ Host = Booted{}

// Processes implements Host.
func (b Booted) Processes(ctx context.Context) ([]debug.Process, error) {
	a, err := b.Debug(ctx, "processes")
	return a.Processes, err
}

// Files implements Host.
func (b Booted) Files(ctx context.Context, dirs ...string) ([]string, error) {
	a, err := b.Debug(ctx, "files", dirs...)
	return lines(a.Output), err
}

// Rules implements Host.
func (b Booted) Rules(ctx context.Context) ([]string, error) {
	a, err := b.Debug(ctx, "rules")
	return lines(a.Output), err
}

// Hostd implements Host.
func (b Booted) Hostd() *client.Client { return client.Over(b) }

// RoundTrip is the way of a request to hostd by the debug channel.
func (b Booted) RoundTrip(r *http.Request) (*http.Response, error) {
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	a, err := b.Debug(r.Context(), "hostd", r.Method, r.URL.RequestURI(), string(body))
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: a.Status, Status: strconv.Itoa(a.Status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(bytes.NewReader([]byte(a.Output))), Request: r,
	}, nil
}

// Namespaces is a host on this machine, by the number of one of its processes.
type Namespaces struct{ PID int }

var _ Host = Namespaces{}

func (n Namespaces) path(name string) string { return fmt.Sprintf("/proc/%d/%s", n.PID, name) }

// Processes implements Host; numbers are those inside.
func (n Namespaces) Processes(context.Context) ([]debug.Process, error) {
	return debug.Processes(n.path("root/proc"))
}

// Files implements Host.
func (n Namespaces) Files(_ context.Context, dirs ...string) ([]string, error) {
	root := n.path("root")
	var below []string
	for _, dir := range dirs {
		below = append(below, root+dir)
	}
	text, err := debug.Files(below...)
	all := lines(text)
	for i := range all {
		all[i] = strings.TrimPrefix(all[i], root)
	}
	return all, err
}

// Hostd implements Host.
func (n Namespaces) Hostd() *client.Client { return client.New(n.path("root" + client.Socket)) }

// Rules implements Host.
func (n Namespaces) Rules(context.Context) (all []string, err error) {
	err = n.Do(func() (err error) {
		all, err = port.NewGuard().Contents()
		return err
	})
	return all, err
}

// Dial connects to an address of the host's own network.
func (n Namespaces) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.Do(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Do calls a function in the host's network, which programs that it starts stay in.
// The network is that of a thread, which comes back from there and must not end: what
// it has started, such as the host itself, would be told that its parent has died.
func (n Namespaces) Do(f func() error) (err error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err = enter(n.path("ns/net")); err == nil {
		err = f()
		if back := setns(home); back != nil {
			panic(back) // this thread is in the wrong network for anything else
		}
	}
	runtime.UnlockOSThread()
	return err
}

func enter(ns string) error {
	f, err := os.Open(ns)
	if err != nil {
		return err
	}
	defer f.Close()
	return setns(f)
}

func setns(f *os.File) error {
	return os.NewSyscallError("setns "+f.Name(), unix.Setns(int(f.Fd()), unix.CLONE_NEWNET))
}

func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}
