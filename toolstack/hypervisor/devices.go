package hypervisor

import (
	"context"
	"errors"
	"net"
	"strings"
)

// Errors of operations on devices.
var (
	// ErrBusy: the guest does not let go of a device, or another job of the domain is
	// under way. Nothing has changed, except that a guest may yet let go.
	ErrBusy = errors.New("device is in use")
	// ErrUnsupported: what was asked for cannot be done while the domain runs.
	ErrUnsupported = errors.New("not possible while the domain runs")
)

// Format is how a disk's bytes are laid out.
type Format string

// Formats of disks.
const (
	Raw   Format = "raw"
	Qcow2 Format = "qcow2"
)

// Source is where a disk's bytes are, with the whole chain beneath. QEMU opens
// what is named here and follows no reference it finds inside an image.
type Source struct {
	Path    string
	Format  Format
	Block   bool    // a block device, not a file
	Backing *Source // nil: nothing beneath
}

// Bus is what the guest finds a disk on.
type Bus string

// Buses. Devices on SATA cannot come or go while the guest runs; their media can.
const (
	SCSI Bus = "scsi"
	SATA Bus = "sata"
)

// Disk is a disk or CD drive of a domain.
type Disk struct {
	ID                      string // UUID of the VBD
	Serial                  string // what the guest reads as the disk's serial number
	Device                  string // sda, sdb, …: the place on the bus
	Bus                     Bus
	CD, ReadOnly, Shareable bool
	Source                  *Source // nil: a CD drive without a medium
}

// NIC is a network interface of a domain.
type NIC struct {
	ID       string // UUID of the VIF
	MAC      string
	Bridge   string
	Tap      string // host's end: TapName(ID)
	MTU      int    // 0: the bridge's
	Model    string // virtio when empty
	LinkDown bool
}

// Models of NICs.
const (
	Virtio = "virtio"
	E1000E = "e1000e"
)

// Overlay is a prepared, empty image that a running disk goes on to write to. Its
// backing must be what the disk has now.
type Overlay struct {
	ID     string // of the disk
	Source Source
}

// MemoryStats is what is known of a guest's memory; what the guest does not
// report is 0.
type MemoryStats struct {
	Actual int64 // what the balloon leaves to the guest
	Total  int64 // what the guest's kernel manages
	Free   int64 // unused
	Usable int64 // free, or free at no great cost
	RSS    int64 // of QEMU, on the host
}

// Devices are the operations on a running domain's hardware. A change lasts as long
// as the domain: the caller's records are what the next start goes by.
//
// A lost answer (ErrUnknownOutcome) is settled by looking: Hardware says what the
// domain has. What was asked for may still be under way then, so Settled comes first.
type Devices interface {
	// Hardware reports the disks and NICs the domain has at this moment.
	Hardware(ctx context.Context, uuid string) (Hardware, error)
	// Settled returns without an error when nothing is under way any more of what was
	// asked of the domain before; ErrNotFound when there is no domain.
	Settled(ctx context.Context, uuid string) error

	// AttachDisk plugs a disk; ErrExists when its ID or place is taken.
	AttachDisk(ctx context.Context, uuid string, d Disk) error
	// DetachDisk returns when the disk is gone. ErrBusy when it is not within a limit;
	// ErrNotFound when it is not there. A guest is not asked for a disk on SCSI: it
	// goes at once, as if its cable were pulled, whatever the guest has not yet
	// written.
	DetachDisk(ctx context.Context, uuid, id string) error
	// ChangeMedia puts a medium into a CD drive; nil takes out what is there.
	ChangeMedia(ctx context.Context, uuid, id string, s *Source) error
	// ResizeDisk makes a disk grow under the guest. The image is grown by QEMU.
	ResizeDisk(ctx context.Context, uuid, id string, bytes int64) error

	AttachNIC(ctx context.Context, uuid string, n NIC) error
	// DetachNIC asks the guest for the NIC. ErrBusy when the guest does not give it up
	// within a limit; it may yet, which comes as an event. ErrNotFound when it is not
	// there.
	DetachNIC(ctx context.Context, uuid, id string) error
	// UpdateNIC changes bridge and link state; all else must be as it is.
	UpdateNIC(ctx context.Context, uuid string, n NIC) error

	// SetVCPUs changes how many vCPUs there are. The guest is asked to give up those that
	// are too many, one after another: ErrBusy when it does not within a limit, and then it
	// may have given up some. Those it began with are not taken away: ErrUnsupported.
	SetVCPUs(ctx context.Context, uuid string, n int) error
	// SetMemoryTarget sets what the balloon should leave to the guest. It returns at
	// once; MemoryStats tells how far the guest is.
	SetMemoryTarget(ctx context.Context, uuid string, bytes int64) error
	MemoryStats(ctx context.Context, uuid string) (MemoryStats, error)

	// Snapshot switches disks to overlays, all at one instant or none. ErrNotFound says
	// that there is no domain, so that nobody writes to the disks; one that lacks a disk,
	// or has it elsewhere than the overlay says, is ErrBadState.
	Snapshot(ctx context.Context, uuid string, o []Overlay) error
	// Commit writes a disk's top image into its backing while the guest runs, then
	// makes the backing the disk's source. progress, which may be nil, hears of parts
	// of 1. ErrBadState when the source has no backing.
	//
	// A caller that dies leaves the job running: the next Commit of the disk finds and
	// finishes it. One that may have finished unseen must look at Hardware first, or
	// it would commit the next image down.
	Commit(ctx context.Context, uuid, id string, progress func(float64)) error

	// Save writes the running or paused domain to a file or block device and ends it.
	// When it fails, or is called off, the domain goes on and the file is worth nothing.
	Save(ctx context.Context, uuid, path string) error
	// Whole reports whether a file holds all of a domain that Save was to write: a Save
	// that was cut off leaves one that does not. It says nothing of what happened since.
	Whole(ctx context.Context, uuid, path string) (bool, error)
	// Restore brings a saved domain back. Of spec, the disks' sources, the NICs' taps
	// and bridges and the title count; the hardware is as it was saved. The file stays.
	Restore(ctx context.Context, path string, spec Spec, paused bool) error

	// Screenshot takes a picture of the graphical console, as a PNG.
	Screenshot(ctx context.Context, uuid string) ([]byte, error)
	// DialVNC opens the graphical console, which many may share. ErrNotFound when the
	// domain is not there or has no graphics.
	DialVNC(ctx context.Context, uuid string) (net.Conn, error)

	// Erase drops what is kept of a VM that is not to start again: its UEFI variables
	// and its TPM. It is idempotent; ErrBadState while the domain runs.
	Erase(ctx context.Context, uuid string) error
}

// Hardware is what a domain has.
type Hardware struct {
	Disks []Disk
	NICs  []NIC
	VCPUs int
}

// Disk finds a disk by its ID.
func (h Hardware) Disk(id string) (Disk, bool) {
	for _, d := range h.Disks {
		if d.ID == id {
			return d, true
		}
	}
	return Disk{}, false
}

// NIC finds a NIC by its ID.
func (h Hardware) NIC(id string) (NIC, bool) {
	for _, n := range h.NICs {
		if n.ID == id {
			return n, true
		}
	}
	return NIC{}, false
}

// tapDigits is as much of a UUID as fits a Linux interface's name with the prefix.
const tapDigits = 12

// TapName is the host's end of a VIF's cable.
func TapName(vifUUID string) string {
	digits := strings.ReplaceAll(vifUUID, "-", "")
	return "cv" + digits[:min(len(digits), tapDigits)]
}
