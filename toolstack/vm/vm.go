// Package vm is the life-cycle of virtual machines on the hosts it speaks for,
// which in production is this one: the behaviour of the VM class.
//
// Which operation is allowed in which state, and beside which other, is one
// table of package operation. It decides both what allowed_operations shows and what a
// call is answered. current_operations is the lock table: an operation is
// entered there, checked, in the same transaction in which its intent becomes
// durable, and leaves it in the transaction that records its result.
//
// A VM never runs twice. Three guards stand in a row: the row's power_state and
// current_operations, both checked in one transaction of the single-writer
// database; the domain's UUID, of which libvirt refuses a second; and the order
// of the steps: intent first, domain second, result last, so that after a crash
// in between the start-up reconcile finds either no domain, or the domain and
// the row that speaks of it. An interrupted start whose domain never ran an
// instruction is rolled back, all else is recorded as it is found.
//
// Domain events only wake the reconciler, which compares rows with domains. It
// leaves rows alone that have an operation in progress, or had one since it
// looked. Domains without a row are reported and left alone.
//
// All methods may be called from many goroutines.
package vm

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/lock"
)

// Consoles keeps hold of the serial consoles of running domains.
type Consoles interface {
	// Attach connects to a domain's console; it is idempotent.
	Attach(ctx context.Context, uuid string) error
	// Renew connects to the console of a domain just made.
	Renew(ctx context.Context, uuid string) error
}

// Devices are the disks and NICs of machines, on the host's side and in the rows.
type Devices interface {
	// Check says why a machine's disks and networks cannot be had on a host.
	Check(r db.Reader, host api.HostRef, vm api.VMRef) error
	// Reserve takes the devices for a domain about to be made, in the transaction
	// that records that intent; task is the operation's name.
	Reserve(tx *db.Tx, vm api.VMRef, task string) error
	// Prepare makes all that is reserved ready, or nothing, and then nothing is
	// reserved any more.
	Prepare(ctx context.Context, host api.HostRef, vm api.VMRef) ([]hypervisor.Disk, []hypervisor.NIC, error)
	// Started and Stopped belong in the transaction that records the domain's start
	// or its end.
	Started(tx *db.Tx, vm api.VMRef) error
	Stopped(tx *db.Tx, vm api.VMRef) error
	// Release lets go of the host's side of what nothing uses; it is idempotent.
	Release(ctx context.Context, host api.HostRef, vm api.VMRef) error
	// Found makes rows and domain agree where a crash left them apart. With recorded
	// the rows say what the domain has, whatever else failed.
	Found(ctx context.Context, host api.HostRef, vm api.VMRef) (recorded bool, err error)
	// Sweep lets go of all that a host has ready for nobody; Left says when there is
	// such, for it could not be let go of. May be nil.
	Sweep(ctx context.Context, host api.HostRef) error
	Left() <-chan struct{}
}

// Alerts tells operators.
type Alerts interface {
	Raise(ctx context.Context, name string, cls api.Cls, uuid, body string) (api.MessageRef, error)
}

// Host is what this package needs to know of a host.
type Host interface {
	Ref() api.HostRef
	// Kind says how guests are executed; ok is false when they cannot be.
	Kind() (kind hypervisor.Kind, ok bool)
	// AwaitKind returns once Kind is certain, soon after a boot.
	AwaitKind(ctx context.Context) error
	// GuestMemory is what all guests together may use, in bytes.
	GuestMemory() int64
	// Address is where clients reach this host.
	Address() string
	// Boot names the time since the host was last started: another one means that no
	// domain of before is there any more, however it ended.
	Boot() string
}

// Config is what a Manager needs.
type Config struct {
	DB         *db.DB
	Hypervisor hypervisor.Hypervisor
	Consoles   Consoles
	Host       Host
	// Devices plugs disks and NICs; nil in tests of machines that have none.
	Devices Devices
	// Memory keeps account of memory; nil in tests that squeeze nobody.
	Memory Memory
	// Alerts hears of crashes and full disks; may be nil.
	Alerts Alerts
	// Hostd knows what the host's kernel did to guests; may be nil.
	Hostd Hostd
	// Sleep waits between the steps of an appliance and for disks of others; nil is real
	// time.
	Sleep func(context.Context, time.Duration) error
	// SpaceRetry paces attempts to let a guest go on whose disk had no space; 0 is
	// five seconds.
	SpaceRetry time.Duration
	// Disks is storage; without it there are machines without disks alone.
	Disks Disks
	// Guests are the agents in machines; nil where nobody talks to any.
	Guests Guests
	// NVRAM copies what firmware and TPMs remember; nil where nobody keeps any.
	NVRAM NVRAM
	// Others are further hosts to speak for, of a simulated pool; none otherwise.
	Others []Site
	// GuestDir is the only directory kernels and initial RAM disks of guests may
	// come from.
	GuestDir string
	// ShutdownTimeout bounds a clean shutdown; 0 is twenty minutes, as clients of
	// this API expect.
	ShutdownTimeout time.Duration
	// SecondLook is how long after libvirtd was reached again the domains are looked at
	// once more: the state that it lists of one that it is just taking over may be old, and
	// no event corrects it. 0 is five seconds.
	SecondLook time.Duration
	// PressInterval paces presses of the power button; 0 is fifteen seconds.
	PressInterval time.Duration
	Log           *slog.Logger
}

// DefaultGuestDir is where the image keeps the demo guest.
const DefaultGuestDir = "/usr/share/cairn/guest"

// defaultShutdownTimeout is the reference implementation's total wait for a
// guest to end by itself.
const defaultShutdownTimeout = 20 * time.Minute

