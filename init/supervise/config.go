package supervise

import (
	"context"
	"log/slog"
	"os"
	"syscall"
	"time"

	"cairn/init/supervise/account"
	"cairn/init/supervise/catalogue"
	"cairn/init/supervise/engine"
	"cairn/init/supervise/pump"
	"cairn/init/supervise/watchdog"
)

// Groups is the cgroup tree as PID 1 uses it.
type Groups interface {
	// Open returns the directory to start a service in; nil means that this
	// host has none.
	Open(service string) (*os.File, error)
	SetWeight(service string, weight int) error
	Kill(service string) error
	WaitEmpty(ctx context.Context, service string) error
	Of(pid int) (service string, ok bool)
	// Guests says whether any guest runs.
	Guests() bool
}

// System is what ends all processes and the machine.
type System interface {
	// SignalAll sends to every process but this one.
	SignalAll(syscall.Signal) error
	// Unmount takes down every stored file system and says which.
	Unmount(*slog.Logger)
	// Down ends the machine. It returns only on failure.
	Down(engine.Kind) error
}

// Config is everything a supervisor depends on.
type Config struct {
	Services []catalogue.Service
	Log      *slog.Logger
	Console  *pump.Console
	Pump     *pump.Pump
	Groups   Groups
	System   System
	Watchdog *watchdog.Keeper
	Accounts func() (account.Book, error)
	Uptime   func() time.Duration

	NotifySocket string
	LogDir       string
	LogsAfter    string // the service whose readiness says that LogDir is there
	ShimPath     string // a program that is ExecService when argv[0] says so
	// HangAfter stops the main loop for good; 0 is never.
	HangAfter time.Duration
}

const (
	// feedEvery is a sixth of the watchdog's shortest timeout.
	feedEvery = watchdog.ReadyTimeout / 6
	// shutdownLimit is how long the watchdog is fed once a shutdown was asked
	// for: two minutes for services, and time to unmount.
	shutdownLimit = 4 * time.Minute
	// everyoneGrace is for what is left after the services, guests above all.
	everyoneGrace = 10 * time.Second
	killGrace     = 5 * time.Second
	// clearTimeout bounds the wait for the last run's processes to be gone.
	clearTimeout = 5 * time.Second
	probeTimeout = 10 * time.Second
	flushTimeout = 2 * time.Second
	panicPause   = 100 * time.Millisecond
	// failurePause lets a person read why the host reboots.
	failurePause = 5 * time.Second
)
