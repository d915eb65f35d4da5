// Package vmdk reads and writes stream-optimised VMDK images, the disks of OVA
// archives, without seeking.
//
// The layout (VMware, Virtual Disk Format 5.0), all little-endian, in sectors of 512
// bytes: a header, a text that describes the disk, then grains of 64 KiB, each
// deflated behind a marker that says where it belongs, in ascending order; behind those
// of each 32 MiB of the disk that holds anything a table of where they lie; at the end a
// directory of the tables, the header again with the directory's place, and a sector of
// zeros. A grain that is missing is zero. Others have the tables before the grains, and
// no end: that is read as well.
//
// What is kept: nothing that is read is believed before it was compared with what it
// must fit into; a grain that inflates to more than 64 KiB is refused, so nothing small
// becomes large. Memory is bounded by a few grains a processor with their coders, one
// table, and the directory, which has four bytes for each 32 MiB of the disk, whatever
// that holds (8 MiB for the largest). The order of what is written is the disk's,
// whatever order the processors finish in.
//
// Readers and writers are used by one goroutine at a time. A writer has others of its own
// until it is closed, a reader only while Next runs.
package vmdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

const (
	sector       = 512
	grainSectors = 128
	// GrainSize is the size of a grain in bytes.
	GrainSize   = grainSectors * sector
	tableGrains = 512 // grains a table
	tableSize   = 4 * tableGrains

	descriptorAt      = 1 // sectors
	descriptorSectors = 20
	overhead          = 128 // sectors before the first grain

	// MaxSize is the largest disk: 62 TiB, as VMware documents it.
	MaxSize = 62 << 40
)

// ErrFormat is what is not a VMDK that can be read from front to back, or one that
// contradicts itself.
var ErrFormat = errors.New("not a stream-optimised VMDK that can be read")

// ErrTooLarge is an image that does not fit.
var ErrTooLarge = errors.New("the disk of the VMDK is larger than there is room for")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Kinds of markers.
const (
	endOfStream = 0
	grainTable  = 1
	directory   = 2
	footer      = 3
)

const (
	magic = 0x564d444b // "KDMV"
	// flags: line ends can be checked, grains are deflated, markers are there.
	flagNewline = 1 << 0
	flagDeflate = 1 << 16
	flagMarkers = 1 << 17
	deflate     = 1
	atEnd       = 1<<64 - 1
	newlines    = "\n \r\n"
)

// Places in the header.
const (
	versionAt     = 4
	flagsAt       = 8
	capacityAt    = 12
	grainAt       = 20
	textAt        = 28
	textSizeAt    = 36
	entriesAt     = 44
	directoryAt   = 56
	overheadAt    = 64
	newlinesAt    = 73
	compressionAt = 77
)

func checkSize(size int64) error {
	if size <= 0 || size%sector != 0 || size > MaxSize {
		return fmt.Errorf("a disk of %d bytes does not fit into a VMDK", size)
	}
	return nil
}

func grains(size int64) int64 { return (size + GrainSize - 1) / GrainSize }

func tables(size int64) int64 { return (grains(size) + tableGrains - 1) / tableGrains }

// header is a sector; gd is where the directory lies.
func header(size int64, gd uint64) []byte {
	b := make([]byte, sector)
	le := binary.LittleEndian
	le.PutUint32(b, magic)
	le.PutUint32(b[versionAt:], 3)
	le.PutUint32(b[flagsAt:], flagNewline|flagDeflate|flagMarkers)
	le.PutUint64(b[capacityAt:], uint64(grains(size))*grainSectors)
	le.PutUint64(b[grainAt:], grainSectors)
	le.PutUint64(b[textAt:], descriptorAt)
	le.PutUint64(b[textSizeAt:], descriptorSectors)
	le.PutUint32(b[entriesAt:], tableGrains)
	le.PutUint64(b[directoryAt:], gd)
	le.PutUint64(b[overheadAt:], overhead)
	copy(b[newlinesAt:], newlines)
	le.PutUint16(b[compressionAt:], deflate)
	return b
}

// parseHeader returns the disk's size in bytes and where its descriptor lies.
func parseHeader(b []byte) (size, text, length int64, err error) {
	le := binary.LittleEndian
	capacity := le.Uint64(b[capacityAt:])
	switch {
	case le.Uint32(b) != magic:
		return 0, 0, 0, malformed("no header")
	case le.Uint32(b[versionAt:]) > 3:
		return 0, 0, 0, malformed("version %d", le.Uint32(b[versionAt:]))
	case le.Uint32(b[flagsAt:])&(flagDeflate|flagMarkers) != flagDeflate|flagMarkers || le.Uint16(b[compressionAt:]) != deflate:
		return 0, 0, 0, malformed("it is a VMDK of another kind: convert it to streamOptimized")
	case le.Uint32(b[flagsAt:])&flagNewline != 0 && string(b[newlinesAt:newlinesAt+4]) != newlines:
		return 0, 0, 0, malformed("something has changed its line ends on the way")
	case le.Uint64(b[grainAt:]) != grainSectors || le.Uint32(b[entriesAt:]) != tableGrains:
		return 0, 0, 0, malformed("grains of %d sectors, %d a table", le.Uint64(b[grainAt:]), le.Uint32(b[entriesAt:]))
	case capacity == 0 || capacity > MaxSize/sector:
		return 0, 0, 0, malformed("a disk of %d sectors", capacity)
	}
	at, n := le.Uint64(b[textAt:]), le.Uint64(b[textSizeAt:])
	if at > overhead || n > overhead {
		return 0, 0, 0, malformed("a descriptor of %d sectors at %d", n, at)
	}
	return int64(capacity) * sector, int64(at) * sector, int64(n) * sector, nil
}

// marker is a sector that says what follows.
func marker(kind uint32, sectors uint64) []byte {
	b := make([]byte, sector)
	binary.LittleEndian.PutUint64(b, sectors)
	binary.LittleEndian.PutUint32(b[12:], kind)
	return b
}

// descriptor is the text that describes the disk. What is in it of geometry is what
// readers expect of a disk on a SCSI adapter.
func descriptor(size int64, cid uint32) []byte {
	cylinders := max(1, min(size/sector/(255*63), 65535))
	text := fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=%08x
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW %d SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.virtualHWVersion = "13"
`, cid, grains(size)*grainSectors, cylinders)
	b := make([]byte, descriptorSectors*sector)
	copy(b, text)
	return b
}

// checkDescriptor refuses a disk that is based on another.
func checkDescriptor(b []byte) error {
	text := strings.ToLower(strings.TrimRight(string(b), "\x00"))
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if strings.TrimSpace(key) == "parentcid" && strings.TrimSpace(value) != "ffffffff" {
			return malformed("it is based on another disk")
		}
	}
	return nil
}
