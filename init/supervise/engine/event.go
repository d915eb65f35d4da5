package engine

import (
	"fmt"
	"log/slog"
	"strings"
	"syscall"

	"cairn/init/supervise/notify"
)

// Event is something that happened.
type Event interface{ event() }

// The events.
type (
	// Boot starts it all. It comes once, first.
	Boot struct{}
	// Tick says only that time has passed.
	Tick struct{}
	// Started answers Start: the main process runs.
	Started struct {
		Name string
		PID  int
	}
	// StartFailed answers Start: there is no process.
	StartFailed struct{ Name, Err string }
	// Exited is any process that was reaped, ours or an orphan.
	Exited struct {
		PID    int
		OK     bool   // ended with 0
		Status string // for the log
	}
	// Notified is a message from a process of the service. The caller has
	// checked the sender, and that MainPID belongs to the service.
	Notified struct {
		Name    string
		Message notify.Message
	}
	// SocketAppeared says that the socket of Ready.Path is there.
	SocketAppeared struct{ Name string }
	// Probed answers Probe.
	Probed struct {
		Name string
		OK   bool
	}
	// Guests says whether guests run. Nothing PID 1 decides by itself may take
	// them down.
	Guests struct{ Running bool }
	// ShutdownRequest asks for the end. The first one counts.
	ShutdownRequest struct {
		Kind   Kind
		Reason string
	}
)

func (Boot) event()            {}
func (Tick) event()            {}
func (Started) event()         {}
func (StartFailed) event()     {}
func (Exited) event()          {}
func (Notified) event()        {}
func (SocketAppeared) event()  {}
func (Probed) event()          {}
func (Guests) event()          {}
func (ShutdownRequest) event() {}

// Kind is how a shutdown ends.
type Kind string

// The kinds of shutdown.
const (
	PowerOff Kind = "poweroff"
	Reboot   Kind = "reboot"
	Halt     Kind = "halt"
)

// Action is something to do. Its text is what transcripts show.
type Action interface{ String() string }

// The actions.
type (
	// Start starts the main process of a service that has none. It is answered
	// by Started or StartFailed.
	Start struct{ Name string }
	// Signal sends a signal to the main process.
	Signal struct {
		Name string
		PID  int
		Sig  syscall.Signal
	}
	// KillGroup kills everything in the service's cgroup.
	KillGroup struct{ Name string }
	// Probe runs the readiness command. It is answered by Probed.
	Probe struct{ Name string }
	// Up says that a service became ready.
	Up struct{ Name string }
	// AllReady says once that every service is ready.
	AllReady struct{}
	// GoingDown says once that a shutdown has begun.
	GoingDown struct{ Kind Kind }
	// Finish says that the services have ended: unmount, and go down.
	Finish struct{ Kind Kind }
	// Log is one line of the journal.
	Log struct {
		Level slog.Level
		Event string
		Args  []any
	}
)

func (a Start) String() string { return "start " + a.Name }
func (a Signal) String() string {
	return fmt.Sprintf("signal %s pid=%d %s", a.Name, a.PID, sigName(a.Sig))
}
func (a KillGroup) String() string { return "kill-group " + a.Name }
func (a Probe) String() string     { return "probe " + a.Name }
func (a Up) String() string        { return "up " + a.Name }
func (AllReady) String() string    { return "all-ready" }
func (a GoingDown) String() string { return "going-down " + string(a.Kind) }
func (a Finish) String() string    { return "finish " + string(a.Kind) }

func (a Log) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "log %s %s", a.Level, a.Event)
	for i := 0; i+1 < len(a.Args); i += 2 {
		fmt.Fprintf(&b, " %v=%v", a.Args[i], a.Args[i+1])
	}
	return b.String()
}

func sigName(s syscall.Signal) string {
	switch s {
	case syscall.SIGTERM:
		return "TERM"
	case syscall.SIGKILL:
		return "KILL"
	case syscall.SIGABRT:
		return "ABRT"
	}
	return s.String()
}
