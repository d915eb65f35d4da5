package hypervisor

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// FakeGreeting is what a fake guest says first on its console.
const FakeGreeting = "cairn-demo-guest ready kernel=fake cpu=fake\r\n"

// Fake is a Hypervisor in memory, for tests and for developing the toolstack
// without libvirt. Its guests greet, echo what is typed on their console, restart
// or power off when that is typed, and obey the power button unless told otherwise.
type Fake struct {
	events broker

	mu      sync.Mutex
	domains map[string]*fakeDomain
	deaf    map[string]bool  // guests that ignore the power button
	holds   map[string]bool  // guests that do not give devices up
	fail    map[string]error // error of the next call, by method name
	saved   map[string]fakeSaved
	kvm     KVM
	agents  map[string]func(net.Conn)

	late     map[string]bool // methods whose next answer is lost before they take effect
	underWay []func()
}

type fakeDomain struct {
	spec    Spec // as it is now
	state   State
	fixed   int  // vCPUs it began with, which stay
	ioError bool // why it is paused
	sizes   map[string]int64
	memory  *MemoryStats
	stats   *Stats
	looks   int        // how often Stats has found it running
	tty     net.Conn   // the guest's end of the console, while somebody is connected
	viewers []net.Conn // of screens, and of the agent's port
	// unserved are the guest's ends of its agent's port that no agent has.
	unserved []net.Conn
}

var _ Hypervisor = (*Fake)(nil)

// NewFake returns a fake host with KVM and no domains.
func NewFake() *Fake {
	return &Fake{
		domains: map[string]*fakeDomain{}, deaf: map[string]bool{}, fail: map[string]error{},
		holds: map[string]bool{}, saved: map[string]fakeSaved{}, late: map[string]bool{},
		agents: map[string]func(net.Conn){},
		kvm:    KVM{Enabled: true, Present: true},
	}
}

// FailNext makes the next call of a method, for example "Start", return err
// without effect.
func (f *Fake) FailNext(method string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[method] = err
}

// IgnorePowerButton makes a guest deaf to Shutdown.
func (f *Fake) IgnorePowerButton(uuid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaf[uuid] = true
}

// End makes a guest power itself off, or QEMU die, by reason.
func (f *Fake) End(uuid string, why Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end(uuid, why)
}

// Add puts a domain there behind everybody's back, as if another tool had.
func (f *Fake) Add(d Domain) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.domains[d.UUID] = &fakeDomain{spec: Spec{UUID: d.UUID, Title: d.Name, MemoryBytes: d.MemoryBytes}, state: d.State}
}

// Adopt puts a domain there as if it had been started before, by another process.
func (f *Fake) Adopt(spec Spec, state State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.domains[spec.UUID] = &fakeDomain{spec: spec.clone(), state: state}
}

// Forget makes a domain vanish without an event, as while disconnected.
func (f *Fake) Forget(uuid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.domains, uuid)
}

// Resync tells subscribers that events were lost.
func (f *Fake) Resync() { f.events.publish(Event{Kind: Resync}) }

// Tell sends an event alone, as one that comes later than what it tells of.
func (f *Fake) Tell(e Event) { f.events.publish(e) }

// Spec returns what a domain was started with, as changed since.
func (f *Fake) Spec(uuid string) (Spec, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, ok := f.domains[uuid]
	if !ok {
		return Spec{}, false
	}
	return d.spec.clone(), true
}

// Running is what Shutdown would answer, without pressing the button.
func (f *Fake) Running(ctx context.Context, uuid string) error {
	return f.on(ctx, "Shutdown", uuid, Running, func(*fakeDomain) {})
}

// Ready implements Hypervisor.
func (f *Fake) Ready(ctx context.Context) error { return ctx.Err() }

// Version implements Hypervisor.
func (f *Fake) Version(context.Context) (Version, error) {
	return Version{Libvirt: "11.3.0", QEMU: "10.0.0"}, nil
}

