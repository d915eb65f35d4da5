// Package conformance is one script that every Hypervisor must pass: the fake in
// unit tests, and libvirt with QEMU in the lab. What the fake promises to the
// toolstack's tests is thereby what libvirt does.
package conformance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"cairn/toolstack/hypervisor"
)

// Target is a hypervisor and what the script needs to know of it.
type Target struct {
	Hypervisor hypervisor.Hypervisor
	Spec       hypervisor.Spec // of a guest like ci/devhost/testguest; UUID is replaced
	Greeting   string
	KVM        bool
	// Agent says that the guest obeys the commands of image/guest/agent.
	Agent bool
	// Answer makes the guest have an agent that answers as image/guest/qga does, where
	// it has none by itself.
	Answer func(uuid string)
	// Pattern is what the guest's fill writes.
	Pattern func(seed int64) io.Reader
	Volumes Volumes
	Bridge  string // for NICs
	// Hold makes a guest keep its devices.
	Hold func(t *testing.T, uuid string)
	// Kept fails unless the VM's firmware's memory is, or is not, there.
	Kept func(t *testing.T, uuid string, want bool)
	// Full makes an image for a disk where there is no room for 16 MiB.
	Full func(t *testing.T, d hypervisor.Disk) Full
	// Kill ends the domain's QEMU the hard way.
	Kill func(t *testing.T, uuid string)
	// Bounce makes the connection to the hypervisor break and come back.
	Bounce func(t *testing.T)
	// Limit bounds each wait.
	Limit time.Duration
}

// Full is an image that the guest's writes do not fit into.
type Full struct {
	Source hypervisor.Source
	Fail   func(uuid string) // makes a write fail that does not of itself
	Grow   func()
}

// Run runs the whole script.
func Run(t *testing.T, target Target) {
	tests := []struct {
		name string
		run  func(*script)
	}{
		{"identity", (*script).identity},
		{"life", (*script).life},
		{"console", (*script).console},
		{"destroy", (*script).destroy},
		{"crash", (*script).crash},
		{"restart", (*script).restart},
		{"panics", (*script).panics},
		{"agent", (*script).agent},
		{"bounce", (*script).bounce},
		{"absent", (*script).absent},
		{"disks", (*script).disks},
		{"shared", (*script).shared},
		{"media", (*script).media},
		{"nics", (*script).nics},
		{"held", (*script).held},
		{"snapshot", (*script).snapshot},
		{"save", (*script).save},
		{"sizes", (*script).sizes},
		{"stats", (*script).stats},
		{"graphics", (*script).graphics},
		{"firmware", (*script).firmware},
		{"no-space", (*script).noSpace},
		{"absent-devices", (*script).absentDevices},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, target)
			tt.run(s)
			s.nothingLeft()
		})
	}
}

// script is one test's hold on the target.
type script struct {
	*testing.T
	Target
	ctx    context.Context
	events <-chan hypervisor.Event
	id     string
}

func newScript(t *testing.T, target Target) *script {
	ctx, cancel := context.WithTimeout(t.Context(), 8*target.Limit)
	t.Cleanup(cancel)
	events, unsubscribe := target.Hypervisor.Subscribe()
	t.Cleanup(unsubscribe)
	s := &script{T: t, Target: target, ctx: ctx, events: events, id: uuid.NewString()}
	s.Spec.UUID, s.Spec.Title = s.id, t.Name()
	s.wait(hypervisor.Resync, "")
	t.Cleanup(func() { _ = target.Hypervisor.Destroy(context.Background(), s.id) })
	return s
}

func (s *script) identity() {
	s.must(s.Hypervisor.Ready(s.ctx))
	v, err := s.Hypervisor.Version(s.ctx)
	s.must(err)
	if !strings.Contains(v.Libvirt, ".") || !strings.Contains(v.QEMU, ".") {
		s.Errorf("version %+v", v)
	}
}

// life: paused start, refusal of a second start, resume, pause, clean end.
func (s *script) life() {
	s.must(s.Hypervisor.Start(s.ctx, s.Spec, true))
	s.wait(hypervisor.Started, "")
	s.state(hypervisor.Paused)
	s.is(s.Hypervisor.Start(s.ctx, s.Spec, false), hypervisor.ErrExists)
	tty := s.dial()
	s.must(s.Hypervisor.Resume(s.ctx, s.id))
	s.wait(hypervisor.Resumed, "")
	s.read(tty, s.Greeting)
	s.state(hypervisor.Running)
	s.is(s.Hypervisor.Resume(s.ctx, s.id), nil, hypervisor.ErrBadState)
	kvm, err := s.Hypervisor.QueryKVM(s.ctx, s.id)
	s.must(err)
	if kvm.Enabled != s.KVM {
		s.Errorf("query-kvm says %+v", kvm)
	}
	s.must(s.Hypervisor.Pause(s.ctx, s.id))
	s.wait(hypervisor.PausedE, "")
	s.state(hypervisor.Paused)
	s.must(s.Hypervisor.Resume(s.ctx, s.id))
	s.must(s.Hypervisor.Shutdown(s.ctx, s.id))
	s.wait(hypervisor.Stopped, hypervisor.ByGuest)
	if _, err := io.Copy(io.Discard, tty); err != nil {
		s.Errorf("console after the end: %v", err)
	}
}

// console: a second client after the first, and bytes both ways.
func (s *script) console() {
	tty := s.boot()
	s.enter(tty, "hello")
	s.read(tty, "hello")
	s.must(tty.Close())
	tty = s.dial()
	s.enter(tty, "again")
	s.read(tty, "again")
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
}

