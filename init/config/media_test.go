package config

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

func isoImage(label string) []byte {
	b := make([]byte, 40<<10)
	d := b[32<<10:]
	d[0] = 1
	copy(d[1:], "CD001\x01")
	copy(d[40:72], bytes.Repeat([]byte{' '}, 32))
	copy(d[40:], label)
	return b
}

// fat16Image has a boot sector label and, unless empty, one in the root directory.
func fat16Image(boot, root string) []byte {
	b := make([]byte, 64<<10)
	put16 := func(i int, v uint16) { binary.LittleEndian.PutUint16(b[i:], v) }
	put16(11, 512)
	b[13], b[16] = 4, 2
	put16(14, 1)
	put16(17, 512)
	put16(22, 20)
	copy(b[43:54], "           ")
	copy(b[43:], boot)
	copy(b[54:], "FAT16   ")
	b[510], b[511] = 0x55, 0xaa
	dir := b[41*512:]
	copy(dir, "\xe5LD NAME   \x08")             // a deleted label
	copy(dir[32:], "Ac\x00o\x00n\x00f\x00\x0f") // a piece of a long name
	copy(dir[64:], "FILE    TXT\x20")
	if root != "" {
		copy(dir[96:], root+"           ")
		dir[96+11] = 0x08
	}
	return b
}

func fat32Image(label string) []byte {
	b := make([]byte, 128<<10)
	binary.LittleEndian.PutUint16(b[11:], 512)
	b[13], b[16] = 1, 1
	binary.LittleEndian.PutUint16(b[14:], 32)
	binary.LittleEndian.PutUint32(b[36:], 10)
	binary.LittleEndian.PutUint32(b[44:], 3)
	copy(b[71:82], "NO NAME    ")
	copy(b[82:], "FAT32   ")
	b[510], b[511] = 0x55, 0xaa
	dir := b[(32+10+1)*512:]
	copy(dir, label+"           ")
	dir[11] = 0x08
	return b
}

func TestReadLabel(t *testing.T) {
	for _, c := range []struct {
		name  string
		image []byte
		kind  FSType
		label string
		err   error
	}{
		{"iso", isoImage("CAIRN-CONF"), ISO9660, "CAIRN-CONF", nil},
		{"fat16 by root directory", fat16Image("OLD", "CAIRN-CONF"), VFAT, "CAIRN-CONF", nil},
		{"fat16 by boot sector", fat16Image("CAIRN-CONF", ""), VFAT, "CAIRN-CONF", nil},
		{"fat16 without a label", fat16Image("NO NAME", ""), VFAT, "", nil},
		{"fat32", fat32Image("CAIRN-CONF"), VFAT, "CAIRN-CONF", nil},
		{"zeros", make([]byte, 64<<10), "", "", ErrNotMedia},
		{"small", make([]byte, 512), "", "", ErrNotMedia},
	} {
		kind, label, err := ReadLabel(bytes.NewReader(c.image))
		if kind != c.kind || label != c.label || !errors.Is(err, c.err) {
			t.Errorf("%s: got %q %q %v", c.name, kind, label, err)
		}
	}
	if _, _, err := ReadLabel(bytes.NewReader(nil)); err == nil {
		t.Error("an empty device has a label")
	}
}

func FuzzReadLabel(f *testing.F) {
	f.Add(fat16Image("OLD", "CAIRN-CONF")[:2048])
	f.Add(fat32Image("CAIRN-CONF")[:1024])
	f.Fuzz(func(t *testing.T, image []byte) {
		if _, label, err := ReadLabel(bytes.NewReader(image)); err == nil && len(label) > 32 {
			t.Fatalf("label %q", label)
		}
	})
}
