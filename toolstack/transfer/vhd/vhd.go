// Package vhd reads and writes the VHD format as a stream: what comes out of a socket
// is understood without seeking, and what goes into one has a length that is known
// before its first byte. It is the format of this API's disk transfers, with
// differencing images for what has changed since a snapshot; QEMU knows neither
// streams nor differences.
//
// On the wire numbers are big-endian (Microsoft, Virtual Hard Disk Image Format
// Specification 1.0, 2006): a footer, a header, in a differencing image the parent's
// name in two spellings, a table that says at which sector each block of 2 MiB lies, the
// blocks, each behind a bitmap of its sectors, the footer again. A fixed image, which is
// read and never written, is the disk's bytes and a footer behind them.
//
// What is kept: no field of what is read is believed before it was compared with
// what it must be or fit into. Memory is bounded by one block and the table, which has
// four bytes for each block of the disk; a reader keeps 16 more for each block that the
// image brings, and a writer is given eight (for the largest disk that is about 20 MiB in
// all, and 12). What is written has the exact size of the disk, which need not fit
// cylinders and heads; the creator's name is one with which other readers believe that
// size rather than the geometry.
//
// Readers and writers are used by one goroutine at a time.
package vhd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	sector      = 512
	blockSize   = 2 << 20 // all that is known write this; only this is read
	blockBitmap = blockSize / sector / 8
	footerSize  = 512
	headerSize  = 1024
	unused      = 0xffffffff // in the table: no such block

	// MaxSize is the largest disk: its blocks and their bitmaps must lie below
	// sector 2^32-1, and others stop here too (2040 GiB).
	MaxSize = 2040 << 30
)

// ErrFormat is what is not a VHD, or one that contradicts itself.
var ErrFormat = errors.New("not a VHD that can be read")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Kind is the type of an image; the values are the format's.
type Kind uint32

const (
	Fixed        Kind = 2
	Dynamic      Kind = 3
	Differencing Kind = 4
)

// ID is a UUID's 16 bytes.
type ID [16]byte

// Info is what an image says of itself.
type Info struct {
	Kind Kind
	Size int64 // of the disk in bytes, a multiple of 512
	ID   ID
	Made time.Time // to the second

	// Parent and ParentName name what a differencing image is based on.
	Parent     ID
	ParentName string
}

// Check refuses what no image is.
func (i Info) Check() error {
	switch {
	case i.Size <= 0 || i.Size%sector != 0:
		return fmt.Errorf("a disk of %d bytes is not of whole sectors", i.Size)
	case i.Size > MaxSize:
		return fmt.Errorf("a disk of %d bytes does not fit into a VHD, which ends at %d", i.Size, int64(MaxSize))
	case i.Kind != Fixed && i.Kind != Dynamic && i.Kind != Differencing:
		return fmt.Errorf("there is no kind %d of VHD", i.Kind)
	case len(utf16(i.ParentName)) > parentNameSize:
		return fmt.Errorf("the parent's name %q is too long for a VHD", i.ParentName)
	}
	return nil
}

// blocks is how many blocks the disk has.
func blocks(size int64) int64 { return (size + blockSize - 1) / blockSize }

// epoch is second 0 of a VHD.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Places in the footer.
const (
	cookieAt       = 0
	featuresAt     = 8
	versionAt      = 12
	dataAt         = 16
	timeAt         = 24
	creatorAt      = 28
	creatorOSAt    = 36
	originalSizeAt = 40
	sizeAt         = 48
	geometryAt     = 56
	kindAt         = 60
	footerSumAt    = 64
	idAt           = 68
)

const (
	footerCookie = "conectix"
	headerCookie = "cxsparse"
	version1     = 0x00010000
	reserved     = 2 // the one feature bit that is always set
	// creator is that of the blktap family, whose sizes are believed as they are.
	creator   = "tap\x00"
	creatorOS = "Wi2k"
)

