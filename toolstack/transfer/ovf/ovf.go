// Package ovf reads and writes OVAs, the archives in which VMs travel between products
// of different makers: a tar of a descriptor (DMTF DSP0243, 1.x), the images of disks, and
// a manifest of digests, which may stand before the images or behind them.
//
// A reader takes what VMware, VirtualBox, XenCenter and others write: it knows elements
// by their names, whatever their prefixes, asks for no section that is not needed, and
// passes over what it does not know. Images are stream-optimised VMDKs, VHDs or raw,
// and members may come in any order.
//
// What is kept: what comes is somebody else's, and nothing that it claims is believed.
// The descriptor's length, depth and number of elements are bounded, and it has no
// document type; names of members are compared and never used as paths; an image that
// holds more than its disk is refused where that shows, one that is based on another
// one, packed or cut into files is refused by name; a member is as long as the
// descriptor says, comes once, and has the digest that the manifest says, whichever of
// the two came first. All of it holds before the last Next has returned io.EOF. Memory
// is bounded by the descriptor and what an image's reader takes.
//
// Readers and writers are used by one goroutine.
package ovf

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"cairn/toolstack/transfer/archive"
)

// Descriptor is what an archive says of itself.
type Descriptor struct {
	Files    []File
	Disks    []Disk
	Networks []string
	Systems  []System
}

// File is a member.
type File struct {
	ID, Name string
	Size     int64 // Unknown where the descriptor does not say
}

// Unknown is a size that nobody has told.
const Unknown = -1

// Disk is one with the image in a file.
type Disk struct {
	ID       string
	File     string // its ID; "" for a disk without any content
	Format   Format
	Capacity int64 // in bytes
}

// Format is a kind of image.
type Format string

const (
	VMDK Format = "vmdk"
	VHD  Format = "vhd"
	Raw  Format = "raw"
)

// System is a VM.
type System struct {
	ID, Name, Description string
	Guest                 Guest
	Memory                int64 // in bytes
	CPUs, CoresPerSocket  int64 // 0 where it is not said
	UEFI, SecureBoot      bool
	// Virtio says that disks or NICs are of that kind.
	Virtio bool
	// Platform is what products of this API add of their own.
	Platform map[string]string
	Drives   []Drive // in the order of their places
	NICs     []NIC
}

// Guest is the operating system.
type Guest struct {
	ID    int    // of the CIM
	Label string // as VMware names it
	Text  string // for people
}

// Windows tells guests that are known to be one.
func (g Guest) Windows() bool {
	return strings.Contains(strings.ToLower(g.Label+" "+g.Text), "windows")
}

// Drive is a place for a disk, or for discs.
type Drive struct {
	Disk string // its ID
	CD   bool   // what is in it stays behind
}

// NIC is one on a network, by the network's name.
type NIC struct{ Network, MAC string }

// Find is a disk by its ID.
func (d *Descriptor) Find(id string) (Disk, bool) {
	at := slices.IndexFunc(d.Disks, func(disk Disk) bool { return disk.ID == id })
	if at < 0 {
		return Disk{}, false
	}
	return d.Disks[at], true
}

// suffix of descriptors and of manifests.
const (
	suffixOVF = ".ovf"
	suffixMF  = ".mf"
)

// Descriptive tells names of descriptors: a member of such a name in front makes an
// archive an OVA.
func Descriptive(name string) bool { return strings.EqualFold(path.Ext(name), suffixOVF) }

// plain is a member's name as a descriptor spells it; it refuses what no archive needs.
func plain(name string) (string, error) {
	short := strings.TrimPrefix(name, "./")
	if !fs.ValidPath(short) || short == "." || len(short) > 255 {
		return "", archive.Malformed("a file %.80q", name)
	}
	return short, nil
}
