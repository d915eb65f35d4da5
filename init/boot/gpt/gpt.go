// Package gpt reads GUID partition tables, for sectors of 512 and of 4096
// bytes. It only reads: the disk is one that nothing vouches for yet, so every
// number is bounded before use, both checksums are verified, and the backup
// table at the end of the disk stands in for a damaged primary one.
//
// It holds no state and is safe for concurrent use.
package gpt

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// ErrNone tells that a disk holds no partition table of this kind.
var ErrNone = errors.New("no GUID partition table")

const (
	signature  = "EFI PART"
	headerSize = 92
	entrySize  = 128
	nameOffset = 56
	// maxTable bounds what is read of a table. The usual table is 128 entries
	// of 128 bytes; ten times that is more than any tool writes.
	maxTable = 160 << 10
)

// Table is a partition table.
type Table struct {
	DiskGUID   string
	Partitions []Partition // in table order, unused entries left out
}

// Partition is one used entry.
type Partition struct {
	Number int // from 1, as the kernel counts them
	Type   string
	UUID   string
	Name   string
	First  uint64 // byte offset
	Size   uint64 // bytes
}

// Read reads the table of a disk of the given size, whose sectors have
// sectorSize bytes.
func Read(disk io.ReaderAt, size, sectorSize uint64) (Table, error) {
	if sectorSize < 512 || sectorSize > 64<<10 || sectorSize&(sectorSize-1) != 0 {
		return Table{}, fmt.Errorf("partition table: sector size %d", sectorSize)
	}
	sectors := size / sectorSize
	if sectors < 3 {
		return Table{}, ErrNone
	}
	d := reader{disk: disk, sector: sectorSize, sectors: sectors}
	table, err := d.at(1)
	if err == nil {
		return table, nil
	}
	backup, backupErr := d.at(sectors - 1)
	if backupErr == nil {
		return backup, nil
	}
	return Table{}, err
}

type reader struct {
	disk    io.ReaderAt
	sector  uint64
	sectors uint64
}

// header is what of a GPT header is used.
type header struct {
	guid       string
	entriesLBA uint64
	count      uint32
	size       uint32
	crc        uint32
}

// at reads the table whose header lies at the given sector.
func (d reader) at(lba uint64) (Table, error) {
	buf := make([]byte, d.sector)
	if _, err := d.disk.ReadAt(buf, int64(lba*d.sector)); err != nil {
		return Table{}, fmt.Errorf("partition table at sector %d: %w", lba, err)
	}
	h, err := parseHeader(buf, lba)
	if err != nil {
		return Table{}, err
	}
	entries := make([]byte, uint64(h.count)*uint64(h.size))
	if h.entriesLBA >= d.sectors {
		return Table{}, fmt.Errorf("partition table at sector %d: entries at sector %d of %d", lba, h.entriesLBA, d.sectors)
	}
	if _, err := d.disk.ReadAt(entries, int64(h.entriesLBA*d.sector)); err != nil {
		return Table{}, fmt.Errorf("partition table at sector %d: entries: %w", lba, err)
	}
	if crc32.ChecksumIEEE(entries) != h.crc {
		return Table{}, fmt.Errorf("partition table at sector %d: entries have a wrong checksum", lba)
	}
	return d.table(h, entries), nil
}

func parseHeader(b []byte, lba uint64) (header, error) {
	if len(b) < headerSize || string(b[:8]) != signature {
		return header{}, ErrNone
	}
	le := binary.LittleEndian
	length := le.Uint32(b[12:])
	if length < headerSize || uint64(length) > uint64(len(b)) {
		return header{}, fmt.Errorf("partition table at sector %d: header of %d bytes", lba, length)
	}
	// The header's own checksum is computed with its field as zero.
	sum := crc32.ChecksumIEEE(b[:16])
	sum = crc32.Update(sum, crc32.IEEETable, []byte{0, 0, 0, 0})
	sum = crc32.Update(sum, crc32.IEEETable, b[20:length])
	if sum != le.Uint32(b[16:]) || le.Uint64(b[24:]) != lba {
		return header{}, fmt.Errorf("partition table at sector %d: header has a wrong checksum or place", lba)
	}
	h := header{
		guid: guid(b[56:72]), entriesLBA: le.Uint64(b[72:]),
		count: le.Uint32(b[80:]), size: le.Uint32(b[84:]), crc: le.Uint32(b[88:]),
	}
	if h.size < entrySize || h.size%8 != 0 || uint64(h.count)*uint64(h.size) > maxTable {
		return header{}, fmt.Errorf("partition table at sector %d: %d entries of %d bytes", lba, h.count, h.size)
	}
	return h, nil
}

func (d reader) table(h header, entries []byte) Table {
	t := Table{DiskGUID: h.guid}
	for i := range int(h.count) {
		e := entries[i*int(h.size):]
		if p, ok := d.entry(e[:entrySize]); ok {
			p.Number = i + 1
			t.Partitions = append(t.Partitions, p)
		}
	}
	return t
}

// entry decodes one entry; unused ones and ones beyond the disk are left out,
// as the kernel leaves them out.
func (d reader) entry(e []byte) (Partition, bool) {
	le := binary.LittleEndian
	first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
	kind := guid(e[:16])
	if kind == "00000000-0000-0000-0000-000000000000" || first > last || last >= d.sectors {
		return Partition{}, false
	}
	return Partition{
		Type: kind, UUID: guid(e[16:32]), Name: name(e[nameOffset:entrySize]),
		First: first * d.sector, Size: (last - first + 1) * d.sector,
	}, true
}

// name decodes UTF-16LE up to the first NUL.
func name(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// guid writes the mixed-endian bytes of a table as lower-case text: the first
// three groups are stored little-endian, the last two as they read.
func guid(b []byte) string {
	var text [36]byte
	swapped := [16]byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]}
	copy(swapped[8:], b[8:16])
	out := text[:0]
	for i, group := range []int{4, 2, 2, 2, 6} {
		if i > 0 {
			out = append(out, '-')
		}
		start := [...]int{0, 4, 6, 8, 10}[i]
		out = hex.AppendEncode(out, swapped[start:start+group])
	}
	return string(out)
}