// appendFooter writes the footer of an image that has a header.
func appendFooter(b []byte, i Info) []byte {
	f := make([]byte, footerSize)
	be := binary.BigEndian
	copy(f[cookieAt:], footerCookie)
	be.PutUint32(f[featuresAt:], reserved)
	be.PutUint32(f[versionAt:], version1)
	be.PutUint64(f[dataAt:], footerSize)
	be.PutUint32(f[timeAt:], uint32(max(0, i.Made.Sub(epoch)/time.Second)))
	copy(f[creatorAt:], creator)
	be.PutUint32(f[creatorAt+4:], version1)
	copy(f[creatorOSAt:], creatorOS)
	be.PutUint64(f[originalSizeAt:], uint64(i.Size))
	be.PutUint64(f[sizeAt:], uint64(i.Size))
	be.PutUint32(f[geometryAt:], geometry(i.Size))
	be.PutUint32(f[kindAt:], uint32(i.Kind))
	copy(f[idAt:], i.ID[:])
	be.PutUint32(f[footerSumAt:], sum(f, footerSumAt))
	return append(b, f...)
}

// parseFooter reads 512 bytes. It returns where the header lies as well.
func parseFooter(f []byte) (i Info, header int64, err error) {
	be := binary.BigEndian
	if len(f) != footerSize || string(f[:8]) != footerCookie {
		return i, 0, malformed("no footer")
	}
	if be.Uint32(f[footerSumAt:]) != sum(f, footerSumAt) {
		return i, 0, malformed("checksum of the footer")
	}
	if v := be.Uint32(f[versionAt:]); v>>16 != version1>>16 {
		return i, 0, malformed("version %#x", v)
	}
	i.Kind = Kind(be.Uint32(f[kindAt:]))
	size := be.Uint64(f[sizeAt:])
	if size > MaxSize {
		return i, 0, malformed("a disk of %d bytes", size)
	}
	i.Size = int64(size)
	i.Made = epoch.Add(time.Duration(be.Uint32(f[timeAt:])) * time.Second)
	copy(i.ID[:], f[idAt:])
	if err := i.Check(); err != nil {
		return i, 0, malformed("%v", err)
	}
	if i.Kind == Fixed {
		return i, 0, nil
	}
	at := be.Uint64(f[dataAt:])
	if at < footerSize || at > 1<<40 || at%sector != 0 {
		return i, 0, malformed("a header at %d", at)
	}
	return i, int64(at), nil
}

// sum is the one's complement of the sum of all bytes but the four of the sum.
func sum(b []byte, at int) (n uint32) {
	for i, c := range b {
		if i < at || i >= at+4 {
			n += uint32(c)
		}
	}
	return ^n
}

// geometry is the disk in cylinders, heads and sectors a track, as the
// specification's appendix works it out. It is less than the disk by up to a
// cylinder, and ends at 127 GiB; only old BIOSes look at it.
func geometry(size int64) uint32 {
	total := min(size/sector, 65535*16*255)
	var perTrack, heads, tracks int64
	switch {
	case total >= 65535*16*63:
		perTrack, heads = 255, 16
		tracks = total / perTrack
	default:
		perTrack = 17
		tracks = total / perTrack
		heads = max(4, (tracks+1023)/1024)
		if tracks >= heads*1024 || heads > 16 {
			perTrack, heads = 31, 16
			tracks = total / perTrack
		}
		if tracks >= heads*1024 {
			perTrack, heads = 63, 16
			tracks = total / perTrack
		}
	}
	return uint32(tracks/heads)<<16 | uint32(heads)<<8 | uint32(perTrack)
}

// Extent is a run of a disk's bytes.
type Extent struct {
	Offset int64
	Data   []byte // good until the next one is read
}

// runs calls f for each run of set bits, most significant first in each byte.
func runs(bitmap []byte, f func(from, to int) error) error {
	from := -1
	n := len(bitmap) * 8
	for i := 0; i < n; {
		if i%8 == 0 && (bitmap[i/8] == 0 && from < 0 || bitmap[i/8] == 0xff && from >= 0) {
			i += 8 // nothing changes in this byte
			continue
		}
		set := bitmap[i/8]>>(7-i%8)&1 == 1
		if set && from < 0 {
			from = i
		}
		if !set && from >= 0 {
			if err := f(from, i); err != nil {
				return err
			}
			from = -1
		}
		i++
	}
	if from < 0 {
		return nil
	}
	return f(from, n)
}
