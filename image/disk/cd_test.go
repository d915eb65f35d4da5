package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestBuildCD: the image is an ISO with an El Torito record whose boot catalog
// has an entry for UEFI, and what it boots is the FAT file system with the files.
func TestBuildCD(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.iso")
	payload := bytes.Repeat([]byte("loader"), 1000)
	if err := BuildCD("TEST", map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": payload}, 1700000000, file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(b[16*isoBlock+1:16*isoBlock+6]) != "CD001" {
		t.Error("no volume descriptor")
	}
	record := b[17*isoBlock:]
	if string(record[7:30]) != "EL TORITO SPECIFICATION" {
		t.Fatalf("boot record %q", record[:40])
	}
	at := int(le32(record[0x47:])) * isoBlock
	catalog := b[at:]
	if catalog[0] != 1 || catalog[1] != 0xef || catalog[0x1e] != 0x55 || catalog[0x1f] != 0xaa {
		t.Errorf("validation entry % x", catalog[:32])
	}
	entry := catalog[32:64]
	if entry[0] != 0x88 || entry[1] != 0 || entry[6] != 1 {
		t.Errorf("boot entry % x", entry)
	}
	boot := b[int(le32(entry[8:]))*isoBlock:]
	if string(boot[82:87]) != "FAT32" || !bytes.Contains(boot, payload) {
		t.Error("what is booted is not a FAT file system with the file")
	}
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}
