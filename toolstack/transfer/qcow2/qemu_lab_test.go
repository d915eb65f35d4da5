//go:build lab

package qcow2

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"cairn/image/debian/debiantest"
)

// TestRealQEMU has QEMU check and read what is written here.
func TestRealQEMU(t *testing.T) {
	qemu := debiantest.Program(t, "qemu-img")
	image, raw := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "raw")
	for _, size := range []int64{512, 5*ClusterSize + 512, perTable*ClusterSize + 1024} {
		b := disk(size)
		must(t, os.WriteFile(image, write(t, b), 0o600))
		qemu("check", "-f", "qcow2", image)
		qemu("convert", "-f", "qcow2", "-O", "raw", image, raw)
		if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, b) {
			t.Errorf("QEMU reads %d bytes as %d others, %v", size, len(got), err)
		}
	}
}
