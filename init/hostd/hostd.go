// Package hostd is the service that makes a host out of hardware and a
// configuration document: it mounts STATE and LOGS, writes /etc, keeps the
// management network, and answers a small typed API on a local socket.
//
// Order of start: storage, document, /etc, READY=1; then the drivers of the NICs
// and KVM, the network and the power button side by side, because nothing that
// waits for hostd needs them.
// Whatever is missing or wrong on the way, hostd goes on with what it has and
// says so: the host must stay reachable.
//
// Concurrency: the document in force and the texts derived from it belong to
// keeper, behind its mutex; the network to its manager's goroutine; requests
// are served each by their own goroutine and hold no other state.
package hostd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/init/hostd/inventory"
	"cairn/init/hostd/job"
	"cairn/init/network"
	"cairn/init/storage"
	"cairn/init/storage/media"
	"cairn/init/storage/repository"
	"cairn/init/storage/tool"
)

// Paths are where things are on the host; a test puts all below one directory.
type Paths struct {
	Sys, Proc string
	Etc       string // generated files
	Config    string // on STATE
	Logs      string // services' logs
	Run       string // hostd's own files that live until the next boot
	KVM       string // /dev/kvm
	Input     string // /dev/input
	OSRelease string
	Dev       string
	Libvirt   string // what libvirt keeps on STATE
	// Mounts is below which repositories are mounted; Repositories and ISOs are
	// where those that are directories of the host may be.
	Mounts             string
	Repositories, ISOs []string
}

// System is what hostd does to the machine beyond files; the packages it uses
// have interfaces of their own.
type System interface {
	storage.System
	// Unmount ends a mount; EBUSY while somebody uses it.
	Unmount(target string) error
	// LoadModule loads a kernel module and what it needs.
	LoadModule(name string) error
	// Admit gives a device to a group, which may read and write it from then on. The
	// device is said to have changed even if it was the group's before.
	Admit(device string, group int) error
	// LoadNICs loads the drivers of the NICs there are.
	LoadNICs() error
	SetHostname(name string) error
	// Power asks PID 1 for an orderly end.
	Power(client.PowerAction) error
	// Notify sends a state such as READY=1 to the supervisor.
	Notify(state string) error
	// Media returns the document on a medium labelled for it, if there is one.
	Media() ([]byte, bool, error)
	// Show puts the banner on the host's own screens.
	Show(screen, text string)
	// Devices calls found whenever devices appear, until ctx is done.
	Devices(ctx context.Context, found func()) error
	// ReloadTime tells the time daemon that its sources changed.
	ReloadTime() error
	// Synchronized reports whether the clock follows a source of time.
	Synchronized() (bool, error)
	// KernelLog returns the kernel's messages, and drops them afterwards when
	// empty is true.
	KernelLog(empty bool) ([]byte, error)
}

// Host is hostd with everything it needs from outside.
type Host struct {
	Paths    Paths
	System   System
	Kernel   network.Kernel
	Guard    Guard
	Files    config.FS
	Listener net.Listener
	Log      *slog.Logger
	// Tools runs the programs that work on disks and images; VolumeUser and
	// VolumeGroup own volumes, as QEMU must open them.
	Tools                   tool.Runner
	VolumeUser, VolumeGroup int
	// WatchdogEvery is how often to ping the supervisor; 0 is never.
	WatchdogEvery time.Duration

	keeper  keeper
	network *network.Manager
	ports   *ports
	storage storage.Mounts

	running      context.Context // ends when hostd does
	repositories *repository.Manager
	jobs         *job.Book
	kvm          *kvm
	banner       banner
	button       button
}

func (h *Host) inventory() inventory.Source {
	return inventory.Source{Sys: h.Paths.Sys, Proc: h.Paths.Proc}
}

