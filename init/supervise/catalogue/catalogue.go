// Package catalogue is the typed list of the services a Cairn host runs.
//
// PID 1 (init/supervise) starts exactly these and nothing else; the image
// builder (image/) takes exactly their programs, the library closure of those,
// and the data each entry declares. So a program that is not named here is not
// in the image, and a file that is not declared here is not found by the
// program that opens it at run time.
//
// The list is plain data: it has no behaviour but Validate, which holds the
// rules every entry obeys. All returns a fresh copy, so callers may change what
// they get. Nothing here depends on the rest of PID 1.
package catalogue

import (
	"io/fs"
	"time"
)

// Class says what happens when a service ends unasked.
type Class string

// The restart classes.
const (
	// Critical services are what makes the machine a host. They are restarted
	// with back-off; a burst of failures means the host cannot heal itself, so
	// it reboots in order, unless it was told not to (HA, maintenance).
	Critical Class = "critical"
	// Restartable services are restarted with back-off for ever.
	Restartable Class = "restartable"
	// Oneshot services run once, must end with 0, and are retried with back-off
	// until they do.
	Oneshot Class = "oneshot"
)

// ReadyKind says how PID 1 learns that a service can be used.
type ReadyKind string

// The readiness kinds.
const (
	// Notify: the service sends READY=1 to its NOTIFY_SOCKET.
	Notify ReadyKind = "notify"
	// Socket: the file Ready.Path exists and is a socket.
	Socket ReadyKind = "socket"
	// Probe: the command Ready.Argv ends with 0.
	Probe ReadyKind = "probe"
	// Exit: the process itself ended with 0. Only for Oneshot.
	Exit ReadyKind = "exit"
)

// Ready is how readiness shows.
type Ready struct {
	Kind ReadyKind
	Path string   // Socket: absolute path
	Argv []string // Probe: command, run each second until it succeeds
}

// KillMode says which processes a stop ends.
type KillMode string

// The kill modes.
const (
	// KillGroup signals the main process, and after the grace period kills
	// everything left in the service's cgroup.
	KillGroup KillMode = "group"
	// KillMain signals and kills the main process only. What it started lives
	// on: guests and their helpers survive their manager.
	KillMain KillMode = "main"
)

// Owner is a user and a group by name.
type Owner struct{ User, Group string }

// Dir is a directory that must exist, with this owner and mode, before the
// service starts.
type Dir struct {
	Path  string
	Mode  fs.FileMode
	Owner Owner
}

// Listen is a listening socket that PID 1 opens before the first service
// starts and keeps open over restarts, so that no connection is refused while
// a service comes back.
type Listen struct {
	Name    string // LISTEN_FDNAMES entry
	Network string // "tcp" or "unix"
	Address string // "[::]:443" listens on IPv4 as well; or an absolute path
	Mode    fs.FileMode
	Owner   Owner
}

// Resource names a limit of setrlimit(2).
type Resource string

// The resources in use.
const (
	NoFile  Resource = "nofile"
	MemLock Resource = "memlock"
	Core    Resource = "core"
)

// Limit is one resource limit.
type Limit struct {
	Resource   Resource
	Soft, Hard uint64
}

// Service is one entry.
type Service struct {
	Name string
	// Argv runs the service in the foreground. Argv[0] is an absolute path.
	Argv []string
	// Needs are services that must be ready before this one starts. They are
	// stopped only after it.
	Needs []string
	// After are services that this one lets go first: it starts once each of them
	// is ready, or has failed, or AfterLimit after boot, whichever comes first.
	// It is order without need: nothing waits for ever.
	After      []string
	AfterLimit time.Duration
	Ready      Ready
	Class      Class
	// StartTimeout bounds the time from start to readiness; the service may ask
	// for more with EXTEND_TIMEOUT_USEC.
	StartTimeout time.Duration
	// Grace is the time from SIGTERM to SIGKILL.
	Grace time.Duration
	// Watchdog is the longest silence between two WATCHDOG=1 messages; 0 is off.
	Watchdog time.Duration
	Kill     KillMode
	// User and Group are names of the image's passwd and group; empty is root.
	Owner    Owner
	OOMScore int
	// CPUWeight is cpu.weight of the service's cgroup; 0 is the kernel's 100.
	// What nobody waits for at boot gets less, so that it does not hold up the
	// services on the way to the API.
	CPUWeight int
	Limits    []Limit
	Dirs      []Dir
	Env       []string
	Sockets   []Listen
	// Console copies the service's log lines to the console.
	Console bool
	// Trusted services may steer PID 1 by X_CAIRN_… notify messages.
	Trusted bool

	// The rest is for the image builder. Paths are absolute in the image and may
	// hold path.Match patterns; a pattern or file that matches nothing in the
	// Debian tree fails the build. Libraries that a program links are found by
	// themselves and not listed.

	// Programs are further programs the service runs.
	Programs []string
	// Files are data, plugins and libraries opened at run time.
	Files []string
	// Unit is Debian's unit file for this service, compared at image build.
	Unit string
}

// Cgroup is the service's cgroup v2 path.
func (s Service) Cgroup() string { return "/svc/" + s.Name }

// Paths of Cairn's own programs in the image.
const (
	HostdPath      = "/usr/lib/cairn/hostd"
	ToolstackdPath = "/usr/lib/cairn/toolstackd"
)

// debianNoFile is LimitNOFILE of Debian's libvirt units: select(2) users keep
// their 1024, everyone else may raise it.
var debianNoFile = Limit{NoFile, 1024, 524288}

// All returns the catalogue, in no particular order: Needs is the order.
func All() []Service {
	return []Service{
		udevd(), udevTrigger(), hostd(), virtlogd(), libvirtd(), chronyd(), toolstackd(),
	}
}
