// Package xva reads and writes the archive in which a VM travels with its disks: a
// tar of ova.xml, then for each disk a folder Ref:N of chunks of 1 MiB, numbered from
// 0, each followed by its checksum. A chunk that is all zero is left out, but for a
// disk's first and last one. The whole may be packed with gzip or zstd, which a reader
// sees by itself. A single disk may travel in one folder without ova.xml.
//
// This package knows archives, not what ova.xml says: which disks there are and how
// large they may be is told to the Reader once the caller has read it. Until a chunk's
// checksum was compared none of it is handed out.
//
// What is kept: nothing a name, a size or a checksum claims is believed. Only members
// with expected names in ascending order pass, none larger than a chunk; a disk ends with its last chunk, so
// that one which was cut off is not taken for whole; memory is bounded by ova.xml's
// limit, a chunk and the packer's window; what inflates to more than the disks it
// belongs to ends there.
//
// Readers and writers are used by one goroutine at a time.
package xva

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"cairn/toolstack/transfer/archive"
)

const (
	// ChunkSize is the size of every chunk but a disk's last, in bytes.
	ChunkSize = 1 << 20
	// MaxXML bounds ova.xml: a VM with 255 disks and 100 snapshots takes 108 MiB.
	MaxXML = 128 << 20
	// xmlName is the first member's.
	xmlName = "ova.xml"
)

// ErrTooLarge is a disk without a description that does not fit.
var ErrTooLarge = fmt.Errorf("%w: more than the disk", archive.ErrFormat)

// Suffixes of checksums: today's, and that of archives before 2020.
const (
	suffixXXH  = ".xxhash"
	suffixSHA1 = ".checksum"
)

// sumOf is the checksum of a chunk as its member spells it.
func sumOf(chunk []byte, suffix string) string {
	if suffix == suffixXXH {
		return fmt.Sprintf("%016X", xxhash.Sum64(chunk))
	}
	h := sha1.Sum(chunk) // against accidents only
	return hex.EncodeToString(h[:])
}

// chunks is how many a disk of so many bytes has.
func chunks(size int64) int64 {
	if size <= 0 {
		return 0
	}
	return (size-1)/ChunkSize + 1
}

func chunkName(disk string, number int64) string { return fmt.Sprintf("%s/%08d", disk, number) }

// splitName reads "Ref:3/00000017", with the suffix of a checksum or none.
func splitName(name string) (disk string, number int64, suffix string, err error) {
	disk, rest, ok := strings.Cut(name, "/")
	digits := rest
	for _, s := range []string{suffixXXH, suffixSHA1} {
		if d, found := strings.CutSuffix(rest, s); found {
			digits, suffix = d, s
		}
	}
	number, err = strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || len(digits) < 8 || digits[0] == '+' || digits[0] == '-' || disk == "" || strings.Trim(disk, ".") == "" {
		return "", 0, "", archive.Malformed("a member %.80q", name)
	}
	return disk, number, suffix, nil
}
