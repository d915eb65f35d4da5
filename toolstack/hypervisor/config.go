package hypervisor

import (
	"log/slog"
	"time"

	"cairn/journal"
)

// Config says where libvirt is and how domains reach the outside.
type Config struct {
	Socket   string // libvirtd's unix socket
	Emulator string // QEMU, as libvirtd sees it
	// Root is where this process sees libvirtd's root directory; empty when they
	// share it. A development libvirtd lives in a root of its own.
	Root string

	// ConsoleDir, as libvirtd sees it, holds one socket per running VM. libvirtd
	// must be able to write there, and the caller to enter it.
	ConsoleDir string
	// ConsoleOwner is the owner of those sockets as "+uid:+gid"; empty leaves them
	// to QEMU's user.
	ConsoleOwner string
	LogDir       string // console logs, written by virtlogd

	// GraphicsDir holds one VNC socket per running VM with graphics. QEMU itself
	// makes those, so it must be able to write there; the caller reaches them because
	// files in the directory take over its group.
	GraphicsDir string
	// NVRAMDir holds the UEFI variables of each VM that has some.
	NVRAMDir string

	Log *slog.Logger
	// Limits replaces the time limits in tests.
	Limits Limits
}

// Limits bound what would otherwise wait for a libvirtd that hangs.
type Limits struct {
	Call    time.Duration // a query
	Job     time.Duration // what makes QEMU start, stop or answer
	Connect time.Duration
	Save    time.Duration // what moves all of a guest's memory
	Unplug  time.Duration // what a guest gets to give up a device
	// Back-off between attempts to connect: doubles from Min to Max.
	BackoffMin, BackoffMax time.Duration
}

// Defaults of Config. A job's limit is long because a host under memory pressure
// may take that long to give a large guest its pages.
var defaultLimits = Limits{
	Call:       90 * time.Second,
	Job:        120 * time.Second,
	Connect:    10 * time.Second,
	Save:       time.Hour,
	Unplug:     30 * time.Second,
	BackoffMin: 20 * time.Millisecond,
	BackoffMax: 100 * time.Millisecond,
}

// Paths of a Cairn host; 64055 is Debian's libvirt-qemu and 990 is the group
// cairn, both fixed in the image.
const (
	DefaultSocket       = "/run/libvirt/libvirt-sock"
	DefaultEmulator     = "/usr/bin/qemu-system-x86_64"
	DefaultConsoleDir   = "/run/libvirt/qemu"
	DefaultConsoleOwner = "+64055:+990"
	DefaultLogDir       = "/var/log/libvirt/qemu"
	DefaultGraphicsDir  = "/run/libvirt/vnc"
	DefaultNVRAMDir     = "/var/lib/libvirt/qemu/nvram"
)

// DefaultConfig is the configuration of a Cairn host.
func DefaultConfig() Config {
	return Config{
		Socket:       DefaultSocket,
		ConsoleOwner: DefaultConsoleOwner,
	}.withDefaults()
}

func (c Config) withDefaults() Config {
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	set(&c.Socket, DefaultSocket)
	set(&c.Emulator, DefaultEmulator)
	set(&c.ConsoleDir, DefaultConsoleDir)
	set(&c.LogDir, DefaultLogDir)
	set(&c.GraphicsDir, DefaultGraphicsDir)
	set(&c.NVRAMDir, DefaultNVRAMDir)
	if c.Log == nil {
		c.Log = journal.Discard()
	}
	if c.Limits == (Limits{}) {
		c.Limits = defaultLimits
	}
	return c
}