// Manager runs this host's VMs.
type Manager struct {
	cfg   Config
	sites []*Site       // the own host first; never changes
	wake  chan struct{} // capacity 1: the reconciler has something to do
	// snapshots and checkpoints of one VM are allowed side by side and taken one after
	// another: who sleeps for a checkpoint is not suspended, nor has memory to copy.
	snapshots lock.Keyed[api.VMRef]
	// jobEnded, of capacity 1, wakes the sweeper.
	jobEnded chan struct{}

	mu      sync.Mutex
	epochs  map[api.VMRef]uint64         // grows with each begin and end of an operation
	stops   map[string]hypervisor.Reason // why domains stopped, not yet reconciled
	doomed  map[string]time.Time         // until when domains are ended whose start was answered with an error
	known   map[string]bool              // foreign domains already reported
	jobs    map[string]bool              // marks of disks that are being made
	rousing map[api.VDIRef]bool          // images whose VMs somebody is waking
	dozing  map[api.VMRef]bool           // machines that nobody paused, to be let go
	astray  map[api.VMRef]bool           // devices of machines without a domain, to be let go of
	look    map[string]bool              // domains whose devices may not be as the rows say

	recovered bool          // what a former process left is known
	sighted   chan struct{} // closed when rows have been compared with domains once

	lookAll bool // events may have been lost: look at every domain's devices

	// Only Run touches these.
	unfinished map[api.VMRef]api.VMOperations // by a former process; nil after the first reconcile
	waking     map[api.VMRef]bool             // machines that a former process was to let go: their operations stay until they are
	missing    map[string]time.Time           // since when domains are gone without a reason
	unseen     map[string]bool                // domains of a former process whose devices' rows may not be true; nil before the first look
	unswept    bool                           // a host may have devices ready for nobody, as of a former process; of Run
	starved    map[string]attempt             // domains paused because a disk could not be written: when to try again
}

// New returns a Manager; Register and Run make it work.
func New(cfg Config) *Manager {
	if cfg.Log == nil {
		cfg.Log = journal.Discard()
	}
	if cfg.GuestDir == "" {
		cfg.GuestDir = DefaultGuestDir
	}
	if cfg.Devices == nil {
		cfg.Devices = noDevices{}
	}
	if cfg.Memory == nil {
		cfg.Memory = accountant(cfg.DB, sitesOf(cfg))
	}
	if cfg.Guests == nil {
		cfg.Guests = noGuests{}
	}
	if cfg.SpaceRetry == 0 {
		cfg.SpaceRetry = spaceRetry
	}
	if cfg.SecondLook == 0 {
		cfg.SecondLook = 5 * time.Second
	}
	if cfg.PressInterval == 0 {
		cfg.PressInterval = pressInterval
	}
	if cfg.Sleep == nil {
		cfg.Sleep = sleep
	}
	if cfg.ShutdownTimeout == 0 {
		cfg.ShutdownTimeout = defaultShutdownTimeout
	}
	return &Manager{
		cfg: cfg, sites: sitesOf(cfg), unswept: true, lookAll: true, wake: make(chan struct{}, 1),
		epochs: map[api.VMRef]uint64{}, stops: map[string]hypervisor.Reason{},
		jobEnded: make(chan struct{}, 1), jobs: map[string]bool{}, rousing: map[api.VDIRef]bool{}, snapshots: lock.NewKeyed[api.VMRef](),
		doomed: map[string]time.Time{}, known: map[string]bool{}, missing: map[string]time.Time{},
		dozing: map[api.VMRef]bool{}, astray: map[api.VMRef]bool{}, starved: map[string]attempt{}, look: map[string]bool{},
		sighted: make(chan struct{}),
	}
}

// Register binds the behaviour of the VM class.
func (m *Manager) Register(r *api.Registry) {
	api.HandleVMCreate(r, m.create)
	api.HandleVMClone(r, m.clone)
	api.HandleVMCopy(r, m.copy)
	api.HandleVMProvision(r, m.provision)
	api.HandleVMDestroy(r, m.destroy)
	api.HandleVMSnapshot(r, m.snapshot)
	api.HandleVMSnapshotWithQuiesce(r, m.snapshotWithQuiesce)
	api.HandleVMCheckpoint(r, m.checkpoint)
	api.HandleVMRevert(r, m.revert)
	r.Override("VM.set_is_a_template", m.setIsATemplate)
	api.HandleVTPMCreate(r, m.createVTPM)
	api.HandleVTPMDestroy(r, m.destroyVTPM)
	api.HandleVMSuspend(r, m.suspend)
	api.HandleVMResume(r, m.resume)
	api.HandleVMResumeOn(r, m.resumeOn)
	api.HandleVMStart(r, m.start)
	api.HandleVMStartOn(r, m.startOn)
	api.HandleVMPause(r, m.pause)
	api.HandleVMUnpause(r, m.unpause)
	api.HandleVMCleanShutdown(r, m.cleanShutdown)
	api.HandleVMHardShutdown(r, m.hardShutdown)
	api.HandleVMShutdown(r, m.shutdown)
	api.HandleVMCleanReboot(r, m.cleanReboot)
	api.HandleVMHardReboot(r, m.hardReboot)
	api.HandleVMPowerStateReset(r, m.powerStateReset)
	api.HandleVMAssertOperationValid(r, m.assertOperationValid)
	api.HandleVMUpdateAllowedOperations(r, m.updateAllowedOperations)
	api.HandleVMAssertCanBootHere(r, m.assertCanBootHere)
	api.HandleVMGetPossibleHosts(r, m.getPossibleHosts)
	api.HandleVMSetVCPUsNumberLive(r, m.setVCPUsNumberLive)
	m.registerAppliances(r)
	m.registerSizes(r)
	m.registerSettings(r)
}
