//go:build lab

package vmdk

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
	image, raw := filepath.Join(dir, "disk.vmdk"), filepath.Join(dir, "raw")
	for _, size := range []int64{GrainSize, 1100 * GrainSize} {
		b := content(uint64(size), size)
		must(t, os.WriteFile(image, write(t, b), 0o600))
		qemu("convert", "-f", "vmdk", "-O", "raw", image, raw)
		got, err := os.ReadFile(raw)
		must(t, err)
		if !bytes.Equal(got, b) {
			t.Errorf("QEMU reads %d bytes as %d others", size, len(got))
		}
		must(t, os.WriteFile(raw, b, 0o600))
		qemu("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, image)
		text, err := os.ReadFile(image)
		must(t, err)
		if got, err := read(text); err != nil || !bytes.Equal(got, b) {
			t.Errorf("QEMU's of %d bytes: %v", size, err)
		}
	}
}
