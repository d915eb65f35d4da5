// Package hypervisor runs virtual machines: it is the only place that knows
// libvirt, and the only place that writes domain XML. Whoever may talk to
// libvirt is root, so this package is a privilege boundary: callers say what
// machine they want in a Spec and never pass XML or options through.
//
// Domains are transient: the pool database holds the definition of a VM,
// libvirt holds what runs. A domain that stops is gone from libvirt, so the
// two can never disagree about a machine that does not run.
//
// A domain is named by the UUID of its VM. libvirt refuses a second domain
// with the same UUID, which is the last of the three guards against starting
// a VM twice (the others are the VM's row in the database and its operation
// lock, see package vm).
//
// Every method may be called from many goroutines. Calls are bounded by their
// context and by a limit of their own. A call whose answer was lost returns
// ErrUnknownOutcome: it may or may not have happened, and the caller must look
// (List) before it acts again.
//
// Events are hints. They are delivered in order and never block the library,
// but a connection that was lost loses them, so an event of kind Resync means
// "compare everything again". Consumers must be level-triggered.
package hypervisor

import (
	"context"
	"errors"
	"net"
)

// Errors a caller branches on; all others are plain failures.
var (
	ErrNotFound       = errors.New("domain not found")
	ErrExists         = errors.New("domain exists already")
	ErrBadState       = errors.New("domain is in the wrong state")
	ErrUnavailable    = errors.New("hypervisor is not connected")
	ErrUnknownOutcome = errors.New("the answer was lost, the outcome is unknown")
)

// Hypervisor is one host's hypervisor. Libvirt and Fake implement it, and one
// conformance script holds both to the same behaviour.
type Hypervisor interface {
	// Ready waits until the hypervisor answers, or for the context's end.
	Ready(ctx context.Context) error
	// Version names the hypervisor, for host.software_version.
	Version(ctx context.Context) (Version, error)

	// Start creates the domain. A paused domain has its devices and its console,
	// and has not executed an instruction.
	Start(ctx context.Context, spec Spec, paused bool) error
	// Pause stops the virtual CPUs; Resume lets them go on.
	Pause(ctx context.Context, uuid string) error
	Resume(ctx context.Context, uuid string) error
	// Shutdown presses the virtual power button. It returns at once; whether and
	// when the guest stops is its own affair and comes as an event.
	Shutdown(ctx context.Context, uuid string) error
	// Destroy ends the domain at once, and returns when it is gone. ErrNotFound is as
	// good as success: a libvirtd that has just started, and is still taking running
	// domains over, ends the domain and then says it knows none.
	Destroy(ctx context.Context, uuid string) error

	// List reports every domain there is, ours or not.
	List(ctx context.Context) ([]Domain, error)
	// Stats reports what every domain has used. ErrBusy while an earlier question has no
	// answer, as when a QEMU hangs.
	Stats(ctx context.Context) ([]Stats, error)
	// QueryKVM asks the domain's QEMU whether KVM drives it.
	QueryKVM(ctx context.Context, uuid string) (KVM, error)
	// DialConsole opens the serial console. QEMU serves one client at a time, so
	// there must be one caller, who reads without pause: a client that does not
	// read stalls the guest's serial port.
	DialConsole(ctx context.Context, uuid string) (net.Conn, error)

	// DialAgent opens the port of the agent inside the guest, whether or not there is
	// one: what is written waits for it. QEMU serves one client at a time, so there must
	// be one caller. ErrNotFound when the domain is not there or has no such port.
	DialAgent(ctx context.Context, uuid string) (net.Conn, error)

	// Devices change what a running domain has.
	Devices

	// Subscribe delivers events from now on until cancel is called. The first one
	// is always a Resync. A subscriber that does not read loses events, gets a
	// Resync instead, and disturbs nobody.
	Subscribe() (events <-chan Event, cancel func())
	// Close gives up the connection. Domains go on running.
	Close() error
}

// Version of the hypervisor, as text like "11.3.0".
type Version struct{ Libvirt, QEMU string }

// KVM is QEMU's own word on whether KVM is there and in use.
type KVM struct {
	Enabled bool `json:"enabled"`
	Present bool `json:"present"`
}

// State of a domain that exists. A domain that does not exist has none.
type State string

// States of a domain.
const (
	Running  State = "running"
	Paused   State = "paused"
	Stopping State = "stopping" // the guest has powered off, or QEMU is dying; it is about to be gone
)

// Domain is one entry of List.
type Domain struct {
	UUID  string
	Name  string
	State State
	// MemoryBytes is what the domain may use at most, without QEMU's own needs.
	MemoryBytes int64
	// IOError: it is paused because a disk's write failed, for lack of space as a rule.
	// Resume repeats the write.
	IOError bool
}

// EventKind says what happened.
type EventKind string

// Kinds of events.
const (
	Resync  EventKind = "resync" // events may have been lost: compare everything
	Started EventKind = "started"
	PausedE EventKind = "paused"
	Resumed EventKind = "resumed"
	Stopped EventKind = "stopped"
	// IOError: a disk's write failed and the guest is paused until Resume, which
	// repeats the write.
	IOError EventKind = "io-error"
	// Unplugged: the guest has let go of a device, perhaps long after it was asked to.
	Unplugged EventKind = "unplugged"
)

// Reason says why a domain stopped, or why its disk failed.
type Reason string

// Reasons of Stopped.
const (
	// ByGuest: the guest powered itself off, asked or not; or restarted itself under
	// RebootDestroys, which QEMU turns into a power-off and does not tell apart.
	ByGuest     Reason = "guest-shutdown"
	ByDestroy   Reason = "destroyed"
	ByCrash     Reason = "crashed" // the guest panicked or QEMU died
	ByMigration Reason = "migrated"
	BySave      Reason = "saved"
	ByOther     Reason = "other"
)

// Reasons of IOError.
const (
	NoSpace    Reason = "enospc"
	OtherError Reason = "error"
)

// Event is one change of one domain, or a Resync of all.
type Event struct {
	Kind   EventKind
	UUID   string
	Reason Reason // of Stopped and IOError
	Device string // of IOError and Unplugged: the VBD's or VIF's UUID, when it is known
}