func (s *script) destroy() {
	s.must(s.Hypervisor.Start(s.ctx, s.Spec, false))
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
	s.wait(hypervisor.Stopped, hypervisor.ByDestroy)
	s.is(s.Hypervisor.Destroy(s.ctx, s.id), hypervisor.ErrNotFound)
}

func (s *script) crash() {
	s.boot()
	s.Kill(s.T, s.id)
	s.wait(hypervisor.Stopped, hypervisor.ByCrash)
}

// restart: a guest that restarts itself goes on in place, or ends, as the spec
// says.
func (s *script) restart() {
	tty := s.boot()
	s.enter(tty, "reboot")
	s.read(tty, s.Greeting)
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
	s.wait(hypervisor.Stopped, hypervisor.ByDestroy)
	s.Spec.RebootDestroys = true
	s.enter(s.boot(), "reboot")
	s.wait(hypervisor.Stopped, hypervisor.ByGuest)
}

// panics: a guest that dies of its own is told from one that powers off.
func (s *script) panics() {
	for line, why := range map[string]hypervisor.Reason{"panic": hypervisor.ByCrash, "poweroff": hypervisor.ByGuest} {
		tty := s.boot()
		s.enter(tty, line)
		go io.Copy(io.Discard, tty) // a guest that is not read stalls while it dies
		s.wait(hypervisor.Stopped, why)
	}
}

// bounce: a domain outlives the connection, and the loss is announced.
func (s *script) bounce() {
	tty := s.boot()
	s.Bounce(s.T)
	s.wait(hypervisor.Resync, "")
	s.must(s.Hypervisor.Ready(s.ctx))
	s.state(hypervisor.Running)
	s.enter(tty, "still")
	s.read(tty, "still")
	s.must(s.Hypervisor.Pause(s.ctx, s.id)) // waits until libvirt has taken the domain over
	s.must(s.Hypervisor.Resume(s.ctx, s.id))
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
	s.wait(hypervisor.Stopped, hypervisor.ByDestroy)
}

func (s *script) absent() {
	for name, call := range map[string]func(context.Context, string) error{
		"pause": s.Hypervisor.Pause, "resume": s.Hypervisor.Resume, "shutdown": s.Hypervisor.Shutdown,
		"destroy": s.Hypervisor.Destroy,
	} {
		if err := call(s.ctx, s.id); !errors.Is(err, hypervisor.ErrNotFound) {
			s.Errorf("%s of nothing: %v", name, err)
		}
	}
	_, err := s.Hypervisor.QueryKVM(s.ctx, s.id)
	s.is(err, hypervisor.ErrNotFound)
	_, err = s.Hypervisor.DialConsole(s.ctx, s.id)
	s.is(err, hypervisor.ErrNotFound)
	_, err = s.Hypervisor.DialConsole(s.ctx, "../libvirt-sock")
	s.is(err, hypervisor.ErrNotFound)
	_, err = s.Hypervisor.DialAgent(s.ctx, "../libvirt-sock")
	s.is(err, hypervisor.ErrNotFound)
}

// boot starts the guest and waits for its greeting.
func (s *script) boot() net.Conn {
	s.must(s.Hypervisor.Start(s.ctx, s.Spec, true))
	tty := s.dial()
	s.must(s.Hypervisor.Resume(s.ctx, s.id))
	s.read(tty, s.Greeting)
	return tty
}

func (s *script) dial() net.Conn {
	s.Helper()
	c, err := s.Hypervisor.DialConsole(s.ctx, s.id)
	s.must(err)
	s.Cleanup(func() { _ = c.Close() })
	return c
}

// wait takes events until the wanted one; events of other domains, and of this
// one on the way, pass by.
func (s *script) wait(kind hypervisor.EventKind, why hypervisor.Reason) {
	s.Helper()
	limit := time.After(s.Limit)
	for {
		select {
		case e := <-s.events:
			if e.Kind != kind || (e.UUID != s.id && kind != hypervisor.Resync) {
				continue
			}
			if why != "" && e.Reason != why {
				s.Errorf("%s because %s, want %s", kind, e.Reason, why)
			}
			return
		case <-limit:
			s.Fatalf("no event %s", kind)
		}
	}
}

func (s *script) enter(c net.Conn, line string) {
	s.Helper()
	_, err := io.WriteString(c, line+"\n")
	s.must(err)
}

func (s *script) read(c net.Conn, want string) {
	s.Helper()
	s.readUntil(c, want)
}

// readUntil reads until one of the wanted words is there, and returns what it read.
func (s *script) readUntil(c net.Conn, want ...string) string {
	s.Helper()
	s.must(c.SetReadDeadline(time.Now().Add(s.Limit)))
	var got bytes.Buffer
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		got.Write(b[:n])
		for _, w := range want {
			if strings.Contains(got.String(), w) {
				return got.String()
			}
		}
		if err != nil {
			s.Fatalf("console: %v after %q, want %q", err, got.String(), want)
		}
	}
}

func (s *script) state(want hypervisor.State) {
	s.Helper()
	d, ok := s.find()
	if !ok || d.State != want || d.MemoryBytes != s.Spec.MemoryBytes {
		s.Errorf("list says %+v, want %s", d, want)
	}
}

func (s *script) find() (hypervisor.Domain, bool) {
	s.Helper()
	all, err := s.Hypervisor.List(s.ctx)
	s.must(err)
	for _, d := range all {
		if d.UUID == s.id {
			return d, true
		}
	}
	return hypervisor.Domain{}, false
}

func (s *script) nothingLeft() {
	if d, ok := s.find(); ok {
		s.Errorf("left behind: %+v", d)
	}
}

func (s *script) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *script) is(err error, want ...error) {
	s.Helper()
	for _, w := range want {
		if errors.Is(err, w) {
			return
		}
	}
	s.Errorf("got %v, want %v", err, want)
}