// Run starts everything in order and serves until ctx is done.
func (h *Host) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.kvm, h.running = newKVM(), ctx
	start := time.Now()
	enough := h.askForTime(ctx)
	h.mountStorage()
	enough()
	mounted := time.Since(start)
	h.loadConfig()
	h.generate()
	h.network = network.New(h.Kernel, h.leases(), h.Log, h.networkChanged)
	h.network.Apply(h.settings())
	h.ports = &ports{path: h.Paths.Run + "/ports.json", guard: h.Guard, load: h.System.LoadModule}
	if err := h.ports.restore(); err != nil {
		h.Log.Error("ports-not-restored", "err", err)
	}
	h.repositories, h.jobs = h.newRepositories(), job.New(h.Log)
	server := h.newServer()
	errs := make(chan error, 2)
	go func() { errs <- server.Serve(h.Listener) }()
	if err := h.System.Notify("READY=1"); err != nil {
		h.Log.Warn("notify-failed", "err", err)
	}
	h.Log.Info("hostd-ready", "config", h.keeper.get().Source, "state", h.storage.State.Kind,
		"storage-took", mounted, "took", time.Since(start), "uptime", fmt.Sprintf("%.3f", network.Uptime().Seconds()))
	var work sync.WaitGroup
	work.Go(func() { errs <- h.network.Run(ctx) })
	go h.loadDrivers(ctx) // not waited for at the end: a module takes the time it takes
	work.Go(func() { h.watchDevices(ctx) })
	work.Go(func() { h.pingWatchdog(ctx) })
	work.Go(func() { h.repositories.Resume(ctx) })
	err := wait(ctx, errs)
	cancel()
	h.jobs.Close() // which ends the requests that wait for them
	shutdown(server)
	work.Wait()
	return err
}

func (h *Host) newRepositories() *repository.Manager {
	return repository.New(repository.Config{
		Tools: h.Tools, Mounter: h.System, Log: h.Log,
		Media: media.Source{
			Sys: h.Paths.Sys, Dev: h.Paths.Dev, Proc: h.Paths.Proc, BootDisk: h.storage.BootDisk, Tools: h.Tools,
		},
		MountDir: h.Paths.Mounts, Record: h.Paths.Run + "/repositories.json", LVMDir: h.Paths.Run + "/lvm",
		ExportDir:    h.Paths.Run + "/exports",
		FilePrefixes: h.Paths.Repositories, ISOPrefixes: h.Paths.ISOs,
		User: h.VolumeUser, Group: h.VolumeGroup,
	})
}

// wait returns when ctx is done, which is no error, or a part has failed.
func wait(ctx context.Context, errs <-chan error) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-errs:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

func (h *Host) leases() network.LeaseFile {
	return network.LeaseFile{Path: h.Paths.Run + "/lease.json", BridgePath: h.Paths.Run + "/bridges.json", Uptime: network.Uptime}
}

func (h *Host) settings() network.Settings {
	doc := h.keeper.get().Document
	return network.Settings{Hostname: doc.Hostname, Management: doc.Management, Bridge: managementBridge}
}

// A large file system replays its journal for minutes, and a start that is cut off
// begins again from nothing. The limit is for a disk that never answers.
const (
	askEvery  = 20 * time.Second
	askAtMost = 15 * time.Minute
)

// askForTime tells the supervisor, until the returned function is called, that
// the start takes longer.
func (h *Host) askForTime(ctx context.Context) (enough func()) {
	ctx, cancel := context.WithTimeout(ctx, askAtMost)
	go func() {
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				h.Log.Info("waiting", "for", "the file systems of STATE and LOGS")
				_ = h.System.Notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (3 * askEvery).Microseconds()))
			case <-ctx.Done():
				return
			}
		}
	}()
	return cancel
}

func (h *Host) mountStorage() {
	h.storage = storage.Mount(h.System, h.Paths.Sys)
	for _, o := range []struct {
		name string
		storage.Outcome
	}{{"state", h.storage.State}, {"logs", h.storage.Logs}} {
		switch o.Kind {
		case storage.Disk:
			h.Log.Info(o.name+"-mounted", "dev", o.Device)
		case storage.Tmpfs:
			h.Log.Warn(o.name+"-missing", "reason", o.Err, "using", "tmpfs")
		default:
			h.Log.Error(o.name+"-failed", "dev", o.Device, "err", o.Err, "using", "tmpfs")
		}
	}
	if h.storage.Err != nil {
		h.Log.Error("storage-incomplete", "err", h.storage.Err)
	}
}

// pingWatchdog tells the supervisor that hostd lives: that its scheduler runs
// and the document, which every request needs, is not locked for good.
func (h *Host) pingWatchdog(ctx context.Context) {
	if h.WatchdogEvery <= 0 {
		return
	}
	tick := time.NewTicker(h.WatchdogEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.keeper.get()
			if err := h.System.Notify("WATCHDOG=1"); err != nil {
				h.Log.Warn("notify-failed", "err", err)
			}
		}
	}
}
