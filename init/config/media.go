package config

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// MediaLabel is the file system label of media that carry a document, and
// MediaFile its name in the root directory there.
const (
	MediaLabel = "CAIRN-CONF"
	MediaFile  = "cairn.yaml"
)

// FSType is a file system media may have, as mount(2) names it.
type FSType string

// The file systems of configuration media.
const (
	VFAT    FSType = "vfat"
	ISO9660 FSType = "iso9660"
)

// ErrNotMedia is ReadLabel's answer for anything but vfat and iso9660.
var ErrNotMedia = errors.New("neither vfat nor iso9660")

// ReadLabel finds the label of the file system on a device from its first
// blocks, without mounting: mounting strange media is what an attacker with a
// stick would like best.
func ReadLabel(dev io.ReaderAt) (FSType, string, error) {
	if label, ok := isoLabel(dev); ok {
		return ISO9660, label, nil
	}
	boot := make([]byte, 512)
	if _, err := dev.ReadAt(boot, 0); err != nil {
		return "", "", fmt.Errorf("read first block: %w", err)
	}
	label, ok := fatLabel(dev, boot)
	if !ok {
		return "", "", ErrNotMedia
	}
	return VFAT, label, nil
}

// isoLabel reads the primary volume descriptor at 32 KiB.
func isoLabel(dev io.ReaderAt) (string, bool) {
	const descriptor, idOffset, idLen = 32 << 10, 40, 32
	b := make([]byte, idOffset+idLen)
	if _, err := dev.ReadAt(b, descriptor); err != nil {
		return "", false
	}
	if b[0] != 1 || string(b[1:6]) != "CD001" {
		return "", false
	}
	return strings.TrimRight(string(b[idOffset:]), " \x00"), true
}

// fatGeometry is what the boot sector says about where things are.
type fatGeometry struct {
	rootOffset int64 // of the root directory
	rootLen    int   // bytes of it that are contiguous
	bootLabel  string
}

func fatLabel(dev io.ReaderAt, boot []byte) (string, bool) {
	g, ok := parseFAT(boot)
	if !ok {
		return "", false
	}
	// The label in the root directory is the one the mounted file system
	// shows; the boot sector's copy is often left behind.
	if label, ok := fatRootLabel(dev, g); ok {
		return label, true
	}
	return g.bootLabel, true
}

func parseFAT(b []byte) (fatGeometry, bool) {
	u16 := func(i int) int64 { return int64(binary.LittleEndian.Uint16(b[i:])) }
	u32 := func(i int) int64 { return int64(binary.LittleEndian.Uint32(b[i:])) }
	sector, cluster, reserved, fats := u16(11), int64(b[13]), u16(14), int64(b[16])
	if b[510] != 0x55 || b[511] != 0xaa || reserved == 0 || fats == 0 || fats > 2 {
		return fatGeometry{}, false
	}
	if !powerOfTwo(sector, 512, 4096) || !powerOfTwo(cluster, 1, 128) {
		return fatGeometry{}, false
	}
	fat32 := u16(22) == 0
	if fat32 {
		if string(b[82:87]) != "FAT32" {
			return fatGeometry{}, false
		}
		data := (reserved + fats*u32(36)) * sector
		return fatGeometry{
			rootOffset: data + max(u32(44)-2, 0)*cluster*sector,
			rootLen:    int(cluster * sector),
			bootLabel:  fatName(b[71:82]),
		}, true
	}
	if string(b[54:57]) != "FAT" {
		return fatGeometry{}, false
	}
	return fatGeometry{
		rootOffset: (reserved + fats*u16(22)) * sector,
		rootLen:    int(u16(17)) * fatEntry,
		bootLabel:  fatName(b[43:54]),
	}, true
}

const (
	fatEntry     = 32   // bytes of a directory entry
	fatVolumeID  = 0x08 // attribute of the entry that holds the label
	fatLongName  = 0x0f // attributes of a piece of a long name
	fatDeleted   = 0xe5 // first byte of a free entry
	fatMaxRootKB = 64   // bytes of a root directory worth looking at, in KiB
)

func fatRootLabel(dev io.ReaderAt, g fatGeometry) (string, bool) {
	dir := make([]byte, min(g.rootLen, fatMaxRootKB<<10))
	n, _ := dev.ReadAt(dir, g.rootOffset) // a short read shows as fewer entries
	for e := range slices.Chunk(dir[:n-n%fatEntry], fatEntry) {
		switch {
		case e[0] == 0:
			return "", false
		case e[0] != fatDeleted && e[11]&fatLongName != fatLongName && e[11]&fatVolumeID != 0:
			return fatName(e[:11]), true
		}
	}
	return "", false
}

func fatName(b []byte) string {
	name := strings.TrimRight(string(b), " \x00")
	if name == "NO NAME" {
		return ""
	}
	return name
}

func powerOfTwo(n, low, high int64) bool { return n >= low && n <= high && n&(n-1) == 0 }

// readBounded reads a document but never more than one can have; one byte over
// lets Parse say that it is too long.
func readBounded(r io.Reader) ([]byte, error) {
	var b bytes.Buffer
	_, err := io.Copy(&b, io.LimitReader(r, maxDocument+1))
	return b.Bytes(), err
}
