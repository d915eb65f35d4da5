package client

import (
	"time"

	"cairn/init/config"
)

// Version is what GET /v1/version answers.
type Version struct {
	// API is the newest version of this interface the host speaks.
	API int `json:"api"`
	// Product is Cairn's own version; Kernel the running kernel's release.
	Product string `json:"product"`
	Kernel  string `json:"kernel"`
}

// Inventory is what GET /v1/inventory answers: the hardware as found now.
type Inventory struct {
	CPU    CPU    `json:"cpu"`
	KVM    KVM    `json:"kvm"`
	Memory Memory `json:"memory"`
	NICs   []NIC  `json:"nics"`
	Disks  []Disk `json:"disks"`
	// Product and BIOS are from DMI; empty where the firmware has none.
	Product  Product `json:"product"`
	BIOS     BIOS    `json:"bios"`
	Hostname string  `json:"hostname"`
	// IOMMU says whether devices can be given to guests; SecureBoot whether the
	// firmware checked what it started.
	IOMMU      bool `json:"iommu"`
	SecureBoot bool `json:"secure_boot"`
	// State says whether what the host writes survives a reboot.
	State State `json:"state"`
}

// CPU describes the processors; all are taken to be alike.
type CPU struct {
	Count    int      `json:"count"`
	Sockets  int      `json:"sockets"`
	Vendor   string   `json:"vendor"`
	Model    string   `json:"model"`
	Family   int      `json:"family"`
	ModelID  int      `json:"model_id"`
	Stepping int      `json:"stepping"`
	MHz      float64  `json:"mhz"`
	Flags    []string `json:"flags"`
}

// KVM says whether hardware virtualization can be used and, if not, why.
type KVM struct {
	Usable bool `json:"usable"`
	// Pending is true for the first seconds after a boot, while the kernel's
	// module is being loaded: nobody can say yet.
	Pending bool   `json:"pending,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Memory is in bytes.
type Memory struct {
	Total     int64 `json:"total"`
	Available int64 `json:"available"`
}

// NIC is a physical network interface.
type NIC struct {
	Name   string `json:"name"`
	MAC    string `json:"mac"`
	Driver string `json:"driver"`
	// PCI is the bus address, such as 0000:00:02.0; empty for other buses.
	PCI    string `json:"pci,omitempty"`
	Vendor string `json:"vendor,omitempty"`
	Device string `json:"device,omitempty"`
	// SpeedMbps is 0 where the driver does not know.
	SpeedMbps int  `json:"speed_mbps"`
	Duplex    bool `json:"duplex"`
	Link      bool `json:"link"`
	MTU       int  `json:"mtu"`
}

// Disk is a whole block device that could hold data.
type Disk struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes"`
	Model     string `json:"model,omitempty"`
	Serial    string `json:"serial,omitempty"`
	// Transport is virtio, nvme, sata, usb, scsi, mmc or empty.
	Transport string `json:"transport,omitempty"`
	Rotating  bool   `json:"rotating"`
	ReadOnly  bool   `json:"read_only"`
	Removable bool   `json:"removable"`
	// Boot is true for the disk the host itself runs from.
	Boot bool `json:"boot"`
}

// Product is the machine as DMI names it.
type Product struct {
	Manufacturer string `json:"manufacturer,omitempty"`
	Name         string `json:"name,omitempty"`
	Serial       string `json:"serial,omitempty"`
	UUID         string `json:"uuid,omitempty"`
}

// BIOS is the firmware as DMI names it.
type BIOS struct {
	Vendor  string `json:"vendor,omitempty"`
	Version string `json:"version,omitempty"`
	Date    string `json:"date,omitempty"`
}

// State tells what lies under /state.
type State struct {
	// Kind is "disk", "tmpfs" (no STATE partition) or "failed" (STATE did
	// not mount; a tmpfs stands in).
	Kind   string `json:"kind"`
	Device string `json:"device,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Config is what GET /v1/config answers.
type Config struct {
	Document config.Document `json:"document"`
	// Text is the document as it was given; empty for the defaults.
	Text string `json:"text,omitempty"`
	// Source is state, media, smbios or default.
	Source string `json:"source"`
	// Problems are the documents that were found and refused at boot.
	Problems []ConfigProblem `json:"problems,omitempty"`
}

// ConfigProblem is a refused document.
type ConfigProblem struct {
	Source  string `json:"source"`
	Line    int    `json:"line"`
	Message string `json:"message"`
}

// Network is what GET /v1/network answers: the management network as it is.
type Network struct {
	// Interface is the NIC chosen for management, empty while none is found.
	Interface string `json:"interface"`
	// Bridge is the bridge over Interface that has the address, if it is there.
	Bridge string `json:"bridge,omitempty"`
	MAC    string `json:"mac,omitempty"`
	Mode   string `json:"mode"`
	Link   bool   `json:"link"`
	// Address is in CIDR form, empty while there is none.
	Address string   `json:"address,omitempty"`
	Gateway string   `json:"gateway,omitempty"`
	DNS     []string `json:"dns,omitempty"`
	Domain  string   `json:"domain,omitempty"`
	NTP     []string `json:"ntp,omitempty"`
	// Lease is the state of the DHCP lease, nil in mode static.
	Lease *Lease `json:"lease,omitempty"`
	// Error is why the desired state is not reached, empty when it is.
	Error string `json:"error,omitempty"`
}

// Lease is a DHCP lease as seen by the host.
type Lease struct {
	State   string    `json:"state"`
	Server  string    `json:"server,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

// PowerAction is what POST /v1/power is asked to do.
type PowerAction string

// The power actions.
const (
	Poweroff PowerAction = "poweroff"
	Reboot   PowerAction = "reboot"
)

// PowerRequest is the body of POST /v1/power.
type PowerRequest struct {
	Action PowerAction `json:"action"`
}

// Logs is what GET /v1/logs answers: the last lines, oldest first.
type Logs struct {
	Service string   `json:"service"`
	Lines   []string `json:"lines"`
	// Truncated is true when older lines exist.
	Truncated bool `json:"truncated"`
}

// KernelLog is what GET and DELETE /v1/kernel-log answer.
type KernelLog struct {
	// Text holds lines as the kernel keeps them, "<6>[    1.234567] text".
	Text string `json:"text"`
}

// OutOfMemory is what GET /v1/out-of-memory answers: guests whose emulator the kernel
// killed for lack of memory, as far back as its log goes.
type OutOfMemory struct {
	Kills []Kill `json:"kills"` // oldest first
}

// Kill is one of them.
type Kill struct {
	Guest string        `json:"guest"` // UUID
	PID   int           `json:"pid"`
	Ago   time.Duration `json:"ago"` // nanoseconds
}

// Time is what GET /v1/time answers.
type Time struct {
	// Synchronized says whether the clock follows a source of time.
	Synchronized bool `json:"synchronized"`
}