// Start implements Hypervisor.
func (f *Fake) Start(ctx context.Context, spec Spec, paused bool) error {
	if err := spec.Check(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failure(ctx, "Start"); err != nil {
		return err
	}
	if f.domains[spec.UUID] != nil {
		return fmt.Errorf("start %s: %w", spec.UUID, ErrExists)
	}
	d := &fakeDomain{spec: spec.clone(), state: Running, fixed: spec.VCPUs}
	f.domains[spec.UUID] = d
	f.events.publish(Event{Kind: Started, UUID: spec.UUID})
	if paused {
		d.state = Paused
	}
	return nil
}

// Pause implements Hypervisor.
func (f *Fake) Pause(ctx context.Context, uuid string) error {
	return f.on(ctx, "Pause", uuid, Running, func(d *fakeDomain) {
		d.state = Paused
		f.events.publish(Event{Kind: PausedE, UUID: uuid})
	})
}

// Resume implements Hypervisor.
func (f *Fake) Resume(ctx context.Context, uuid string) error {
	return f.on(ctx, "Resume", uuid, Paused, func(d *fakeDomain) {
		d.state, d.ioError = Running, false
		d.greet()
		f.events.publish(Event{Kind: Resumed, UUID: uuid})
	})
}

// Shutdown implements Hypervisor.
func (f *Fake) Shutdown(ctx context.Context, uuid string) error {
	return f.on(ctx, "Shutdown", uuid, Running, func(*fakeDomain) {
		if !f.deaf[uuid] {
			f.end(uuid, ByGuest)
		}
	})
}

// Destroy implements Hypervisor.
func (f *Fake) Destroy(ctx context.Context, uuid string) error {
	return f.on(ctx, "Destroy", uuid, "", func(*fakeDomain) { f.end(uuid, ByDestroy) })
}

// on runs act on a domain in the wanted state; "" is any.
func (f *Fake) on(ctx context.Context, method, uuid string, want State, act func(*fakeDomain)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failure(ctx, method); err != nil {
		return err
	}
	d := f.domains[uuid]
	if d == nil {
		return fmt.Errorf("%s %s: %w", method, uuid, ErrNotFound)
	}
	if want != "" && d.state != want {
		return fmt.Errorf("%s %s: %w", method, uuid, ErrBadState)
	}
	if f.late[method] {
		delete(f.late, method)
		f.underWay = append(f.underWay, func() { act(d) })
		return fmt.Errorf("%s %s: %w", method, uuid, ErrUnknownOutcome)
	}
	act(d)
	return nil
}

func (f *Fake) failure(ctx context.Context, method string) error {
	err := f.fail[method]
	delete(f.fail, method)
	if err == nil {
		err = ctx.Err()
	}
	return err
}

func (f *Fake) end(uuid string, why Reason) {
	d := f.domains[uuid]
	if d == nil {
		return
	}
	if d.tty != nil {
		d.tty.Close()
	}
	for _, c := range d.viewers {
		c.Close()
	}
	delete(f.domains, uuid)
	f.events.publish(Event{Kind: Stopped, UUID: uuid, Reason: why})
}

// List implements Hypervisor.
func (f *Fake) List(ctx context.Context) ([]Domain, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failure(ctx, "List"); err != nil {
		return nil, err
	}
	var all []Domain
	for id, d := range f.domains {
		all = append(all, Domain{UUID: id, Name: id, State: d.state, MemoryBytes: d.spec.MemoryBytes, IOError: d.ioError})
	}
	return all, nil
}

// QueryKVM implements Hypervisor.
func (f *Fake) QueryKVM(ctx context.Context, uuid string) (KVM, error) {
	var answer KVM
	err := f.on(ctx, "QueryKVM", uuid, "", func(d *fakeDomain) {
		answer = KVM{Enabled: d.spec.Kind == Accelerated, Present: f.kvm.Present}
	})
	return answer, err
}

// DialConsole implements Hypervisor.
func (f *Fake) DialConsole(ctx context.Context, uuid string) (net.Conn, error) {
	var ours net.Conn
	err := f.on(ctx, "DialConsole", uuid, "", func(d *fakeDomain) {
		ours, d.tty = ttyPair()
		go f.guest(d.spec, d.tty)
	})
	return ours, err
}

// ttyPair is buffered like a socket of QEMU's: the guest does not wait for a
// reader.
func ttyPair() (net.Conn, net.Conn) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err) // only out of descriptors
	}
	return fdConn(fds[0]), fdConn(fds[1])
}

func fdConn(fd int) net.Conn {
	f := os.NewFile(uintptr(fd), "tty")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		panic(err)
	}
	return c
}

// guest answers each byte with itself and obeys a line that is a command.
func (f *Fake) guest(spec Spec, tty net.Conn) {
	b := make([]byte, 4096)
	for {
		n, err := tty.Read(b)
		if err != nil {
			return
		}
		if _, err := tty.Write(b[:n]); err != nil {
			return
		}
		switch string(b[:n]) {
		case "poweroff\n":
			f.End(spec.UUID, ByGuest)
		case "panic\n":
			f.End(spec.UUID, ByCrash)
		case "reboot\n":
			f.reboot(spec)
		}
	}
}

func (f *Fake) reboot(spec Spec) {
	if spec.RebootDestroys {
		f.End(spec.UUID, ByGuest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.domains[spec.UUID]; d != nil {
		d.greet()
	}
}

// greet is lost when nobody is connected, as on a real serial port.
func (d *fakeDomain) greet() {
	if d.tty != nil {
		_, _ = io.WriteString(d.tty, FakeGreeting)
	}
}

// Subscribe implements Hypervisor.
func (f *Fake) Subscribe() (<-chan Event, func()) { return f.events.subscribe() }

// Close implements Hypervisor.
func (f *Fake) Close() error {
	f.events.close()
	return nil
}
