//go:build lab

package vhd

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"cairn/image/debian/debiantest"
)

// TestRealQEMU has QEMU read what is written here, and reads what QEMU writes.
func TestRealQEMU(t *testing.T) {
	dir := t.TempDir()
	qemu := debiantest.Program(t, "qemu-img")
	ours, raw := filepath.Join(dir, "ours.vhd"), filepath.Join(dir, "raw")
	for _, size := range []int64{3*blockSize + 5*sector, 40 * blockSize} {
		b := disk(uint64(size), size)
		for _, kind := range []Kind{Fixed, Dynamic} {
			must(t, os.WriteFile(ours, write(t, Info{Kind: kind, Size: size, Made: made}, b, nil), 0o600))
			qemu("convert", "-f", "vpc", "-O", "raw", ours, raw)
			got, err := os.ReadFile(raw)
			must(t, err)
			if !bytes.Equal(got, b) {
				t.Errorf("QEMU reads kind %d of %d bytes as %d others", kind, size, len(got))
			}
		}
		for _, subformat := range []string{"fixed", "dynamic"} {
			must(t, os.WriteFile(raw, b, 0o600))
			qemu("convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on,subformat="+subformat, raw, ours)
			image, err := os.ReadFile(ours)
			must(t, err)
			got := make([]byte, size)
			if i, err := apply(image, got); err != nil || !bytes.Equal(got, b) {
				t.Errorf("QEMU's %s of %d bytes: %+v, %v", subformat, size, i, err)
			}
		}
	}
}
