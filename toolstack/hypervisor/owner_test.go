package hypervisor

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// quick are limits for a libvirtd that does not answer.
var quick = Limits{
	Call: 50 * time.Millisecond, Job: 50 * time.Millisecond, Connect: 50 * time.Millisecond,
	BackoffMin: time.Millisecond, BackoffMax: 5 * time.Millisecond,
}

func TestNoLibvirt(t *testing.T) {
	l := Connect(Config{Socket: filepath.Join(t.TempDir(), "none"), Limits: quick})
	if err := l.Destroy(t.Context(), testSpec().UUID); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.List(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after close: %v", err)
	}
}

// TestSilentLibvirt: a daemon that takes connections and says nothing is tried
// again and again, always by a new connection.
func TestSilentLibvirt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan net.Conn, 100)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	l := Connect(Config{Socket: path, Limits: quick})
	defer l.Close()
	for range 3 {
		c := <-accepted
		defer c.Close()
	}
	if err := l.Resume(t.Context(), testSpec().UUID); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// TestLateJobEndsAlone: what waits for one QEMU and gets no answer takes nothing
// else with it, and keeps no place; what asks libvirtd alone ends the connection.
func TestLateJobEndsAlone(t *testing.T) {
	o := &owner{cfg: Config{Limits: quick}, slots: make(chan struct{}, 1)}
	conn, other := net.Pipe()
	defer other.Close()
	k := &link{conn: &watchedConn{Conn: conn, dead: make(chan struct{})}}
	stuck := make(chan struct{})
	hang := func(*golibvirt.Libvirt) error { <-stuck; return nil }
	answer := func(*golibvirt.Libvirt) error { return nil }

	if err := o.callOn(t.Context(), k, limit{after: time.Millisecond}, "start", hang); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("a late job: %v", err)
	}
	select {
	case <-k.conn.dead:
		t.Error("a late job ended the connection")
	default:
	}
	if err := o.callOn(t.Context(), k, limit{after: time.Minute, hangs: true}, "list", answer); err != nil {
		t.Errorf("after a late job: %v", err)
	}
	if err := o.callOn(t.Context(), k, limit{after: time.Millisecond, hangs: true}, "list", hang); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("a late query: %v", err)
	}
	<-k.conn.dead
	close(stuck)
}

// TestStartsTakeTurns: one waits for its place, and the wait is not its own time.
func TestStartsTakeTurns(t *testing.T) {
	conn, other := net.Pipe()
	defer other.Close()
	o := &owner{
		cfg: Config{Limits: quick}, slots: make(chan struct{}, 4), starts: make(chan struct{}, 1),
		link: &link{conn: &watchedConn{Conn: conn, dead: make(chan struct{})}},
	}
	started, leave, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	start := func(ctx context.Context, l limit, f func(*golibvirt.Libvirt) error) {
		go func() { ended <- o.in(ctx, o.starts, l, "start", f) }()
	}
	start(t.Context(), limit{after: time.Minute}, func(*golibvirt.Libvirt) error { close(started); <-leave; return nil })
	<-started
	gone, cancel := context.WithCancel(t.Context())
	start(gone, limit{after: time.Minute}, func(*golibvirt.Libvirt) error { t.Error("the place was taken"); return nil })
	cancel()
	if err := <-ended; !errors.Is(err, ErrUnavailable) {
		t.Errorf("whoever gave up waiting: %v", err)
	}
	start(t.Context(), limit{after: time.Minute}, func(*golibvirt.Libvirt) error { return nil })
	if err := o.call(t.Context(), limit{after: time.Minute}, "list", func(*golibvirt.Libvirt) error { return nil }); err != nil {
		t.Errorf("what is no start waits for none: %v", err)
	}
	close(leave)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestClassify(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want error
	}{
		{"no domain", golibvirt.Error{Code: uint32(golibvirt.ErrNoDomain)}, ErrNotFound},
		{"state", golibvirt.Error{Code: uint32(golibvirt.ErrOperationInvalid)}, ErrBadState},
		{"broken connection", golibvirt.ErrInterrupted, ErrUnknownOutcome},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := classify(tt.err); !errors.Is(got, tt.want) {
				t.Errorf("got %v", got)
			}
		})
	}
	if got := classify(golibvirt.Error{Code: uint32(golibvirt.ErrInternalError), Message: "m"}); errors.Is(got, ErrUnknownOutcome) || got.Error() != "m" {
		t.Errorf("a plain failure became %v", got)
	}
}

// TestBrokerNeverBlocks: who does not read finds one Resync, and then what is new.
func TestBrokerNeverBlocks(t *testing.T) {
	var b broker
	events, cancel := b.subscribe()
	for range 10 * queueLength {
		b.publish(Event{Kind: Started, UUID: "x"})
	}
	resyncs, last := 0, Event{}
	for len(events) > 0 {
		if last = <-events; last.Kind == Resync {
			resyncs++
		}
	}
	if resyncs != 1 {
		t.Errorf("%d resyncs", resyncs)
	}
	b.publish(Event{Kind: Stopped, UUID: "y"})
	if e := <-events; e.UUID != "y" {
		t.Errorf("got %+v", e)
	}
	cancel()
	cancel()
	if _, open := <-events; open {
		t.Error("still open")
	}
	b.close()
	closed, _ := b.subscribe()
	<-closed // the Resync every subscription begins with
	if _, open := <-closed; open {
		t.Error("subscribed to what is closed")
	}
}

// TestDeclined: libvirt's answers to taking vCPUs away, by their numbers.
func TestDeclined(t *testing.T) {
	for _, tt := range []struct {
		number golibvirt.ErrorNumber
		want   error
	}{
		{golibvirt.ErrConfigUnsupported, ErrUnsupported}, // failed to find appropriate hotpluggable vcpus
		{golibvirt.ErrOperationUnsupported, ErrUnsupported},
		{golibvirt.ErrOperationFailed, ErrBusy},  // unplug of device was rejected by the guest
		{golibvirt.ErrOperationTimeout, ErrBusy}, // vcpu unplug request timed out
		{golibvirt.ErrNoDomain, ErrNotFound},
	} {
		if got := declined(classify(golibvirt.Error{Code: uint32(tt.number), Message: "m"})); !errors.Is(got, tt.want) {
			t.Errorf("%d is %v, want %v", tt.number, got, tt.want)
		}
	}
	if plain := errors.New("m"); declined(plain) != plain || declined(nil) != nil {
		t.Error("what is not libvirt's is not left alone")
	}
}
