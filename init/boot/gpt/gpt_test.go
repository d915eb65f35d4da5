package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
	"unicode/utf16"
)

const (
	typeText = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	uuidText = "00112233-4455-6677-8899-aabbccddeeff"
)

// disk builds a disk with one partition, named root_A, and both tables.
func disk(sector uint64) []byte {
	const sectors = 100
	entries := make([]byte, 128*entrySize)
	e := entries[2*entrySize:] // the third entry: numbers have gaps
	copy(e, []byte{0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4})
	copy(e[16:], []byte{0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff})
	le := binary.LittleEndian
	le.PutUint64(e[32:], 40)
	le.PutUint64(e[40:], 49)
	for i, u := range utf16.Encode([]rune("root_A")) {
		le.PutUint16(e[nameOffset+2*i:], u)
	}
	d := make([]byte, sectors*sector)
	place := func(lba, entriesLBA uint64) {
		copy(d[entriesLBA*sector:], entries)
		h := d[lba*sector:]
		copy(h, signature)
		le.PutUint32(h[8:], 0x10000)
		le.PutUint32(h[12:], headerSize)
		le.PutUint64(h[24:], lba)
		copy(h[56:72], e[16:32])
		le.PutUint64(h[72:], entriesLBA)
		le.PutUint32(h[80:], 128)
		le.PutUint32(h[84:], entrySize)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
	}
	place(1, 2)
	place(sectors-1, sectors-1-uint64(len(entries)+int(sector)-1)/sector)
	return d
}

func TestRead(t *testing.T) {
	for _, sector := range []uint64{512, 4096} {
		d := disk(sector)
		got, err := Read(bytes.NewReader(d), uint64(len(d)), sector)
		if err != nil {
			t.Fatalf("sectors of %d: %v", sector, err)
		}
		want := Partition{Number: 3, Type: typeText, UUID: uuidText, Name: "root_A", First: 40 * sector, Size: 10 * sector}
		if got.DiskGUID != uuidText || len(got.Partitions) != 1 || got.Partitions[0] != want {
			t.Errorf("sectors of %d: %+v, want one partition %+v", sector, got, want)
		}
	}
}

func TestReadFallsBackToBackup(t *testing.T) {
	for _, damage := range []struct {
		about string
		at    int
	}{{"signature", 512}, {"header", 512 + 60}, {"entries", 1024 + 300}} {
		d := disk(512)
		d[damage.at] ^= 1
		if _, err := Read(bytes.NewReader(d), uint64(len(d)), 512); err != nil {
			t.Errorf("damaged %s: %v, want the backup table", damage.about, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	twice := disk(512)
	twice[512+60] ^= 1
	twice[99*512+60] ^= 1
	cases := []struct {
		about  string
		disk   []byte
		sector uint64
	}{
		{"both damaged", twice, 512},
		{"sectors of 500", disk(512), 500},
		{"empty disk", nil, 512},
		{"too small", make([]byte, 1024), 512},
	}
	for _, c := range cases {
		if _, err := Read(bytes.NewReader(c.disk), uint64(len(c.disk)), c.sector); err == nil {
			t.Errorf("%s: accepted", c.about)
		}
	}
	blank := make([]byte, 1<<20)
	if _, err := Read(bytes.NewReader(blank), 1<<20, 512); !errors.Is(err, ErrNone) {
		t.Errorf("blank disk: %v, want ErrNone", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(disk(512), true)
	f.Add(disk(4096), false)
	f.Fuzz(func(t *testing.T, d []byte, small bool) {
		sector := uint64(4096)
		if small {
			sector = 512
		}
		fixChecksums(d, sector)
		table, err := Read(bytes.NewReader(d), uint64(len(d)), sector)
		if err != nil {
			return
		}
		for _, p := range table.Partitions {
			if p.Size == 0 || p.First+p.Size > uint64(len(d)) {
				t.Errorf("partition beyond the disk: %+v", p)
			}
		}
	})
}

// fixChecksums lets the fuzzer past the checksums, which it cannot guess.
func fixChecksums(d []byte, sector uint64) {
	if uint64(len(d)) < 2*sector {
		return
	}
	h := d[sector : 2*sector]
	le := binary.LittleEndian
	start, size := le.Uint64(h[72:]), uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:]))
	if start < uint64(len(d))/sector && size <= uint64(len(d))-start*sector {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(d[start*sector:start*sector+size]))
	}
	le.PutUint32(h[12:], headerSize)
	le.PutUint32(h[16:], 0)
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
}
