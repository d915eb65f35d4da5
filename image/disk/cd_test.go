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
	b, catalog := buildCD(t, CD{Label: "TEST", UEFI: map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": payload}}, file)
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

// buildCD makes a CD and returns it with its boot catalog.
func buildCD(t *testing.T, cd CD, file string) (b, catalog []byte) {
	t.Helper()
	if err := BuildCD(cd, 1700000000, file); err != nil {
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
	return b, b[int(le32(record[0x47:]))*isoBlock:]
}

// TestBuildCDForBoth: a BIOS takes the first entry, and finds in what it loads where
// that lies; UEFI finds its own; files keep their long names.
func TestBuildCDForBoth(t *testing.T) {
	loader := bytes.Repeat([]byte("bios"), 1024)
	b, catalog := buildCD(t, CD{
		Label: "TEST", BIOS: "/isolinux/isolinux.bin",
		Files: map[string][]byte{"/isolinux/isolinux.bin": loader, "/a long name/configuration": []byte("text")},
		UEFI:  map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": []byte("loader")},
	}, filepath.Join(t.TempDir(), "a.iso"))
	bios, uefi := catalog[32:64], catalog[96:128]
	if catalog[1] != 0 || bios[0] != 0x88 || bios[6] != 4 {
		t.Errorf("for a BIOS: % x", catalog[:64])
	}
	at := le32(bios[8:])
	image := b[at*isoBlock:]
	if le32(image[8:]) != 16 || le32(image[12:]) != at || le32(image[16:]) != uint32(len(loader)) || string(image[64:68]) != "bios" {
		t.Errorf("what a BIOS loads does not say where it is: % x", image[:68])
	}
	if catalog[64] != 0x91 || catalog[65] != 0xef || string(b[le32(uefi[8:])*isoBlock:][82:87]) != "FAT32" {
		t.Errorf("for UEFI: % x", catalog[64:128])
	}
	if !bytes.Contains(b, []byte("a long name")) || !bytes.Contains(b, []byte("configuration")) {
		t.Error("long names are lost")
	}
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}
